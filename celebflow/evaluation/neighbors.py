"""Find the photographs of train that resemble a face most, as the classifier's gallery compares them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.fits import NOT_KEPT, Fits, sum_tensors
from celebflow.classifier.model import Classifier
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.features.sparse import SparseBatch
from celebflow.features.store import Features


@dataclass(frozen=True)
class Neighbor:
    """A photograph of train and its cosine similarity to a face, from -1 to 1."""

    photo: Photo
    file: Path
    similarity: float


class TrainingPhotographs:
    """The photographs of train in the coordinates of a classifier's gallery, scaled to length 1."""

    def __init__(self, classifier: Classifier, features: Features, folder: Path, fits: Fits = NOT_KEPT) -> None:
        """Take the features, the folder of their photographs, and where their coordinates are kept.

        Raises CelebflowError when their backbone, transform or people are not the classifier's, or it has no gallery.
        """
        rows = features.find_rows("train")
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
        if classifier.gallery is None:
            raise CelebflowError(
                "The model compares no photographs: it was trained on fewer than three people, or on photographs that "
                "do not tell them apart."
            )
        self._gallery = gallery = classifier.gallery
        coordinates = fits.recall(
            "The coordinates of train",
            sum_tensors(gallery.state()),
            lambda: {"coordinates": torch.from_numpy(gallery.embed_rows(features, rows))},
        )["coordinates"]
        self._unit = scale_to_unit_length(coordinates.numpy())  # (photographs, D)

    def find_nearest(self, views: Sequence[SparseBatch], count: int) -> list[list[Neighbor]]:
        """Return the photographs nearest to each of N faces, the nearest first; `views` holds each view of all."""
        return [self._rank(row, count) for row in self._compare(views)]

    def find_nearest_of(self, views: Sequence[SparseBatch], people: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return for each of N faces the paths of the photographs nearest to it, one of each of its two people."""
        names = np.array([photo.person for photo in self._photos])

        def find(row: FloatArray, name: str) -> str:
            own = np.flatnonzero(names == name)
            photo: Photo = self._photos[int(own[row[own].argmax()])]
            return photo.path

        pairs = zip(self._compare(views), people, strict=True)
        return [(find(row, first), find(row, second)) for row, (first, second) in pairs]

    def _compare(self, views: Sequence[SparseBatch]) -> FloatArray:
        """Return the similarities of N faces to all photographs, (N, photographs)."""
        similarities: FloatArray = scale_to_unit_length(self._gallery.embed(views)) @ self._unit.T
        return similarities

    def _rank(self, similarities: FloatArray, count: int) -> list[Neighbor]:
        nearest = [(self._photos[row], similarities[row]) for row in np.argsort(-similarities, kind="stable")[:count]]
        return [Neighbor(photo, self._folder / photo.path, float(similarity)) for photo, similarity in nearest]


def scale_to_unit_length(coordinates: FloatArray) -> FloatArray:
    """Return (N, D) coordinates scaled to length 1; their inner products are the cosines of their angles."""
    lengths = np.linalg.norm(coordinates, axis=1, keepdims=True)
    unit: FloatArray = coordinates / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit
