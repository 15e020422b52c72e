"""Requests that arrive one by one → responses: photographs are extracted as they come and classified together."""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer

from celebflow.data.decoding import decode_photograph, encode_jpeg
from celebflow.errors import CelebflowError
from celebflow.evaluation.neighbors import Neighbor, TrainingPhotographs
from celebflow.inference.extractor import NO_FACE, ExtractedFace
from celebflow.inference.predictor import PredictedFace, Predictor, RankedFace, rank_candidates
from celebflow.inference.refusals import RefusalError
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from celebflow.report.thumbnails import load_thumbnail, make_thumbnail

_BATCH_SIZE = 16  # photographs in one pass of the classifier
_MAX_WAIT_SECONDS = 0.25  # of an extracted photograph for others
_NEAREST_COUNT = 4


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
    """The bytes of a photograph, the number of candidates per face, and the optional parts of the response.

    With `whole`, a photograph without a face is predicted as a whole.
    """

    content: bytes
    max_candidates: int
    heat_map: bool
    nearest: bool
    whole: bool = False


# In JSON, a JPEG file is a string.
_Jpeg = Annotated[
    bytes, PlainSerializer(lambda content: b64encode(content).decode(), str), Field(description="JPEG in base64")
]


@dataclass(frozen=True)
class NearestPhotograph:
    """A photograph of train that resembles a face: the cosine similarity by which the gallery compares both.

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
    """The upright photograph's size, the faces in it, the subject first, and a warning about the model, if any.

    A note says when no face was found.
    """

    width_px: int
    height_px: int
    faces: list[FacePrediction]
    note: str | None
    warning: str | None


@dataclass(frozen=True, eq=False)
class _ExtractedPhotograph:
    """A photograph's size and features, and a thumbnail of each face that needs a heat map; its pixels are gone."""

    width_px: int
    height_px: int
    faces: list[ExtractedFace]
    thumbnails: list[NDArray[np.uint8] | None]


@dataclass(frozen=True, eq=False)
class _PendingFaces:
    """The faces of a photograph that waits for a pass of the classifier, and what the pass will predict."""

    extracted: list[ExtractedFace]
    predicted: asyncio.Future[list[PredictedFace]]


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
        self._workers = ThreadPoolExecutor(predictor.workers, "extract")
        # PyTorch keeps a pool of threads for each thread that calls it, so that one thread uses the classifier.
        self._classifier = ThreadPoolExecutor(1, "classify")
        self._extractions: list[asyncio.Future[_ExtractedPhotograph]] = []
        self._pending: list[_PendingFaces] = []
        self._passes: asyncio.Task[None] | None = None

    @contextmanager
    def enter_queue(self) -> Iterator[None]:
        """Take a place in the queue; raise RefusalError when there is none left."""
        if self.waiting >= self._limits.waiting:
            message = "Too many requests are waiting; try again later."
            raise RefusalError(429, "busy", message, **{"Retry-After": "1"})
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def predict(self, request: PredictionRequest) -> PredictionResponse:
        """Predict who is in a photograph; raise PhotographError when it cannot be read or is too large."""
        loop = asyncio.get_running_loop()
        extraction = loop.run_in_executor(self._workers, self._extract, request)
        self._extractions.append(extraction)
        extraction.add_done_callback(self._extractions.remove)
        photograph = await extraction
        pending = _PendingFaces(photograph.faces, loop.create_future())
        self._pending.append(pending)
        if self._passes is None:
            self._passes = asyncio.create_task(self._classify_pending())
        predicted = await pending.predicted
        return await loop.run_in_executor(self._workers, self._make_response, request, photograph, predicted)

    def _extract(self, request: PredictionRequest) -> _ExtractedPhotograph:
        photograph = decode_photograph(request.content, self._limits.pixels, self._limits.seconds)
        faces = self._predictor.extract(photograph, self._limits.faces, whole=request.whole)
        crop = self._predictor.card.transform.crop
        thumbnails = [make_thumbnail(crop(photograph, face.face)) if request.heat_map else None for face in faces]
        return _ExtractedPhotograph(photograph.width, photograph.height, faces, thumbnails)

    async def _classify_pending(self) -> None:
        while self._pending:
            others = self._extractions[: max(0, _BATCH_SIZE - len(self._pending))]
            if others:
                await asyncio.wait(others, timeout=_MAX_WAIT_SECONDS)
            batch = [pending for pending in self._pending[:_BATCH_SIZE] if not pending.predicted.cancelled()]
            del self._pending[:_BATCH_SIZE]
            if batch:
                await self._classify(batch)
        self._passes = None

    async def _classify(self, batch: Sequence[_PendingFaces]) -> None:
        self._observe_batch(len(batch))
        photographs = [pending.extracted for pending in batch]
        classify = self._predictor.classify
        results: Sequence[list[PredictedFace] | Exception]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._classifier, classify, photographs)
        except Exception as error:
            results = [error] * len(batch)  # each request of the batch fails with it
        for pending, result in zip(batch, results, strict=True):
            if pending.predicted.cancelled():  # its client left during the pass
                continue
            if isinstance(result, Exception):
                pending.predicted.set_exception(result)
            else:
                pending.predicted.set_result(result)

    def _make_response(
        self, request: PredictionRequest, photograph: _ExtractedPhotograph, predicted: Sequence[PredictedFace]
    ) -> PredictionResponse:
        card = self._predictor.card
        predictions = []
        for extracted, thumbnail, face in zip(photograph.faces, photograph.thumbnails, predicted, strict=True):
            views = [self._predictor.stack([view]) for view in extracted.views]
            seen, heat_map, nearest = None, None, None
            if thumbnail is not None:
                most_probable = np.array([face.probabilities.argmax()], np.int64)
                compute = self._explainer.compute_heat_maps
                (heat,) = self._classifier.submit(compute, views[0], most_probable).result()
                seen = encode_jpeg(thumbnail)
                heat_map = encode_jpeg(overlay_heat_map(thumbnail, heat))
            if request.nearest and self._training is not None:
                (neighbors,) = self._classifier.submit(self._training.find_nearest, views, _NEAREST_COUNT).result()
                nearest = [_load_neighbor(neighbor) for neighbor in neighbors]
            ranked = rank_candidates(face, card, request.max_candidates)
            predictions.append(FacePrediction(**vars(ranked), seen=seen, heat_map=heat_map, nearest=nearest))
        warning = card.backbone.warning() or None
        note = None if predictions else NO_FACE
        return PredictionResponse(photograph.width_px, photograph.height_px, predictions, note, warning)


def _load_neighbor(neighbor: Neighbor) -> NearestPhotograph:
    try:
        thumbnail = encode_jpeg(load_thumbnail(neighbor.file))
    except CelebflowError:
        thumbnail = None
    return NearestPhotograph(neighbor.photo.person, neighbor.similarity, thumbnail)
