"""Photographs → the people in them, with a trained classifier and the backbone that it was trained on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from celebflow.backbone.vgg19 import count_features
from celebflow.classifier.calibration import FloatArray, softmax
from celebflow.classifier.model import Classifier, ClassifierCard, load_classifier
from celebflow.features.faces import Face
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.inference.extractor import ExtractedFace, Extractor, find_model_files


@dataclass(frozen=True, eq=False)
class PredictedFace:
    """A face, None for the photograph as a whole, and its (people,) probabilities."""

    face: Face | None
    probabilities: FloatArray


@dataclass(frozen=True)
class Box:
    """A face's box in pixels of the upright photograph; it may reach beyond the photograph."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Candidate:
    """A person whom a face may show."""

    name: str
    probability: float


@dataclass(frozen=True)
class RankedFace:
    """A face's most probable people, the most probable first.

    `known` says whether the first reaches the threshold; if not, the face is unknown. `box` is None for the
    photograph as a whole.
    """

    box: Box | None
    known: bool
    candidates: list[Candidate]


def rank_candidates(predicted: PredictedFace, card: ClassifierCard, max_candidates: int | None = None) -> RankedFace:
    """Rank the people whom a face may show, and compare the first with the threshold."""
    face = predicted.face
    box = None if face is None else Box(face.left, face.top, face.right, face.bottom)
    ranked = np.argsort(-predicted.probabilities, kind="stable")[:max_candidates]
    candidates = [Candidate(card.class_names[person], float(predicted.probabilities[person])) for person in ranked]
    return RankedFace(box, candidates[0].probability >= card.calibration.threshold, candidates)


class Predictor:
    """A classifier with its backbone on the CPU, ready for photographs; its card holds all that it needs."""

    def __init__(self, classifier: Classifier, backbone_file: Path) -> None:
        self.card = classifier.card
        self._extractor = Extractor(self.card.transform, self.card.backbone, backbone_file)
        self.backbone = self._extractor.backbone
        self.classifier = classifier.eval()

    @classmethod
    def load(cls, folder: Path) -> "Predictor":
        """Load the model in a folder: `models` of a repository, or an MLflow model with its `artifacts`.

        Raises CelebflowError when the folder holds no model.
        """
        classifier, backbone = find_model_files(folder)
        return cls(load_classifier(classifier), backbone)

    def predict(self, photographs: Sequence[Image.Image]) -> FloatArray:
        """Return (N, people) probabilities for the subjects of N RGB photographs, in the order of the class names.

        Where a row's confidence is below `card.calibration.threshold`, the subject is unknown. A photograph without a
        face is predicted as a whole, as evaluate does.
        """
        return np.stack([faces[0].probabilities for faces in self.predict_faces(photographs, 1, whole=True)])

    def predict_faces(
        self, photographs: Sequence[Image.Image], max_faces: int | None = None, *, whole: bool = False
    ) -> list[list[PredictedFace]]:
        """Return for each of N RGB photographs the faces that `extract` finds in it, the subject first."""
        with ThreadPoolExecutor(self.workers) as workers:
            extracted = list(workers.map(lambda each: self.extract(each, max_faces, whole=whole), photographs))
        return self.classify(extracted)

    @property
    def workers(self) -> int:
        """Return from how many threads at once `extract` is fastest."""
        return self._extractor.workers

    def extract(
        self, photograph: Image.Image, max_faces: int | None = None, *, whole: bool = False
    ) -> list[ExtractedFace]:
        """Compute the features of up to `max_faces` faces in an RGB photograph, as Extractor does."""
        return self._extractor.extract(photograph, max_faces, whole=whole)

    @torch.inference_mode()
    def classify(self, photographs: Sequence[Sequence[ExtractedFace]]) -> list[list[PredictedFace]]:
        """Classify the faces of several photographs in one pass of the classifier."""
        faces = [face for extracted in photographs for face in extracted]
        if not faces:
            return [[] for _ in photographs]
        view_numbers = range(len(self.card.transform.views))
        views = (self.stack([face.views[number] for face in faces]) for number in view_numbers)
        probabilities = softmax(self.classifier.average(views).numpy() / self.card.calibration.temperature)
        predicted = (PredictedFace(face.face, row) for face, row in zip(faces, probabilities, strict=True))
        return [list(islice(predicted, len(extracted))) for extracted in photographs]

    def stack(self, rows: list[SparseRow]) -> SparseBatch:
        """Return the features of one view of several faces, as the classifier takes them."""
        return SparseBatch.from_rows(rows, count_features(self.card.transform.layers))
