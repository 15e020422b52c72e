"""Train on nested parts of train, and predict val: how much more photographs help."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.fits import Fits
from celebflow.classifier.part_training import predict_parts
from celebflow.classifier.parts import Part
from celebflow.data.photos import list_people, number_groups
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, LabeledFeatures, select_split
from celebflow.params import ComputeParams, TrainParams

LEAST_SIZES = 3  # of a curve
_LEAST_PER_PERSON = 2  # groups of near-duplicates: fewer give no spread within a person


@dataclass(frozen=True, eq=False)
class SubsetResult:
    """The logits (M, people) of val by a classifier that was trained on a part of train.

    `repetition` numbers the order in which photographs were taken, and `count` is how many were taken.
    """

    repetition: int
    count: int
    logits: NDArray[np.float32]


def train_on_subsets(
    features: Features,
    params: TrainParams,
    compute: ComputeParams,
    fits: Fits,
    fractions: Sequence[float],
    repetitions: int,
) -> list[SubsetResult]:
    """Train the recipe on each fraction of every person's photographs of train, and predict val.

    Within a repetition, each part contains the smaller ones. Of each person, two groups of near-duplicates are taken at
    least. Parts that are the same in several repetitions, such as all photographs, are trained on once. Trainings are
    those of predict_parts.
    """
    class_names = list_people(features.photos)
    train, val = (select_split(features, class_names, split) for split in ("train", "val"))
    parts = [
        (repetition, mask)
        for repetition in range(repetitions)
        for mask in _choose_parts(train, fractions, params.seed + repetition)
    ]
    return predict_val_by_parts(
        train,
        val,
        parts,
        params.seed,
        lambda everything, each: predict_parts(everything, class_names, params, compute, fits, each),
    )


def predict_val_by_parts(
    train: LabeledFeatures,
    val: LabeledFeatures,
    parts: Sequence[tuple[int, NDArray[np.bool_]]],
    seed: int,
    predict: Callable[[LabeledFeatures, Sequence[Part]], list[NDArray[np.float32]]],
) -> list[SubsetResult]:
    """Train on parts of train, each a repetition and the (N,) photographs that are taken, and predict val.

    Parts that are the same are trained on once. `predict` trains on each part of some photographs, and returns the
    logits of those that it asks for.
    """
    masks = {mask.tobytes(): mask for _, mask in parts}
    rows, labels = (np.concatenate(each) for each in ((train.rows, val.rows), (train.labels, val.labels)))
    none, is_val = np.zeros(len(val), bool), np.arange(len(rows)) >= len(train)
    distinct = [Part(np.concatenate([mask, none]), is_val, seed) for mask in masks.values()]
    logits = predict(LabeledFeatures(train.features, rows, labels), distinct)
    on_part = dict(zip(masks, logits, strict=True))
    return [SubsetResult(repetition, int(mask.sum()), on_part[mask.tobytes()]) for repetition, mask in parts]


def choose_fractions(features: Features, fractions: Sequence[float]) -> list[float]:
    """Return the fractions, ascending, without those by which everybody has the same photographs as by the one before.

    Raises CelebflowError when fewer than three are left.
    """
    train = select_split(features, list_people(features.photos), "train")
    groups = number_groups(features.photos[row] for row in train.rows)
    counts = [len(np.unique(groups[train.labels == label])) for label in np.unique(train.labels)]  # of each person
    chosen: dict[tuple[int, ...], float] = {}
    for fraction in sorted(fractions):
        chosen.setdefault(tuple(_count_taken(fraction, count) for count in counts), fraction)
    if len(chosen) < LEAST_SIZES:
        raise CelebflowError(
            f"train has too few photographs for a learning curve: at most {max(counts)} per person give only "
            f"{len(chosen)} different sizes. Add photographs."
        )
    return list(chosen.values())


def _count_taken(fraction: float, count: int) -> int:
    """Return how many groups of near-duplicates are taken of a person who has `count`."""
    return max(min(_LEAST_PER_PERSON, count), round(fraction * count))


def _choose_parts(train: LabeledFeatures, fractions: Sequence[float], seed: int) -> list[NDArray[np.bool_]]:
    """Return for each fraction the (N,) photographs that are taken: of each person this fraction, whole groups."""
    groups = number_groups(train.features.photos[row] for row in train.rows)
    random = np.random.default_rng([seed, 2])
    ranks = random.permutation(groups.max() + 1)[groups]  # (N,)
    masks = [np.zeros(len(train), bool) for _ in fractions]
    for label in np.unique(train.labels):
        own = np.flatnonzero(train.labels == label)
        order = np.unique(ranks[own])  # of the person's groups
        for fraction, mask in zip(fractions, masks, strict=True):
            last = order[_count_taken(fraction, len(order)) - 1]
            mask[own[ranks[own] <= last]] = True
    return masks
