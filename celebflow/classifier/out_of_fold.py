"""Predict each photograph by a classifier that was trained without it: the classifier cannot have learned its label."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray, fit_probabilities
from celebflow.classifier.discriminants import collect_inputs
from celebflow.classifier.fits import Fits
from celebflow.classifier.part_training import Part, predict_at_once, predict_parts
from celebflow.classifier.projection import fit_preprocessor
from celebflow.data.photos import UNKNOWN, Photo, list_people
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, LabeledFeatures, select_split
from celebflow.params import ComputeParams, TrainParams


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The logits (N, people) of N photographs, each by a classifier that was trained on the other folds.

    `labels` (N,) are indices of `class_names`, and `folds` (N,) count from 0. `judged` (N,) tells whether the
    photograph's classifier had seen its person, and somebody else.
    """

    class_names: tuple[str, ...]
    photos: list[Photo]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    logits: NDArray[np.float32]
    judged: NDArray[np.bool_]

    @cached_property
    def probabilities(self) -> FloatArray:
        """Return the (N, people) probabilities, calibrated on all photographs that are judged."""
        calibration = fit_probabilities(self.logits[self.judged], self.labels[self.judged])
        return calibration.compute_probabilities(self.logits)

    @property
    def accuracy(self) -> float:
        """Return the fraction of judged photographs whose label is the most probable person."""
        return float((self.logits.argmax(axis=1) == self.labels)[self.judged].mean())


def predict_out_of_fold(
    features: Features,
    params: TrainParams,
    compute: ComputeParams,
    fits: Fits,
    fold_count: int,
    *,
    share_preprocessor: bool,
) -> OutOfFold:
    """Train a classifier on all folds but one, for each fold, and predict the photographs of that fold.

    The folds divide the photographs of all splits. Trainings are those of predict_parts. With `share_preprocessor`, lda
    and logistic use the one that is fitted to train, which takes less time: it knows photographs that are predicted,
    but no labels.

    Raises CelebflowError when there are fewer than two folds or people, or nothing is judged.
    """
    class_names = list_people(features.photos)
    if fold_count < 2 or len(class_names) < 2:
        raise CelebflowError(f"{fold_count} folds of {len(class_names)} people: both must be at least two.")
    rows = np.array([row for row, photo in enumerate(features.photos) if photo.split != UNKNOWN], np.int64)
    photos = [features.photos[row] for row in rows]
    labels = np.array([class_names.index(photo.person) for photo in photos], np.int64)
    everything = LabeledFeatures(features, rows, labels)
    folds = assign_folds(photos, fold_count, params.seed)
    judged = _find_judged(labels, folds)
    if not judged.any():
        raise CelebflowError(
            "No photograph can be judged: those of each person are near-duplicates, or no two people are left to "
            "compare. Add photographs, or divide these into more folds."
        )
    logits = np.zeros((len(rows), len(class_names)), np.float32)
    parts = [Part(folds != fold, folds == fold) for fold in np.unique(folds[judged])]
    if share_preprocessor and params.classifier in ("lda", "logistic"):
        found = _predict_with_discriminants(everything, class_names, params, fits, parts)
    else:
        found = predict_parts(everything, class_names, params, compute, fits, parts)
    for part, of_part in zip(parts, found, strict=True):
        logits[part.asked] = of_part
    return OutOfFold(tuple(class_names), photos, labels, folds, logits, judged)


def assign_folds(photos: Sequence[Photo], count: int, seed: int) -> NDArray[np.int64]:
    """Return the (N,) folds of photographs, from 0 to `count` - 1.

    A group of near-duplicates is in one fold. The groups of a person are dealt to the folds in turn, in an order that
    the seed decides, so that a person with two groups or more is in several folds.
    """
    groups_of: dict[str, set[str]] = {}
    for photo in photos:
        groups_of.setdefault(photo.person, set()).add(photo.group)
    fold_of: dict[str, int] = {}
    for _, groups in sorted(groups_of.items()):
        for group in sorted(groups - fold_of.keys(), key=lambda group: _rank(seed, group)):
            fold_of[group] = len(fold_of) % count  # goes on where the person before has ended
    return np.array([fold_of[photo.group] for photo in photos], np.int64)


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"fold {seed} {group}".encode()).hexdigest()


def _find_judged(labels: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for (N,) photographs whether the other folds hold their person, and somebody else."""
    judged = np.zeros(len(labels), bool)
    for fold in np.unique(folds):
        held_out = folds == fold
        seen = np.unique(labels[~held_out])
        judged[held_out] = (len(seen) > 1) & np.isin(labels[held_out], seen)
    return judged


def _predict_with_discriminants(
    everything: LabeledFeatures, class_names: Sequence[str], params: TrainParams, fits: Fits, parts: Sequence[Part]
) -> list[NDArray[np.float32]]:
    """Return the (M, people) logits of what each part predicts, with the preprocessor that is fitted to train."""
    train = select_split(everything.features, class_names, "train")
    preprocessor = fit_preprocessor(train, params.preprocessing, params.seed, fits)
    inputs = collect_inputs(preprocessor, everything, params.seed, fits)
    view_count = everything.view_count
    found = []
    for part in parts:
        taken, asked = part.select_views(view_count)
        labels = everything.labels[part.taken]
        found.append(predict_at_once(inputs[taken], labels, inputs[asked], params, view_count, len(class_names)))
    return found
