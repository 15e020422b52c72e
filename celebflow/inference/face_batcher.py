"""Requests for predictions that arrive one by one → the faces in them, through passes of a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from celebflow.data.decoding import decode_photograph
from celebflow.inference.extractor import ExtractedFace
from celebflow.inference.face_predictor import FacePredictor, PredictedFace
from celebflow.inference.pictures import encode_picture
from celebflow.inference.request_queue import Limits, Patience, RequestQueue
from celebflow.report.thumbnails import make_thumbnail

Predicted = TypeVar("Predicted", bound=PredictedFace)


@dataclass(frozen=True, eq=False)
class ExtractedPhotograph:
    """A photograph's size and features, and on request a thumbnail of each face and a picture of it all.

    Its pixels are gone.
    """

    width_px: int
    height_px: int
    faces: list[ExtractedFace]
    thumbnails: list[NDArray[np.uint8] | None]
    picture: bytes | None


class FaceBatcher(RequestQueue[ExtractedPhotograph, list[Predicted]]):
    """A model that predicts faces, and the requests that wait for it."""

    def __init__(
        self, predictor: FacePredictor[Predicted, Any], limits: Limits, observe_batch: Callable[[int], object]
    ) -> None:
        """Take a model and its limits; `observe_batch` gets the number of photographs in each pass of the model."""
        super().__init__(limits, predictor.workers, observe_batch)
        self._faces = predictor

    def _extract(
        self, content: bytes, patience: Patience, *, whole: bool, thumbnails: bool = False, picture: bool = False
    ) -> ExtractedPhotograph:
        """Decode a photograph and extract the faces in it; with `whole`, a photograph without one as a whole."""
        photograph = decode_photograph(content, self.limits.pixels, self.limits.seconds)
        patience.check()
        faces = []
        for face in self._faces.extract(photograph, self.limits.faces, whole=whole):
            patience.check()
            faces.append(face)
        crop = self._faces.card.transform.shown.crop
        seen = [make_thumbnail(crop(photograph, face.face)) if thumbnails else None for face in faces]
        patience.check()
        shown = encode_picture(photograph) if picture else None
        return ExtractedPhotograph(photograph.width, photograph.height, faces, seen, shown)

    def _run_pass(self, photographs: Sequence[ExtractedPhotograph]) -> list[list[Predicted]]:
        return self._faces.classify([photograph.faces for photograph in photographs])
