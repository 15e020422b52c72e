"""Photographs that arrive one by one → who is in them: extracted as they come, classified together."""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer

from celebflow.data.decoding import PhotographError, decode_photograph, encode_jpeg
from celebflow.inference.neighbors import Neighbor, TrainingPhotographs
from celebflow.inference.predictor import ExtractedFace, Identity, PredictedFace, Predictor, identify
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from celebflow.report.thumbnails import load_thumbnail, make_thumbnail

_Result = TypeVar("_Result")
_BATCH_SIZE = 16  # photographs that are classified in one pass
_LONGEST_WAIT_SECONDS = 0.25  # of one that is ready, for others
_NEAREST_COUNT = 4


class QueueFullError(Exception):
    """More are waiting than should."""


@dataclass(frozen=True)
class Limits:
    """What may be asked: of a photograph the bytes, the pixels and the faces that are named, the seconds until its
    answer, and how many may wait for theirs.
    """

    upload_bytes: int
    pixels: int
    faces: int
    seconds: float
    waiting: int


@dataclass(frozen=True)
class PredictionRequest:
    """The bytes of a photograph, how many names to give a face, and what else is asked."""

    content: bytes
    most_candidates: int
    heat_map: bool
    nearest: bool


# In JSON, a JPEG file is a text.
_Jpeg = Annotated[
    bytes, PlainSerializer(lambda content: b64encode(content).decode(), str), Field(description="JPEG in base64")
]


@dataclass(frozen=True)
class NearestPhotograph:
    """A photograph of train that is like a face: by the cosine of the angle between what the classifier sees of both.

    Its thumbnail, the center square, is None where the file cannot be read any more.
    """

    person: str
    similarity: float
    thumbnail: _Jpeg | None


@dataclass(frozen=True)
class FacePrediction(Identity):
    """Who a face is. Where it is asked: what the network saw, the same bright where it looked, and the nearest
    photographs of train.
    """

    seen: _Jpeg | None
    heat_map: _Jpeg | None
    nearest: list[NearestPhotograph] | None


@dataclass(frozen=True)
class PredictionResponse:
    """The upright photograph's size, everybody in it, the subject first, and what is wrong with the model, if
    anything is.
    """

    width_px: int
    height_px: int
    faces: list[FacePrediction]
    warning: str | None


@dataclass(frozen=True, eq=False)
class _Seen:
    """A photograph of which nothing but its features is kept, and of each face what the network saw, if it is asked."""

    width_px: int
    height_px: int
    faces: list[ExtractedFace]
    thumbnails: list[NDArray[np.uint8] | None]


@dataclass(frozen=True, eq=False)
class _Classified:
    """A face with its name, and where the network looked and what is like it, if that is asked."""

    named: PredictedFace
    heat_map: NDArray[np.float32] | None
    nearest: list[Neighbor] | None


@dataclass(eq=False)
class _Waiting:
    """Who waits for a pass of the classifier."""

    question: PredictionRequest
    seen: _Seen
    answer: asyncio.Future[list[_Classified]]


