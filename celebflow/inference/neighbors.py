"""Find the photographs of train that resemble a face most, as the classifier sees them."""

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
    """A photograph of train and its cosine similarity to a face, from -1 to 1."""

    person: str
    file: Path
    similarity: float


class TrainingPhotographs:
    """The photographs of train, each as the input of the classifier's last layer, scaled to length 1.

    Raises CelebflowError when their backbone, transform or people are not the classifier's.
    """

    def __init__(self, classifier: Classifier, features: Features, folder: Path) -> None:
        """Take the features, and the folder of their photographs."""
        rows = np.array([row for row, photo in enumerate(features.photos) if photo.split == "train"], np.int64)
        self._classifier = classifier
        self._photos = [features.photos[row] for row in rows]
        self._folder = folder
        card, origin = classifier.card, features.origin
        if (
            card.backbone.fingerprint != origin.backbone.fingerprint
            or card.transform != origin.transform
            or set(card.class_names) != {photo.person for photo in self._photos}
        ):
            raise CelebflowError(
                "The model was not trained on the photographs of train here: its backbone, transform or people "
                "differ. Run `dvc repro`."
            )
        batches = (features.gather(rows[start : start + _BATCH_SIZE]) for start in range(0, len(rows), _BATCH_SIZE))
        self._embedded = np.concatenate([self._embed(batch) for batch in batches])  # (photographs, width)

    def find_nearest(self, faces: SparseBatch, count: int) -> list[list[Neighbor]]:
        """Return the photographs nearest to each of N faces, the nearest first; `faces` holds one view of each."""
        similarities = self._embed(faces) @ self._embedded.T  # (N, photographs)
        return [self._rank(row, count) for row in similarities]

    def _rank(self, similarities: NDArray[np.float32], count: int) -> list[Neighbor]:
        nearest = [(self._photos[row], similarities[row]) for row in np.argsort(-similarities, kind="stable")[:count]]
        return [Neighbor(photo.person, self._folder / photo.path, float(similarity)) for photo, similarity in nearest]

    @torch.inference_mode()
    def _embed(self, features: SparseBatch) -> NDArray[np.float32]:
        embedded: NDArray[np.float32] = self._classifier.embed(features).numpy()
        lengths = np.linalg.norm(embedded, axis=1, keepdims=True)
        unit: NDArray[np.float32] = embedded / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit
