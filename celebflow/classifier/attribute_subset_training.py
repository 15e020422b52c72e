"""Train a model of attributes on nested parts of train, whole people, and answer for val."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.attribute_part_training import predict_attribute_parts
from celebflow.classifier.attribute_training import select_attributes
from celebflow.classifier.fits import Fits
from celebflow.classifier.subset_training import LEAST_SIZES, SubsetResult, predict_val_by_parts
from celebflow.data.attributes import AttributeTable
from celebflow.data.units import join_units
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, LabeledFeatures
from celebflow.params import ComputeParams, TrainParams

_LEAST_PHOTOGRAPHS = 10  # fewer hardly show both answers to anything


def train_attributes_on_subsets(
    features: Features,
    table: AttributeTable,
    params: TrainParams,
    compute: ComputeParams,
    fits: Fits,
    fractions: Sequence[float],
    repetitions: int,
) -> list[SubsetResult]:
    """Train the recipe on each fraction of the photographs of train, and answer for val: (M, A) logits.

    Within a repetition, each part contains the smaller ones. As in the split, all photographs of a person, where people
    are known, and near-duplicates are taken together. Parts that are the same in several repetitions, such as all
    photographs, are trained on once. Trainings are those of predict_attribute_parts.
    """
    train, val = (select_attributes(features, table, split) for split in ("train", "val"))
    units = _number_units(train)
    parts = [
        (repetition, mask)
        for repetition in range(repetitions)
        for mask in _choose_parts(units, fractions, params.seed + repetition)
    ]
    return predict_val_by_parts(
        train,
        val,
        parts,
        params.seed,
        lambda everything, each: predict_attribute_parts(everything, table.names, params, compute, fits, each),
    )


def choose_attribute_fractions(features: Features, fractions: Sequence[float]) -> list[float]:
    """Return the fractions, ascending, without those that take as many photographs as the one before.

    Raises CelebflowError when fewer than three are left.
    """
    count = len(features.find_rows("train"))
    chosen: dict[int, float] = {}
    for fraction in sorted(fractions):
        chosen.setdefault(_count_taken(fraction, count), fraction)
    if len(chosen) < LEAST_SIZES:
        raise CelebflowError(
            f"train has too few photographs for a learning curve: {count} give only {len(chosen)} different sizes. Add "
            "photographs."
        )
    return list(chosen.values())


def _count_taken(fraction: float, count: int) -> int:
    """Return how many photographs are taken at least."""
    return max(min(_LEAST_PHOTOGRAPHS, count), round(fraction * count))


def _number_units(examples: LabeledFeatures) -> NDArray[np.int64]:
    """Return for (N,) photographs which are taken together, by numbers from 0."""
    photos = [examples.features.photos[row] for row in examples.rows]
    number_of = {photo.path: number for number, unit in enumerate(join_units(photos)) for photo in unit}
    return np.array([number_of[photo.path] for photo in photos], np.int64)


def _choose_parts(units: NDArray[np.int64], fractions: Sequence[float], seed: int) -> list[NDArray[np.bool_]]:
    """Return for each fraction the (N,) photographs that are taken: whole units, until there are enough photographs."""
    order = np.random.default_rng([seed, 2]).permutation(units.max() + 1)
    reached = np.cumsum(np.bincount(units)[order])
    masks = []
    for fraction in fractions:
        last = int(np.searchsorted(reached, _count_taken(fraction, len(units))))
        masks.append(np.isin(units, order[: last + 1]))
    return masks
