"""Photographs → who is in them, with a classifier that was taught and the backbone it was taught on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from celebflow import paths
from celebflow.backbone.vgg19 import count_features
from celebflow.backbone.weights import load_backbone
from celebflow.classifier.calibration import FloatArray, softmax
from celebflow.classifier.model import Classifier, ClassifierCard, load_classifier
from celebflow.errors import CelebflowError
from celebflow.features.extraction import extract_views
from celebflow.features.faces import Face
from celebflow.features.runtimes import build_runtime, choose_runtime
from celebflow.features.sparse import SparseBatch, SparseRow


@dataclass(frozen=True, eq=False)
class ExtractedFace:
    """A face, None where the photograph was looked at as a whole, and the features of each of its views."""

    face: Face | None
    views: list[SparseRow]


@dataclass(frozen=True, eq=False)
class PredictedFace:
    """A face, None where the photograph was looked at as a whole, and its (people,) probabilities."""

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
class Identity:
    """Who somebody in a photograph is: the most probable people, and whether the first reaches the threshold.

    `box` is None where the photograph was looked at as a whole.
    """

    box: Box | None
    known: bool
    candidates: list[Candidate]


def identify(named: PredictedFace, card: ClassifierCard, most_candidates: int | None = None) -> Identity:
    """Rank the people whom a face may show, and hold the first to the threshold."""
    ranked = np.argsort(-named.probabilities, kind="stable")[:most_candidates]
    candidates = [Candidate(card.class_names[person], float(named.probabilities[person])) for person in ranked]
    face = named.face
    box = None if face is None else Box(face.left, face.top, face.right, face.bottom)
    return Identity(box, candidates[0].probability >= card.calibration.threshold, candidates)


class Predictor:
    """A classifier with its backbone, on the CPU, ready for photographs; what it needs to know stands in its card."""

    def __init__(self, classifier: Classifier, backbone_file: Path) -> None:
        backbone = load_backbone(backbone_file, "cpu")
        card = classifier.card
        if backbone.source.fingerprint != card.backbone.fingerprint:
            raise CelebflowError(
                f"{backbone_file} is not the backbone that the classifier was taught on ({card.backbone.weights}). "
                "Run `dvc repro`."
            )
        self.card, self.backbone = card, backbone
        self.classifier = classifier.eval()
        self._runtime = build_runtime(choose_runtime("auto", "cpu"), backbone, card.transform.layers)

    @classmethod
    def load(cls, folder: Path) -> "Predictor":
        """Load the model in a folder: `models` of a repository, or an MLflow model with its `artifacts`.

        Raises CelebflowError when it holds none.
        """
        held = folder / "artifacts" if (folder / "artifacts").is_dir() else folder
        classifier, backbone = held / paths.CLASSIFIER.name, held / paths.BACKBONE.name
        for file in (classifier, backbone):
            if not file.is_file():
                raise CelebflowError(f"{file} is missing. Run `dvc repro`, or name another model.")
        return cls(load_classifier(classifier), backbone)

    def predict(self, photographs: Sequence[Image.Image]) -> FloatArray:
        """Return (N, people) probabilities of the subjects of N RGB photographs, in the order of the card's names.

        Below the card's `calibration.threshold`, the greatest of a row says that nobody of them is in the photograph.
        """
        return np.stack([found[0].probabilities for found in self._name(photographs, 1)])

    def predict_faces(self, photographs: Sequence[Image.Image]) -> list[list[PredictedFace]]:
        """Return for each of N RGB photographs everybody in it, the subject first.

        Where no faces are detected, or none is found, that is one answer to the photograph as a whole.
        """
        return self._name(photographs, None)

    @property
    def workers(self) -> int:
        """Return from how many threads `extract` is best called at once."""
        return self._runtime.workers

    def extract(self, photograph: Image.Image, most_faces: int | None = None) -> list[ExtractedFace]:
        """Compute the features of everybody in an RGB photograph, the subject first, or of so many at most.

        Where no faces are detected, or none is found, that is the photograph as a whole.
        """
        transform = self.card.transform
        faces: list[Face] | list[None] = transform.find_faces(photograph)[:most_faces] or [None]
        return [ExtractedFace(face, extract_views(photograph, face, transform, self._runtime)) for face in faces]

    @torch.inference_mode()
    def classify(self, faces: Sequence[ExtractedFace]) -> list[PredictedFace]:
        """Name faces, at least one, in one pass of the classifier."""
        views = zip(*(face.views for face in faces), strict=True)
        logits = self.classifier.average(self.stack(list(rows)) for rows in views).numpy()
        probabilities = softmax(logits / self.card.calibration.temperature)
        return [PredictedFace(face.face, row) for face, row in zip(faces, probabilities, strict=True)]

    def stack(self, rows: list[SparseRow]) -> SparseBatch:
        """Return one view of each of some faces, as the classifier takes them."""
        return SparseBatch.from_rows(rows, count_features(self.card.transform.layers))

    def _name(self, photographs: Sequence[Image.Image], most_faces: int | None) -> list[list[PredictedFace]]:
        with ThreadPoolExecutor(self.workers) as workers:
            extracted = list(workers.map(lambda photograph: self.extract(photograph, most_faces), photographs))
        named = iter(self.classify([face for faces in extracted for face in faces]))
        return [[next(named) for _ in faces] for faces in extracted]