class Batcher:
    """A model and who waits for it. All but `waiting` is for the tasks of one event loop.

    Photographs are decoded and extracted one in each of the model's workers. Whoever is ready waits a moment for those
    who are not yet, up to a batch: the classifier's weights are read from memory once for all of them.
    """

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits,
        training: TrainingPhotographs | None,
        count_batch: Callable[[int], object],
    ) -> None:
        """Take a model, its limits, and the photographs of train, where they may be shown.

        `count_batch` is told how many photographs each pass of the classifier had.
        """
        self.waiting = 0
        self._predictor, self._limits, self._training = predictor, limits, training
        self._explainer = Explainer(predictor.classifier)
        self._count_batch = count_batch
        self._extractors = ThreadPoolExecutor(predictor.workers, "extract")
        self._classifier = ThreadPoolExecutor(1, "classify")
        self._extracting = 0
        self._extracted = 0  # ever, or failed to
        self._extraction_ended = asyncio.Event()
        self._ready: list[_Waiting] = []
        self._passes: asyncio.Task[None] | None = None

    @contextmanager
    def queue(self) -> Iterator[None]:
        """Take a place among those who wait; raise QueueFullError when there is none."""
        if self.waiting >= self._limits.waiting:
            raise QueueFullError
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def ask(self, question: PredictionRequest) -> PredictionResponse:
        """Say who is in a photograph; raise PhotographError when it is none, or is too large."""
        seen = await self._extract(question)
        waiting = _Waiting(question, seen, asyncio.get_running_loop().create_future())
        self._ready.append(waiting)
        if self._passes is None:
            self._passes = asyncio.create_task(self._classify_ready())
        classified = await waiting.answer
        return await self._work(self._describe, question, seen, classified)

    async def _work(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._extractors, function, *arguments)

    async def _extract(self, question: PredictionRequest) -> _Seen:
        self._extracting += 1
        try:
            return await self._work(self._look, question)
        finally:
            self._extracting -= 1
            self._extracted += 1
            self._extraction_ended.set()

    def _look(self, question: PredictionRequest) -> _Seen:
        photograph = decode_photograph(question.content, self._limits.pixels)
        faces = self._predictor.extract(photograph, self._limits.faces)
        transform = self._predictor.card.transform
        thumbnails = [
            make_thumbnail(transform.crop(photograph, face.face)) if question.heat_map else None for face in faces
        ]
        return _Seen(photograph.width, photograph.height, faces, thumbnails)

    async def _classify_ready(self) -> None:
        while self._ready:
            await self._wait_for_others()
            batch, self._ready = self._ready[:_BATCH_SIZE], self._ready[_BATCH_SIZE:]
            batch = [waiting for waiting in batch if not waiting.answer.done()]  # who asked may have gone
            if not batch:
                continue
            try:
                classified = await asyncio.get_running_loop().run_in_executor(self._classifier, self._classify, batch)
            except Exception as error:  # each who asked is told
                outcomes: list[list[_Classified] | Exception] = [error] * len(batch)
            else:
                outcomes = list(classified)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                if waiting.answer.done():  # gone meanwhile
                    continue
                if isinstance(outcome, Exception):
                    waiting.answer.set_exception(outcome)
                else:
                    waiting.answer.set_result(outcome)
        self._passes = None

    async def _wait_for_others(self) -> None:
        wanted = self._extracted + min(self._extracting, _BATCH_SIZE - len(self._ready))
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                while self._extracted < wanted:
                    self._extraction_ended.clear()
                    await self._extraction_ended.wait()

    def _classify(self, batch: Sequence[_Waiting]) -> list[list[_Classified]]:
        self._count_batch(len(batch))
        named = iter(self._predictor.classify([face for waiting in batch for face in waiting.seen.faces]))
        return [
            [self._look_closer(waiting.question, face, next(named)) for face in waiting.seen.faces] for waiting in batch
        ]

    def _look_closer(self, question: PredictionRequest, face: ExtractedFace, named: PredictedFace) -> _Classified:
        view = self._predictor.stack(face.views[:1])
        heat_map, nearest = None, None
        if question.heat_map:
            best = np.array([named.probabilities.argmax()], np.int64)
            (heat_map,) = self._explainer.compute_heat_maps(view, best)
        if question.nearest and self._training is not None:
            (nearest,) = self._training.find_nearest(view, _NEAREST_COUNT)
        return _Classified(named, heat_map, nearest)

    def _describe(
        self, question: PredictionRequest, seen: _Seen, classified: Sequence[_Classified]
    ) -> PredictionResponse:
        card = self._predictor.card
        faces = [
            FacePrediction(
                **vars(identify(face.named, card, question.most_candidates)),
                seen=None if thumbnail is None else encode_jpeg(thumbnail),
                heat_map=None
                if thumbnail is None or face.heat_map is None
                else encode_jpeg(overlay_heat_map(thumbnail, face.heat_map)),
                nearest=None if face.nearest is None else [_show(neighbor) for neighbor in face.nearest],
            )
            for face, thumbnail in zip(classified, seen.thumbnails, strict=True)
        ]
        return PredictionResponse(seen.width_px, seen.height_px, faces, card.backbone.warning() or None)


def _show(neighbor: Neighbor) -> NearestPhotograph:
    try:
        thumbnail = encode_jpeg(load_thumbnail(neighbor.file))
    except (OSError, PhotographError):
        thumbnail = None
    return NearestPhotograph(neighbor.person, neighbor.similarity, thumbnail)
