"""Predict each photograph by a classifier that was trained without it: the classifier cannot have learned its label."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.classifier_training import fit_classifier
from celebflow.classifier.discriminants import average_logits, collect_inputs, fit_people
from celebflow.classifier.fits import Fits
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.projection import fit_preprocessor
from celebflow.classifier.training import compute_logits
from celebflow.data.photos import UNKNOWN, Photo, list_people
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, LabeledFeatures, select_split
from celebflow.params import ComputeParams, TrainParams

_ABSENT = -1e4  # the logit of a person of whom the classifier has seen no photograph


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The logits (N, people) of N photographs, each by a classifier that was trained on the other folds.

    `labels` (N,) are indices of `class_names`. `judged` (N,) tells whether the photograph's person was among those that
    its classifier had seen.
    """

    class_names: tuple[str, ...]
    photos: list[Photo]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    judged: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """Return the fraction of photographs whose label is the most probable person."""
        return float((self.logits.argmax(axis=1) == self.labels).mean())


def predict_out_of_fold(
    features: Features, params: TrainParams, compute: ComputeParams, fits: Fits, fold_count: int
) -> OutOfFold:
    """Train a classifier on all folds but one, for each fold, and predict the photographs of that fold.

    The folds divide the photographs of all splits. For lda and logistic, the preprocessor is the one that is fitted to
    train, because it does not depend on labels. A network is trained for all its epochs, since no photograph is left to
    choose one by.

    Raises CelebflowError when there are fewer than two folds or people.
    """
    class_names = list_people(features.photos)
    if fold_count < 2 or len(class_names) < 2:
        raise CelebflowError(f"{fold_count} folds of {len(class_names)} people: both must be at least two.")
    rows = np.array([row for row, photo in enumerate(features.photos) if photo.split != UNKNOWN], np.int64)
    photos = [features.photos[row] for row in rows]
    labels = np.array([class_names.index(photo.person) for photo in photos], np.int64)
    everything = LabeledFeatures(features, rows, labels)
    folds = assign_folds(photos, fold_count, params.seed)
    if params.classifier in ("mlp", "linear"):
        logits = _predict_with_networks(everything, class_names, params, compute, folds)
    else:
        train = select_split(features, class_names, "train")
        preprocessor = fit_preprocessor(train, params.preprocessing, params.seed, fits)
        logits = _predict_with_discriminants(preprocessor, everything, len(class_names), params, fits, folds)
    judged = np.zeros(len(rows), bool)
    for fold in np.unique(folds):
        held_out = folds == fold
        judged[held_out] = np.isin(labels[held_out], labels[~held_out])
    return OutOfFold(tuple(class_names), photos, labels, logits, judged)


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


def _predict_with_discriminants(
    preprocessor: Preprocessor,
    everything: LabeledFeatures,
    person_count: int,
    params: TrainParams,
    fits: Fits,
    folds: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the (N, people) logits of linear classifiers that are fitted without epochs."""
    inputs = collect_inputs(preprocessor, everything, params.seed, fits)
    view_count = everything.view_count
    logits = np.full((len(everything), person_count), _ABSENT, np.float32)
    for fold in tqdm(np.unique(folds), "folds", unit="fold", disable=None):
        held_out = folds == fold
        trained_on = np.tile(~held_out, view_count)
        labels = np.tile(everything.labels, view_count)[trained_on]
        weight, bias = fit_people(inputs[trained_on], labels, params)
        found = average_logits(inputs[np.tile(held_out, view_count)], weight, bias, view_count)
        logits[np.ix_(held_out, np.unique(labels))] = found
    return logits


def _predict_with_networks(
    everything: LabeledFeatures,
    class_names: Sequence[str],
    params: TrainParams,
    compute: ComputeParams,
    folds: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the (N, people) logits of networks."""
    params = params.model_copy(update={"keep_epoch": "last"})
    logits = np.full((len(everything), len(class_names)), _ABSENT, np.float32)
    for fold in np.unique(folds):
        print(f"Fold {fold + 1} of {folds.max() + 1}:")
        held_out = folds == fold
        seen = np.unique(everything.labels[~held_out])
        train, val = (
            replace(part, labels=np.searchsorted(seen, part.labels))
            for part in (everything.select(~held_out), everything.select(held_out & np.isin(everything.labels, seen)))
        )
        names = [class_names[label] for label in seen]
        fitted = fit_classifier(names, train, val, params, compute, Checkpoints(), lambda _: None)
        found, _ = compute_logits(fitted.classifier, everything.select(held_out), params.batch_size)
        logits[np.ix_(held_out, seen)] = found
    return logits
