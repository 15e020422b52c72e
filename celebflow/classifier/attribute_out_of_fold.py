"""Predict the attributes of each photograph by a model that was trained without its person and its labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.attribute_calibration import fit_attribute_calibration
from celebflow.classifier.attribute_part_training import predict_attribute_parts
from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.fits import Fits
from celebflow.classifier.parts import Part
from celebflow.data.attributes import BLANK, NO, YES, AttributeTable
from celebflow.data.photos import Photo
from celebflow.data.units import join_units
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, LabeledFeatures
from celebflow.params import ComputeParams, TrainParams


@dataclass(frozen=True, eq=False)
class AttributesOutOfFold:
    """The logits (N, A) of N photographs, each by a model that was trained on the other folds.

    `labels` (N, A) are YES, NO or BLANK for the attributes `names`, and `folds` (N,) count from 0. `judged` (N, A)
    tells where there is a label, and the photograph's model had seen both answers to that attribute.
    """

    names: tuple[str, ...]
    photos: list[Photo]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    logits: NDArray[np.float32]
    judged: NDArray[np.bool_]

    @cached_property
    def probabilities(self) -> FloatArray:
        """Return the (N, A) probabilities of yes, calibrated on all labels that are judged."""
        labels = np.where(self.judged, self.labels, BLANK)
        return fit_attribute_calibration(self.logits, labels, "accuracy").compute_probabilities(self.logits)

    @property
    def accuracy(self) -> float:
        """Return the fraction of judged labels that are the more probable answer."""
        return float(((self.logits >= 0) == (self.labels == YES))[self.judged].mean())

    @property
    def unjudged_count(self) -> int:
        """Return how many labels are not judged; blanks do not count."""
        return int(((self.labels != BLANK) & ~self.judged).sum())


def predict_attributes_out_of_fold(
    features: Features,
    table: AttributeTable,
    params: TrainParams,
    compute: ComputeParams,
    fits: Fits,
    fold_count: int,
) -> AttributesOutOfFold:
    """Train a model on all folds but one, for each fold, and predict the photographs of that fold.

    The folds divide the photographs of all splits. Trainings are those of predict_attribute_parts.

    Raises CelebflowError when there are fewer than two folds, or nothing is judged.
    """
    labels = table.select([photo.path for photo in features.photos]).astype(np.int64)
    folds = assign_unit_folds(features.photos, fold_count, params.seed)
    judged = _find_judged(labels, folds)
    if not judged.any():
        raise CelebflowError(
            "No label can be judged: each attribute needs yes and no for two people or more, and there must be at "
            "least two folds. Add photographs, or divide these into more folds."
        )
    everything = LabeledFeatures(features, np.arange(len(labels)), labels)
    parts = [Part(folds != fold, folds == fold, params.seed) for fold in np.unique(folds)]
    logits = np.zeros(labels.shape, np.float32)
    found = predict_attribute_parts(everything, table.names, params, compute, fits, parts)
    for part, of_part in zip(parts, found, strict=True):
        logits[part.asked] = of_part
    return AttributesOutOfFold(table.names, list(features.photos), labels, folds, logits, judged)


def assign_unit_folds(photos: Sequence[Photo], count: int, seed: int) -> NDArray[np.int64]:
    """Return the (N,) folds of photographs, from 0 to `count` - 1, in which each has about as many photographs.

    All photographs of a person, where people are known, and near-duplicates are in one fold. The seed decides which
    units are together.
    """
    units = join_units(photos)
    sizes = np.zeros(count, np.int64)
    fold_of: dict[str, int] = {}
    for unit in sorted(units, key=lambda unit: (-len(unit), _rank(seed, min(photo.group for photo in unit)))):
        fold = int(sizes.argmin())
        sizes[fold] += len(unit)
        fold_of |= dict.fromkeys((photo.path for photo in unit), fold)
    return np.array([fold_of[photo.path] for photo in photos], np.int64)


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"fold {seed} {group}".encode()).hexdigest()


def _find_judged(labels: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for (N, A) labels which are known, where the other folds hold both answers to the attribute."""
    judged: NDArray[np.bool_] = labels != BLANK
    for fold in np.unique(folds):
        others = labels[folds != fold]
        judged[folds == fold] &= (others == YES).any(axis=0) & (others == NO).any(axis=0)
    return judged
