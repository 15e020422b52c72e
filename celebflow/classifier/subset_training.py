"""Train on nested parts of train, and predict val: how much more photographs help."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.classifier_training import fit_classifier, train_to_the_end
from celebflow.classifier.components import fit_components
from celebflow.classifier.discriminants import average_logits, fit_people
from celebflow.classifier.fits import Fits
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.projection import MAX_VIEWS
from celebflow.classifier.vectors import list_views
from celebflow.data.photos import list_people, number_groups
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, LabeledFeatures, select_split
from celebflow.params import ComputeParams, TrainParams

_LEAST_SIZES = 3  # of a curve
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

    Within a repetition, each part contains the smaller ones. Everything is fitted anew to each part, as training does
    it. Of each person, two groups of near-duplicates are taken at least. A network keeps its last epoch. Parts that are
    the same in several repetitions, such as all photographs, are trained on once.
    """
    class_names = list_people(features.photos)
    train, val = (select_split(features, class_names, split) for split in ("train", "val"))
    params = train_to_the_end(params)
    parts = [
        (repetition, mask)
        for repetition in range(repetitions)
        for mask in _choose_parts(train, fractions, params.seed + repetition)
    ]
    masks = {mask.tobytes(): mask for _, mask in parts}
    view_count = train.view_count * (len(train) + len(val))
    fast = params.classifier in ("lda", "logistic") and params.preprocessing.pca_components is not None
    if fast and not params.preprocessing.standardize and view_count <= MAX_VIEWS:
        logits = _predict_by_products(train, val, params, fits, list(masks.values()))
    else:
        logits = []
        for number, mask in enumerate(masks.values(), 1):
            print(f"Part {number} of {len(masks)}, {mask.sum()} photographs:")
            fitted = fit_classifier(
                class_names, train.select(mask), val, params, compute, Checkpoints(), lambda _: None
            )
            logits.append(fitted.on_val[0])
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
    if len(chosen) < _LEAST_SIZES:
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


def _predict_by_products(
    train: LabeledFeatures, val: LabeledFeatures, params: TrainParams, fits: Fits, masks: Sequence[NDArray[np.bool_]]
) -> list[NDArray[np.float32]]:
    """Return the (M, people) logits of val, from the inner products of all photographs, which are computed once."""
    settings = params.preprocessing.model_copy(update={"pca_components": None})
    preprocessor = Preprocessor(settings, train.features.origin.feature_count)
    views = list_views(preprocessor, train.features, np.concatenate([train.rows, val.rows]))
    products = views.recall_products(fits)
    is_train = np.tile(np.arange(len(train) + len(val)) < len(train), train.view_count)
    of_train, of_val = products[np.ix_(is_train, is_train)], products[np.ix_(~is_train, is_train)]
    found = []
    for mask in tqdm(masks, "training on parts", unit="part", disable=None):
        taken = np.tile(mask, train.view_count)
        components = fit_components(
            of_train[np.ix_(taken, taken)], params.preprocessing.pca_components or 0, params.seed
        )
        inputs, inputs_of_val = (components.project(each[:, taken]) for each in (of_train[taken], of_val))
        weight, bias = fit_people(inputs, np.tile(train.labels, train.view_count)[taken], params)
        found.append(average_logits(inputs_of_val, weight, bias, train.view_count))
    return found
