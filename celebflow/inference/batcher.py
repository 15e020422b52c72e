"""Requests for predictions that arrive one by one → responses, through passes of the classifier."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from celebflow.data.decoding import encode_jpeg
from celebflow.errors import CelebflowError
from celebflow.evaluation.grad_cam import Explainer
from celebflow.evaluation.neighbors import Neighbor, TrainingPhotographs
from celebflow.inference.extractor import NO_FACE
from celebflow.inference.face_batcher import ExtractedPhotograph, FaceBatcher
from celebflow.inference.pictures import Jpeg, Picture
from celebflow.inference.predictor import PredictedPerson, Predictor, RankedFace
from celebflow.inference.request_queue import Limits, Patience
from celebflow.report.thumbnails import load_thumbnail, overlay_heat_map

_NEAREST_COUNT = 4


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
    picture: bool = False


@dataclass(frozen=True)
class NearestPhotograph:
    """A photograph of train that resembles a face: the cosine similarity by which the gallery compares both.

    Its thumbnail, the center square, is None if the file can no longer be read.
    """

    person: str
    similarity: float
    thumbnail: Jpeg | None


@dataclass(frozen=True)
class FacePrediction(RankedFace):
    """Who a face is. On request: what the network saw, its heat map, and the nearest photographs of train.

    There is no heat map where the most probable person is an enrolled one.
    """

    seen: Jpeg | None
    heat_map: Jpeg | None
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
    picture: Picture = None


class Batcher(FaceBatcher[PredictedPerson]):
    """A classifier and the requests that wait for it."""

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
        super().__init__(predictor, limits, observe_batch)
        self._predictor = predictor
        self._training = training
        self._explainer = Explainer(predictor.classifier)

    async def predict(self, request: PredictionRequest) -> PredictionResponse:
        """Predict who is in a photograph; raise PhotographError when it cannot be read or is too large."""
        extract = partial(
            self._extract,
            request.content,
            whole=request.whole,
            thumbnails=request.heat_map,
            picture=request.picture,
        )
        photograph, predicted = await self._process(extract)
        with Patience() as patience:
            respond = partial(self._make_response, request, photograph, predicted, patience)
            return await asyncio.get_running_loop().run_in_executor(self._workers, respond)

    def _make_response(
        self,
        request: PredictionRequest,
        photograph: ExtractedPhotograph,
        predicted: Sequence[PredictedPerson],
        patience: Patience,
    ) -> PredictionResponse:
        card = self._predictor.card
        predictions = []
        for extracted, thumbnail, face in zip(photograph.faces, photograph.thumbnails, predicted, strict=True):
            patience.check()
            seen, heat_map, nearest = None, None, None
            if thumbnail is not None:
                seen = encode_jpeg(thumbnail)
                most_probable = int(face.probabilities.argmax())
                if most_probable < len(card.class_names):  # the classifier does not know enrolled people
                    view = self._predictor.stack_views([extracted])[0]
                    compute = self._explainer.compute_heat_maps
                    (heat,) = self._model_thread.submit(compute, view, np.array([most_probable], np.int64)).result()
                    heat_map = encode_jpeg(overlay_heat_map(thumbnail, heat))
            if request.nearest and self._training is not None:
                views = self._predictor.stack_views([extracted])
                (neighbors,) = self._model_thread.submit(self._training.find_nearest, views, _NEAREST_COUNT).result()
                nearest = [_load_neighbor(neighbor) for neighbor in neighbors]
            ranked = self._predictor.describe(face, request.max_candidates)
            predictions.append(FacePrediction(**vars(ranked), seen=seen, heat_map=heat_map, nearest=nearest))
        warning = card.backbone.warning() or None
        note = None if predictions else NO_FACE
        size = photograph.width_px, photograph.height_px
        return PredictionResponse(*size, predictions, note, warning, photograph.picture)


def _load_neighbor(neighbor: Neighbor) -> NearestPhotograph:
    try:
        thumbnail = encode_jpeg(load_thumbnail(neighbor.file, neighbor.photo.sha256))
    except CelebflowError:
        thumbnail = None
    return NearestPhotograph(neighbor.photo.person, neighbor.similarity, thumbnail)
