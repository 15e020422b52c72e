"""Predict each photograph by a classifier that was trained without it: the classifier cannot have learned its label."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.discriminants import collect_inputs
from celebflow.classifier.fits import Fits
from celebflow.classifier.out_of_fold import OutOfFold
from celebflow.classifier.part_training import predict_at_once, predict_parts
from celebflow.classifier.parts import Part
from celebflow.classifier.projection import fit_preprocessor
from celebflow.data.photos import UNKNOWN, Photo, list_people
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, LabeledFeatures, label_rows, select_split
from celebflow.params import ComputeParams, TrainParams


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
    if not share_preprocessor or params.classifier not in ("lda", "logistic"):
        return predict_repeatedly(features, params, compute, fits, fold_count, 1)[0]
    everything, class_names = _label_all(features)
    divided, parts = _divide(everything, class_names, fold_count, params.seed)
    _fill(divided, parts, _predict_with_discriminants(everything, class_names, params, fits, parts))
    return divided


def predict_repeatedly(
    features: Features, params: TrainParams, compute: ComputeParams, fits: Fits, fold_count: int, repetitions: int
) -> list[OutOfFold]:
    """Do what predict_out_of_fold does so many times, without a shared preprocessor.

    Each repetition has another seed of its folds and of its trainings: those from params.seed on.
    """
    everything, class_names = _label_all(features)
    repeated = [
        _divide(everything, class_names, fold_count, params.seed + repetition) for repetition in range(repetitions)
    ]
    found = predict_parts(
        everything, class_names, params, compute, fits, [part for _, parts in repeated for part in parts]
    )
    for divided, parts in repeated:
        _fill(divided, parts, found[: len(parts)])
        del found[: len(parts)]
    return [divided for divided, _ in repeated]


def _label_all(features: Features) -> tuple[LabeledFeatures, list[str]]:
    """Return the photographs of all splits with their labels, and the names of the people."""
    class_names = list_people(features.photos)
    rows = np.array([row for row, photo in enumerate(features.photos) if photo.split != UNKNOWN], np.int64)
    return label_rows(features, class_names, rows), class_names


def _divide(
    everything: LabeledFeatures, class_names: Sequence[str], fold_count: int, seed: int
) -> tuple[OutOfFold, list[Part]]:
    """Return photographs in folds, whose logits are zeros, and the trainings that find them."""
    if fold_count < 2 or len(class_names) < 2:
        raise CelebflowError(f"{fold_count} folds of {len(class_names)} people: both must be at least two.")
    labels, photos = everything.labels, [everything.features.photos[row] for row in everything.rows]
    folds = assign_folds(photos, fold_count, seed)
    judged = _find_judged(labels, folds)
    if not judged.any():
        raise CelebflowError(
            "No photograph can be judged: those of each person are near-duplicates, or no two people are left to "
            "compare. Add photographs, or divide these into more folds."
        )
    logits = np.zeros((len(labels), len(class_names)), np.float32)
    parts = [Part(folds != fold, folds == fold, seed) for fold in np.unique(folds[judged])]
    return OutOfFold(tuple(class_names), photos, labels, folds, logits, judged), parts


def _fill(divided: OutOfFold, parts: Sequence[Part], found: Sequence[NDArray[np.float32]]) -> None:
    """Put the logits that were found for parts in their places."""
    for part, logits in zip(parts, found, strict=True):
        divided.logits[part.asked] = logits


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
