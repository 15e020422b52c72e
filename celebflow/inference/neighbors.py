"""Which photographs of train are most like a face, as the classifier sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from celebflow.classifier.model import Classifier
from celebflow.errors import CelebflowError
from celebflow.features.sparse import SparseBatch
from celebflow.features.store import Features

_BATCH_SIZE = 128


@dataclass(frozen=True)
class Neighbor:
    """A photograph of train, and the cosine of the angle between it and a face, from -1 to 1."""

    person: str
    file: Path
    similarity: float


class TrainingPhotographs:
    """All photographs of train, as what the classifier's last layer takes, at length 1.

    Raises CelebflowError when their backbone, transform or people are not the classifier's.
    """

    def __init__(self, classifier: Classifier, features: Features, folder: Path) -> None:
        """Take features, and the folder that their photographs lie in."""
        card, origin = classifier.card, features.origin
        people = {photo.person for photo in features.photos if photo.split == "train"}
        if (card.backbone.fingerprint, card.transform, set(card.class_names)) != (
            origin.backbone.fingerprint,
            origin.transform,
            people,
        ):
            raise CelebflowError(
                "The photographs of train here are not what the model was taught with: its backbone, transform or "
                "people are others. Run `dvc repro`."
            )
        self._classifier = classifier
        rows = np.array([row for row, photo in enumerate(features.photos) if photo.split == "train"], np.int64)
        self._photos, self._folder = [features.photos[row] for row in rows], folder
        batches = (rows[start : start + _BATCH_SIZE] for start in range(0, len(rows), _BATCH_SIZE))
        self._embedded = np.concatenate([self._embed(features.gather(batch)) for batch in batches])

    def find_nearest(self, faces: SparseBatch, count: int) -> list[list[Neighbor]]:
        """Return for each of N faces, of which this is one view, the nearest photographs, the nearest first."""
        similarities = self._embed(faces) @ self._embedded.T  # (N, photographs)
        return [self._rank(row, count) for row in similarities]

    def _rank(self, similarities: NDArray[np.float32], count: int) -> list[Neighbor]:
        nearest: Sequence[int] = np.argsort(-similarities, kind="stable")[:count].tolist()
        return [
            Neighbor(self._photos[row].person, self._folder / self._photos[row].path, float(similarities[row]))
            for row in nearest
        ]

    @torch.inference_mode()
    def _embed(self, features: SparseBatch) -> NDArray[np.float32]:
        embedded: NDArray[np.float32] = self._classifier.embed(features).numpy()
        lengths = np.linalg.norm(embedded, axis=1, keepdims=True)
        unit: NDArray[np.float32] = embedded / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit
