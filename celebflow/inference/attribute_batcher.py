"""Requests for attributes that arrive one by one → responses, through passes of the model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from celebflow.inference.attribute_predictor import AnsweredFace, AttributePredictor, PredictedAttributes
from celebflow.inference.extractor import NO_FACE
from celebflow.inference.face_batcher import FaceBatcher
from celebflow.inference.pictures import Picture
from celebflow.inference.request_queue import Limits


@dataclass(frozen=True)
class AttributeResponse:
    """The upright photograph's size, the faces in it, the subject first, and a warning about the model, if any.

    A note says when no face was found.
    """

    width_px: int
    height_px: int
    faces: list[AnsweredFace]
    note: str | None
    warning: str | None
    picture: Picture = None


class AttributeBatcher(FaceBatcher[PredictedAttributes]):
    """A model of attributes and the requests that wait for it."""

    def __init__(self, predictor: AttributePredictor, limits: Limits, observe_batch: Callable[[int], object]) -> None:
        """Take a model and its limits; `observe_batch` gets the number of photographs in each pass of the model."""
        super().__init__(predictor, limits, observe_batch)
        self._predictor = predictor

    async def predict(
        self, content: bytes, max_attributes: int | None, *, whole: bool = False, picture: bool = False
    ) -> AttributeResponse:
        """Predict the attributes of the faces in a photograph, up to `max_attributes` each, the most probable first.

        Raises PhotographError when it cannot be read or is too large.
        """
        photograph, predicted = await self._process(partial(self._extract, content, whole=whole, picture=picture))
        faces = [self._predictor.describe(face, max_attributes) for face in predicted]
        warning = self._predictor.card.backbone.warning() or None
        note = None if faces else NO_FACE
        return AttributeResponse(photograph.width_px, photograph.height_px, faces, note, warning, photograph.picture)
