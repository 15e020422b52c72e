"""How certain a result is: bootstrap intervals and paired tests; pure functions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, stdtrit

from celebflow.classifier.calibration import FloatArray

CONFIDENCE = 0.95
RESAMPLES = 2000
BOOTSTRAP_SEED = 0  # for all reported intervals
_BLOCK_CELLS = 2**22  # weights in memory at once: 32 MB in float64
_MAX_COMPARED = 5000  # photographs, of which every pair is compared in each resample


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


def draw_weights(groups: NDArray[np.int64], seed: int, resamples: int = RESAMPLES) -> Iterator[FloatArray]:
    """Draw bootstrap resamples of whole groups; yield how often each holds each photograph, (some resamples, N).

    The blocks hold `resamples` rows in all; their size does not grow with N. `groups` (N,) numbers the groups from 0.
    Photographs of one group, such as near-duplicates, are not independent evidence: a resample holds all or none of
    them (cluster bootstrap; Davison and Hinkley, 1997, section 3.8).

    Pairs have the groups of both photographs, (N, 2): a resample holds a pair as often as the product of how often it
    holds both groups, or as often as the group where both are the same (subsets bootstrap, Bolle et al., 2004).
    """
    group_count = int(groups.max()) + 1
    probabilities = np.full(group_count, 1 / group_count)
    random = np.random.default_rng(seed)
    max_rows = max(1, _BLOCK_CELLS // len(groups))
    for start in range(0, resamples, max_rows):
        # Resamples are drawn one after the other, so that the size of the blocks does not change them.
        drawn = random.multinomial(group_count, probabilities, size=min(max_rows, resamples - start))
        if groups.ndim == 1:
            yield drawn[:, groups].astype(np.float64)
        else:
            first, second = groups.T
            yield (drawn[:, first] * np.where(first == second, 1, drawn[:, second])).astype(np.float64)


def compute_intervals(
    predicted: NDArray[np.int64],
    probabilities: FloatArray,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int,
) -> dict[str, Interval]:
    """Return percentile bootstrap intervals of accuracy, balanced accuracy and macro AUC.

    `predicted`, `labels` and `groups` are (N,), `probabilities` (N, people). In a resample that lacks some people, the
    last two metrics are means over the others. Metrics that are undefined in any resample have no interval. Of more
    than 5,000 photographs, the macro AUC is taken for linear in how often a resample holds each of them (as by the
    infinitesimal jackknife; Efron and Tibshirani, 1993, section 22.6).
    """
    hits = predicted == labels
    linear = linearize_macro_auc(probabilities, labels) if len(labels) > _MAX_COMPARED else None
    blocks = []
    for weights in draw_weights(groups, seed):
        balanced_accuracies = weigh_balanced_accuracy(hits, labels, weights)
        areas = linear.weigh(weights) if linear else weigh_macro_auc(probabilities, labels, weights)
        blocks.append([weigh_accuracy(hits, weights), balanced_accuracies, areas])
    resampled = zip(("accuracy", "balanced_accuracy", "macro_auc"), np.concatenate(blocks, axis=1), strict=True)
    return compute_percentiles(dict(resampled))


def compute_percentiles(resampled: Mapping[str, FloatArray], group_count: int | None = None) -> dict[str, Interval]:
    """Return the interval of each metric from its values in all resamples; one that is ever NaN has none.

    Where few groups were resampled, such as people, percentiles would be too narrow. With their number, the interval is
    the expanded percentile interval (Hesterberg, 2015): for a mean, it is as wide as that of Student's t distribution.
    """
    tail = (1 - CONFIDENCE) / 2
    if group_count is not None:
        expanded = stdtrit(group_count - 1, tail) * np.sqrt(group_count / (group_count - 1))
        tail = float(ndtr(expanded))
    return {name: _compute_interval(values, tail) for name, values in resampled.items() if not np.isnan(values).any()}


def _compute_interval(values: FloatArray, tail: float = (1 - CONFIDENCE) / 2) -> Interval:
    low, high = np.percentile(values, [100 * tail, 100 * (1 - tail)])
    return Interval(float(low), float(high))


def weigh_accuracy(hits: NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    """Return the accuracy under each row of (resamples, N) weights."""
    accuracy: FloatArray = weights @ hits / weights.sum(axis=1)
    return accuracy


def weigh_balanced_accuracy(hits: NDArray[np.bool_], labels: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Return the mean recall of the people in each resample, under each row of (resamples, N) weights."""
    order = np.argsort(labels, kind="stable")
    firsts = np.flatnonzero(np.diff(labels[order], prepend=-1))  # of each person in the split
    held = weights[:, order]
    return _average_ratios(np.add.reduceat(held * hits[order], firsts, axis=1), np.add.reduceat(held, firsts, axis=1))


