"""Requests that arrive one by one → responses: photographs are extracted as they come and classified together."""

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
from celebflow.inference.predictor import ExtractedFace, PredictedFace, Predictor, RankedFace, rank_candidates
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from celebflow.report.thumbnails import load_thumbnail, make_thumbnail

_Result = TypeVar("_Result")
_BATCH_SIZE = 16  # photographs in one pass of the classifier
_MAX_WAIT_SECONDS = 0.25  # of an extracted photograph for others
_NEAREST_COUNT = 4


class QueueFullError(Exception):
    """As many requests are waiting as may wait."""


@dataclass(frozen=True)
class Limits:
    """The limits of a request: a photograph's bytes, pixels and predicted faces, and the seconds until the response.

    `waiting` is how many requests may wait for their responses at once.
    """

    upload_bytes: int
    pixels: int
    faces: int
    seconds: float
    waiting: int


@dataclass(frozen=True)
class PredictionRequest:
    """The bytes of a photograph, the number of candidates per face, and the optional parts of the response."""

    content: bytes
    max_candidates: int
    heat_map: bool
    nearest: bool


# In JSON, a JPEG file is a string.
_Jpeg = Annotated[
    bytes, PlainSerializer(lambda content: b64encode(content).decode(), str), Field(description="JPEG in base64")
]


@dataclass(frozen=True)
class NearestPhotograph:
    """A photograph of train that resembles a face: the cosine similarity of what the classifier sees of both.

    Its thumbnail, the center square, is None if the file can no longer be read.
    """

    person: str
    similarity: float
    thumbnail: _Jpeg | None


@dataclass(frozen=True)
class FacePrediction(RankedFace):
    """Who a face is. On request: what the network saw, its heat map, and the nearest photographs of train."""

    seen: _Jpeg | None
    heat_map: _Jpeg | None
    nearest: list[NearestPhotograph] | None


@dataclass(frozen=True)
class PredictionResponse:
    """The upright photograph's size, the faces in it, the subject first, and a warning about the model, if any."""

    width_px: int
    height_px: int
    faces: list[FacePrediction]
    warning: str | None


@dataclass(frozen=True, eq=False)
class _ExtractedPhotograph:
    """A photograph's size and features, and a thumbnail of each face that needs a heat map; its pixels are gone."""

    width_px: int
    height_px: int
    faces: list[ExtractedFace]
    thumbnails: list[NDArray[np.uint8] | None]


@dataclass(frozen=True, eq=False)
class _ExplainedFace:
    """A predicted face and, on request, where the network looked and which photographs resemble it."""

    predicted: PredictedFace
    heat_map: NDArray[np.float32] | None
    nearest: list[Neighbor] | None


@dataclass(eq=False)
class _PendingRequest:
    """A request whose photograph is extracted and waits for a pass of the classifier."""

    request: PredictionRequest
    photograph: _ExtractedPhotograph
    result: asyncio.Future[list[_ExplainedFace]]


