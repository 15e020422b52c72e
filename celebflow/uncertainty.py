"""How far a result can be trusted: bootstrap intervals, paired tests, calibration; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation import FloatArray, softmax

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


def draw_weights(groups: NDArray[np.int64], seed: int, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Draw bootstrap resamples of whole groups, and return how often each holds each photograph: (resamples, N).

    `groups` (N,) numbers the groups from 0. Photographs of a group, near-duplicates say, are no independent evidence,
    and come or go together (cluster bootstrap; Davison and Hinkley, 1997, section 3.8).
    """
    count = int(groups.max()) + 1
    random = np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, groups].astype(np.float64)


def compute_intervals(
    logits: NDArray[np.floating], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> dict[str, Interval]:
    """Return percentile bootstrap intervals of accuracy, balanced accuracy and macro AUC.

    Resamples without a person say nothing of that person's recall and AUC: the means are over those who are in it.
    """
    weights = draw_weights(groups, seed)
    resampled = {
        "accuracy": weigh_accuracy(logits, labels, weights),
        "balanced_accuracy": weigh_balanced_accuracy(logits, labels, weights),
        "macro_auc": weigh_macro_auc(logits, labels, weights),
    }
    return {name: _percentiles(values) for name, values in resampled.items() if not np.isnan(values).any()}


def _percentiles(values: FloatArray) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def weigh_accuracy(logits: NDArray[np.floating], labels: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Return the accuracy under each row of (resamples, N) weights."""
    right = logits.argmax(axis=1) == labels
    accuracy: FloatArray = weights @ right / weights.sum(axis=1)
    return accuracy


def weigh_balanced_accuracy(logits: NDArray[np.floating], labels: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Return the mean recall of the persons who are there under each row of (resamples, N) weights."""
    right = logits.argmax(axis=1) == labels
    one_hot = (labels[:, None] == np.unique(labels)).astype(np.float64)
    support, hits = weights @ one_hot, (weights * right) @ one_hot
    return _mean_of_present(hits, support)


def weigh_macro_auc(logits: NDArray[np.floating], labels: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Return the mean area under the ROC curves of the persons under each row of (resamples, N) weights.

    The area is the chance that a photograph of the person scores above one of somebody else, ties counting half.
    """
    probabilities = softmax(logits)
    areas, present = [], []
    for person in np.unique(labels):
        positive = labels == person
        if positive.all():
            continue
        order = np.argsort(probabilities[:, person], kind="stable")
        starts = np.flatnonzero(np.diff(probabilities[order, person], prepend=-1.0))  # of equal scores
        ranked = weights[:, order]
        hits = np.add.reduceat(ranked * positive[order], starts, axis=1)
        misses = np.add.reduceat(ranked * ~positive[order], starts, axis=1)
        below = np.cumsum(misses, axis=1) - misses / 2
        areas.append((hits * below).sum(axis=1))
        present.append(hits.sum(axis=1) * misses.sum(axis=1))
    if not areas:
        return np.full(len(weights), np.nan)
    return _mean_of_present(np.stack(areas, axis=1), np.stack(present, axis=1))


def _mean_of_present(sums: FloatArray, counts: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        values = sums / counts
    there = counts > 0
    mean: FloatArray = np.where(there, values, 0).sum(axis=1) / np.where(there.any(axis=1), there.sum(axis=1), np.nan)
    return mean


@dataclass(frozen=True)
class Comparison:
    """Two results on the same photographs: how many only one of them named rightly, and what that says.

    `p_value` is that of McNemar's exact test; `difference` is B's accuracy less A's, with its paired interval.
    """

    only_a: int
    only_b: int
    p_value: float
    difference: float
    interval: Interval


def compare_hits(
    hits_a: NDArray[np.bool_], hits_b: NDArray[np.bool_], groups: NDArray[np.int64], seed: int
) -> Comparison:
    """Compare which of the same N photographs A and B named rightly.

    McNemar, 1947, in its exact form: of the photographs that only one of them named rightly, each is as likely to be
    A's as B's if neither is better.
    """
    from scipy.stats import binomtest  # half a second to import

    only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
    p_value = float(binomtest(only_b, only_a + only_b).pvalue) if only_a + only_b else 1.0
    change = hits_b.astype(np.float64) - hits_a
    weights = draw_weights(groups, seed)
    interval = _percentiles(weights @ change / weights.sum(axis=1))
    return Comparison(only_a, only_b, p_value, float(change.mean()), interval)


@dataclass(frozen=True)
class ReliabilityBin:
    """The photographs whose greatest probability lies between `low` and `high`."""

    low: float
    high: float
    count: int
    mean_probability: float
    accuracy: float


def bin_reliability(probabilities: FloatArray, labels: NDArray[np.int64], bin_count: int = 15) -> list[ReliabilityBin]:
    """Sort (N, people) predictions into bins of equal width by their greatest probability; empty bins are left out."""
    greatest, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    numbers = np.minimum((greatest * bin_count).astype(int), bin_count - 1)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        bins.append(
            ReliabilityBin(
                low=float(number / bin_count),
                high=float((number + 1) / bin_count),
                count=int(inside.sum()),
                mean_probability=float(greatest[inside].mean()),
                accuracy=float(right[inside].mean()),
            )
        )
    return bins


def compute_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the expected calibration error (Guo et al., 2017): the mean gap between probability and accuracy."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.mean_probability - each.accuracy) for each in bins) / total


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the temperature that (N, people) logits are best divided by: the one of the least loss.

    Temperature scaling of Guo et al., 2017. Fit it on validation: it chooses.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits / np.exp(log_temperature))
        return float(-np.log(np.maximum(probabilities[rows, labels], np.finfo(np.float64).tiny)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-6}).x))