def weigh_macro_auc(probabilities: FloatArray, labels: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Return the people's mean area under the ROC curve, under each row of (resamples, N) weights.

    A person's area is the fraction of pairs of a photograph of the person and one of somebody else in which the former
    has the higher score; ties count half.
    """
    count = len(labels)
    one_hot = (labels[:, None] == np.unique(labels)).astype(np.float64)  # (N, people)
    own = weights @ one_hot
    wins = np.zeros_like(own)
    columns = max(1, _BLOCK_CELLS // count)
    for start in range(0, count, columns):
        block = slice(start, start + columns)
        scores = probabilities[:, labels[block]]  # (N, photographs of the block), for the person in each of these
        reached = np.diagonal(scores[block])
        below = (scores < reached) + 0.5 * (scores == reached)
        below[labels[:, None] == labels[block]] = 0  # photographs of the same person make no pair
        wins += (weights[:, block] * (weights @ below)) @ one_hot[block]
    return _average_ratios(wins, own * (weights.sum(axis=1, keepdims=True) - own))


@dataclass(frozen=True)
class LinearMetric:
    """A metric of N photographs, and its (N,) derivatives by how often a resample holds each, where all are held once.

    The derivatives add up to 0.
    """

    value: float
    derivatives: FloatArray

    def weigh(self, weights: FloatArray) -> FloatArray:
        """Return the metric, as a linear function, under each row of (resamples, N) weights."""
        values: FloatArray = self.value + weights @ self.derivatives
        return values


def linearize_macro_auc(probabilities: FloatArray, labels: NDArray[np.int64]) -> LinearMetric:
    """Return the people's mean area under the ROC curve, of (N, people) probabilities and (N,) labels.

    For one person alone, it is NaN.
    """
    derivatives = np.zeros(len(labels))
    areas = []
    for person in np.unique(labels).tolist():
        scores = probabilities[:, person]
        own = labels == person
        own_count, other_count = own.sum(), len(labels) - own.sum()
        if not other_count:
            return LinearMetric(np.nan, derivatives)
        ascending = np.sort(scores[own])
        # For each photograph of somebody else, the fraction of the person's own that reach a higher score.
        lost = 1 - count_below(ascending, scores[~own]) / own_count
        # For each of the person's own photographs, the fraction of all others that reach a lower score.
        won = (count_below(np.sort(scores), scores[own]) - count_below(ascending, scores[own])) / other_count
        area = won.mean()
        areas.append(area)
        derivatives[own] += (won - area) / own_count
        derivatives[~own] += (lost - area) / other_count
    return LinearMetric(float(np.mean(areas)), derivatives / len(areas))


def count_below(ascending: FloatArray, scores: FloatArray) -> FloatArray:
    """Return how many of the ascending scores are below each of the scores; equal ones count half."""
    below = np.searchsorted(ascending, scores, side="left") + np.searchsorted(ascending, scores, side="right")
    counts: FloatArray = below / 2
    return counts


def _average_ratios(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Return each row's mean of sums / counts over the columns whose count is not 0; NaN when all are."""
    present = counts > 0
    ratios = np.divide(sums, counts, out=np.zeros_like(sums), where=present)
    present_counts = np.where(present.any(axis=1), present.sum(axis=1), np.nan)
    mean: FloatArray = ratios.sum(axis=1) / present_counts
    return mean


@dataclass(frozen=True)
class PairedTest:
    """Two results on the same photographs: how many only one of them predicts correctly, and how certain that is.

    `p_value` is that of McNemar's exact test; `difference` is B's accuracy minus A's, with its paired interval.
    """

    only_a: int
    only_b: int
    p_value: float
    difference: float
    interval: Interval

    @property
    def verdict(self) -> Literal["better", "worse", "chance"]:
        """Return whether B is better or worse than A, or the difference may be chance.

        A clear verdict needs both a p value below 1 - CONFIDENCE and an interval without 0: the test treats all
        photographs as independent, and only the interval takes account of groups.
        """
        if self.p_value < 1 - CONFIDENCE and self.interval.low > 0:
            return "better"
        if self.p_value < 1 - CONFIDENCE and self.interval.high < 0:
            return "worse"
        return "chance"


def compare_hits(
    hits_a: NDArray[np.bool_], hits_b: NDArray[np.bool_], groups: NDArray[np.int64], seed: int
) -> PairedTest:
    """Compare which of the same N photographs A and B predict correctly; `groups` is as draw_weights takes it.

    The exact form of McNemar's test (1947): if neither is better, each photograph that only one of them predicts
    correctly is equally likely to be A's or B's.
    """
    only_a = int((hits_a & ~hits_b).sum())
    only_b = int((hits_b & ~hits_a).sum())
    # The two tails of this binomial distribution are equal; scipy.stats would take a second to import.
    p_value = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    change = hits_b.astype(np.float64) - hits_a
    resampled = []
    for weights in draw_weights(groups, seed):
        held = weights[weights.any(axis=1)]  # of few pairs, a resample may hold none
        resampled.append(held @ change / held.sum(axis=1))
    interval = _compute_interval(np.concatenate(resampled))
    return PairedTest(only_a, only_b, p_value, float(change.mean()), interval)
