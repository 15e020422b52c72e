"""Photographs that arrive one by one → who is in them: extracted as they come, classified together."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.contact_sheets import load_thumbnail, make_thumbnail
from celebflow.explanations import Explainer, overlay_heat_map
from celebflow.images import decode_photograph, encode_jpeg
from celebflow.naming import Identity, identify
from celebflow.neighbours import TrainingPhotographs
from celebflow.prediction import ExtractedFace, Predictor

_BATCH_SIZE = 16  # photographs that are classified in one pass
_LONGEST_WAIT_SECONDS = 1.0  # of one that is ready for others
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
class Question:
    """The bytes of a photograph, how many names to give a face, and what else is asked."""

    content: bytes
    most_candidates: int
    heat_map: bool
    nearest: bool


@dataclass(frozen=True)
class NearPhotograph:
    """A photograph of train (JPEG, its centre square) that is like a face, by the cosine of the angle between them."""

    person: str
    similarity: float
    thumbnail: bytes


@dataclass(frozen=True)
class FaceAnswer:
    """Who a face is. Where it is asked: what the network saw, with and without where it looked (JPEG), and the nearest
    photographs of train.
    """

    identity: Identity
    seen: bytes | None
    heat_map: bytes | None
    nearest: list[NearPhotograph] | None


@dataclass(frozen=True)
class Answered:
    """The upright photograph's size in pixels, and everybody in it, the subject first."""

    width_px: int
    height_px: int
    faces: list[FaceAnswer]


@dataclass(frozen=True, eq=False)
class _Seen:
    """A photograph of which nothing but its features is kept, and of each face what the network saw, if it is asked."""

    question: Question
    width_px: int
    height_px: int
    faces: list[ExtractedFace]
    thumbnails: list[NDArray[np.uint8] | None]


class Answerer:
    """A model and who waits for it. All but `waiting` is for the tasks of one event loop.

    Photographs are decoded and extracted one in each of the model's workers. Whoever is ready waits for those who
    came before and are not yet, up to a batch: the classifier's weights are read from memory once for all of them.
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
        self._ready: list[tuple[_Seen, asyncio.Future[Answered]]] = []
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

    async def ask(self, question: Question) -> Answered:
        """Say who is in a photograph; raise PhotographError when it is none, or is too large."""
        seen = await self._extract(question)
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._ready.append((seen, answer))
        if self._passes is None:
            self._passes = asyncio.create_task(self._classify_ready())
        return await answer

    async def _extract(self, question: Question) -> _Seen:
        self._extracting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._extractors, self._look, question)
        finally:
            self._extracting -= 1
            self._extracted += 1
            self._extraction_ended.set()

    def _look(self, question: Question) -> _Seen:
        photograph = decode_photograph(question.content, self._limits.pixels)
        faces = self._predictor.extract(photograph, self._limits.faces)
        transform = self._predictor.card.transform
        thumbnails = [
            make_thumbnail(transform.cut_out(photograph, face.face)) if question.heat_map else None for face in faces
        ]
        return _Seen(question, photograph.width, photograph.height, faces, thumbnails)

    async def _classify_ready(self) -> None:
        while self._ready:
            await self._wait_for_earlier()
            batch, self._ready = self._ready[:_BATCH_SIZE], self._ready[_BATCH_SIZE:]
            try:
                answers = await asyncio.get_running_loop().run_in_executor(
                    self._classifier, self._answer, [seen for seen, _ in batch]
                )
            except Exception as error:  # each who asked is told
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), found in zip(batch, answers, strict=True):
                if not answer.done():  # who asked may have gone
                    answer.set_result(found)
        self._passes = None

    async def _wait_for_earlier(self) -> None:
        wanted = self._extracted + min(self._extracting, _BATCH_SIZE - len(self._ready))
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                while self._extracted < wanted:
                    self._extraction_ended.clear()
                    await self._extraction_ended.wait()

    def _answer(self, photographs: Sequence[_Seen]) -> list[Answered]:
        self._count_batch(len(photographs))
        named = iter(self._predictor.classify([face for seen in photographs for face in seen.faces]))
        answers = []
        for seen in photographs:
            faces = []
            for face, thumbnail in zip(seen.faces, seen.thumbnails, strict=True):
                probabilities = next(named)
                best = np.array([probabilities.probabilities.argmax()], np.int64)
                faces.append(
                    FaceAnswer(
                        identify(probabilities, self._predictor.card, seen.question.most_candidates),
                        None if thumbnail is None else encode_jpeg(thumbnail),
                        None if thumbnail is None else self._explain(face, thumbnail, best),
                        self._find_nearest(face) if seen.question.nearest else None,
                    )
                )
            answers.append(Answered(seen.width_px, seen.height_px, faces))
        return answers

    def _explain(self, face: ExtractedFace, thumbnail: NDArray[np.uint8], best: NDArray[np.int64]) -> bytes:
        (heat,) = self._explainer.compute_heat_maps(self._predictor.batch(face.views[:1]), best)
        return encode_jpeg(overlay_heat_map(thumbnail, heat))

    def _find_nearest(self, face: ExtractedFace) -> list[NearPhotograph]:
        if self._training is None:
            return []
        (nearest,) = self._training.find_nearest(self._predictor.batch(face.views[:1]), _NEAREST_COUNT)
        return [
            NearPhotograph(each.person, each.similarity, encode_jpeg(load_thumbnail(each.file))) for each in nearest
        ]
