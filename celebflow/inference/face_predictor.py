"""What models share that predict each face in a photograph: its features, and passes of the network over several."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from PIL import Image

from celebflow.classifier.cards import NetworkCard
from celebflow.features.faces import Face
from celebflow.features.sparse import SparseBatch
from celebflow.inference.extractor import Box, ExtractedFace, Extractor, FeatureKey
from celebflow.params import TaskName


@dataclass(frozen=True, eq=False)
class PredictedFace:
    """A face, None for the photograph as a whole; models add what they predict of it."""

    face: Face | None


@dataclass(frozen=True)
class DescribedFace:
    """A face's box, None for the photograph as a whole; models add what they say of it."""

    box: Box | None


Predicted = TypeVar("Predicted", bound=PredictedFace)
Described = TypeVar("Described", bound=DescribedFace)


class FacePredictor(ABC, Generic[Predicted, Described]):
    """A network with its backbone on the CPU, ready for photographs; its card holds all that it needs."""

    task: ClassVar[TaskName]
    card: NetworkCard

    def __init__(self, card: NetworkCard, backbone_file: Path) -> None:
        self._extractor = Extractor(card.transform, card.backbone, backbone_file)
        self.backbone = self._extractor.backbone

    @abstractmethod
    def describe(self, predicted: Predicted, max_answers: int | None = None) -> Described:
        """Put what was predicted of a face into words and numbers: up to `max_answers`, the most probable first."""

    @abstractmethod
    def _predict(self, faces: Sequence[ExtractedFace]) -> Sequence[Predicted]:
        """Return what one pass of the network predicts of several faces, one at least."""

    def predict_faces(
        self, photographs: Sequence[Image.Image], max_faces: int | None = None, *, whole: bool = False
    ) -> list[list[Predicted]]:
        """Return for each of N RGB photographs the faces that `extract` finds in it, the subject first."""
        return self.classify(self.extract_all(photographs, max_faces, whole=whole))

    @property
    def feature_key(self) -> FeatureKey:
        """Return what determines the features that the model takes; models of equal ones can share them."""
        return self._extractor.key

    @property
    def workers(self) -> int:
        """Return from how many threads at once `extract` is fastest."""
        return self._extractor.workers

    def extract(
        self, photograph: Image.Image, max_faces: int | None = None, *, whole: bool = False
    ) -> Iterator[ExtractedFace]:
        """Compute the features of up to `max_faces` faces in an RGB photograph, as Extractor does."""
        return self._extractor.extract(photograph, max_faces, whole=whole)

    def extract_face(self, photograph: Image.Image, face: Face | None) -> ExtractedFace:
        """Compute the features of a face in an RGB photograph, as Extractor does."""
        return self._extractor.extract_face(photograph, face)

    def extract_all(
        self, photographs: Sequence[Image.Image], max_faces: int | None = None, *, whole: bool = False
    ) -> list[list[ExtractedFace]]:
        """Compute the features of the faces in each of N RGB photographs, as Extractor does."""
        return self._extractor.extract_all(photographs, max_faces, whole=whole)

    @torch.inference_mode()
    def classify(self, photographs: Sequence[Sequence[ExtractedFace]]) -> list[list[Predicted]]:
        """Predict the faces of several photographs in one pass of the network."""
        faces = [face for extracted in photographs for face in extracted]
        remaining = iter(self._predict(faces) if faces else ())
        return [list(islice(remaining, len(extracted))) for extracted in photographs]

    def stack_views(self, faces: Sequence[ExtractedFace]) -> list[SparseBatch]:
        """Return the features of each view of several faces, as the network takes them."""
        return self._extractor.stack_views(faces)