class Batcher:
    """A model and the requests that wait for it. Everything but `waiting` is for the tasks of one event loop.

    Each of the model's workers decodes and extracts one photograph at a time. An extracted photograph waits a moment
    for those that are being extracted, up to a batch: one pass of the classifier reads its weights from memory once
    for all of them.
    """

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits,
        training: TrainingPhotographs | None,
        observe_batch: Callable[[int], object],
    ) -> None:
        """Take a model, its limits, and the photographs of train if they may be shown.

        `observe_batch` gets the number of photographs in each pass of the classifier.
        """
        self.waiting = 0
        self._predictor = predictor
        self._limits = limits
        self._training = training
        self._explainer = Explainer(predictor.classifier)
        self._observe_batch = observe_batch
        self._extractors = ThreadPoolExecutor(predictor.workers, "extract")
        self._classifier = ThreadPoolExecutor(1, "classify")
        self._extracting = 0
        self._extracted = 0  # since the start, failed ones included
        self._extraction_ended = asyncio.Event()
        self._pending: list[_PendingRequest] = []
        self._passes: asyncio.Task[None] | None = None

    @contextmanager
    def enter_queue(self) -> Iterator[None]:
        """Take a place in the queue; raise QueueFullError when there is none left."""
        if self.waiting >= self._limits.waiting:
            raise QueueFullError
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def predict(self, request: PredictionRequest) -> PredictionResponse:
        """Predict who is in a photograph; raise PhotographError when it cannot be read or is too large."""
        photograph = await self._extract(request)
        pending = _PendingRequest(request, photograph, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        if self._passes is None:
            self._passes = asyncio.create_task(self._classify_pending())
        faces = await pending.result
        return await self._run_in_worker(self._make_response, request, photograph, faces)

    async def _run_in_worker(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._extractors, function, *arguments)

    async def _extract(self, request: PredictionRequest) -> _ExtractedPhotograph:
        self._extracting += 1
        try:
            return await self._run_in_worker(self._extract_photograph, request)
        finally:
            self._extracting -= 1
            self._extracted += 1
            self._extraction_ended.set()

    def _extract_photograph(self, request: PredictionRequest) -> _ExtractedPhotograph:
        photograph = decode_photograph(request.content, self._limits.pixels)
        faces = self._predictor.extract(photograph, self._limits.faces)
        thumbnails: list[NDArray[np.uint8] | None] = [None] * len(faces)
        if request.heat_map:
            transform = self._predictor.card.transform
            thumbnails = [make_thumbnail(transform.crop(photograph, face.face)) for face in faces]
        return _ExtractedPhotograph(photograph.width, photograph.height, faces, thumbnails)

    async def _classify_pending(self) -> None:
        while self._pending:
            await self._wait_for_others()
            batch = [pending for pending in self._pending[:_BATCH_SIZE] if not pending.result.cancelled()]
            del self._pending[:_BATCH_SIZE]
            if batch:
                await self._classify_batch(batch)
        self._passes = None

    async def _wait_for_others(self) -> None:
        wanted = self._extracted + min(self._extracting, _BATCH_SIZE - len(self._pending))
        with suppress(TimeoutError):
            async with asyncio.timeout(_MAX_WAIT_SECONDS):
                while self._extracted < wanted:
                    self._extraction_ended.clear()
                    await self._extraction_ended.wait()

    async def _classify_batch(self, batch: Sequence[_PendingRequest]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._classifier, self._classify_and_explain, batch)
        except Exception as error:  # each request of the batch fails with it
            for pending in batch:
                if not pending.result.cancelled():
                    pending.result.set_exception(error)
            return
        for pending, faces in zip(batch, results, strict=True):
            if not pending.result.cancelled():  # its client may have left during the pass
                pending.result.set_result(faces)

    def _classify_and_explain(self, batch: Sequence[_PendingRequest]) -> list[list[_ExplainedFace]]:
        self._observe_batch(len(batch))
        predicted = self._predictor.classify([pending.photograph.faces for pending in batch])
        results = []
        for pending, predicted_faces in zip(batch, predicted, strict=True):
            explained = []
            for extracted, face in zip(pending.photograph.faces, predicted_faces, strict=True):
                explained.append(self._explain(pending.request, extracted, face))
            results.append(explained)
        return results

    def _explain(
        self, request: PredictionRequest, extracted: ExtractedFace, predicted: PredictedFace
    ) -> _ExplainedFace:
        view = self._predictor.stack(extracted.views[:1])
        heat_map, nearest = None, None
        if request.heat_map:
            most_probable = np.array([predicted.probabilities.argmax()], np.int64)
            (heat_map,) = self._explainer.compute_heat_maps(view, most_probable)
        if request.nearest and self._training is not None:
            (nearest,) = self._training.find_nearest(view, _NEAREST_COUNT)
        return _ExplainedFace(predicted, heat_map, nearest)

    def _make_response(
        self, request: PredictionRequest, photograph: _ExtractedPhotograph, faces: Sequence[_ExplainedFace]
    ) -> PredictionResponse:
        card = self._predictor.card
        predictions = []
        for face, thumbnail in zip(faces, photograph.thumbnails, strict=True):
            seen, heat_map, nearest = None, None, None
            if thumbnail is not None and face.heat_map is not None:
                seen = encode_jpeg(thumbnail)
                heat_map = encode_jpeg(overlay_heat_map(thumbnail, face.heat_map))
            if face.nearest is not None:
                nearest = [_load_neighbor(neighbor) for neighbor in face.nearest]
            ranked = rank_candidates(face.predicted, card, request.max_candidates)
            predictions.append(FacePrediction(**vars(ranked), seen=seen, heat_map=heat_map, nearest=nearest))
        return PredictionResponse(
            photograph.width_px, photograph.height_px, predictions, card.backbone.warning() or None
        )


def _load_neighbor(neighbor: Neighbor) -> NearestPhotograph:
    try:
        thumbnail = encode_jpeg(load_thumbnail(neighbor.file))
    except (OSError, PhotographError):
        thumbnail = None
    return NearestPhotograph(neighbor.person, neighbor.similarity, thumbnail)
