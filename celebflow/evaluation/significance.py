"""How far a result can be trusted: bootstrap intervals and paired tests; pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from celebflow.classifier.calibration import FloatArray

CONFIDENCE = 0.95
RESAMPLES = 2000
BOOTSTRAP_SEED = 0  # of every interval that is reported
_BLOCK_CELLS = 2**22  # of weights at once: 32 MB in float64


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


def draw_weights(groups: NDArray[np.int64], seed: int, resamples: int = RESAMPLES) -> Iterator[FloatArray]:
    """Draw bootstrap resamples of whole groups, and yield how often each holds each photograph: (some resamples, N).

    They come in blocks of a size that does not grow with N, `resamples` in all. `groups` (N,) numbers the groups from
    0. Photographs of a group, near-duplicates say, are no independent evidence, and come or go together (cluster
    bootstrap; Davison and Hinkley, 1997, section 3.8).
    """
    count = int(groups.max()) + 1
    random = np.random.default_rng(seed)
    most = max(1, _BLOCK_CELLS // len(groups))
    for start in range(0, resamples, most):
        # One resample is drawn after the other, so that the size of the blocks changes none.
        drawn = random.multinomial(count, np.full(count, 1 / count), size=min(most, resamples - start))
        yield drawn[:, groups].astype(np.float64)


def compute_intervals(
    predicted: NDArray[np.int64],
    probabilities: FloatArray,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int,
) -> dict[str, Interval]:
    """Return percentile bootstrap intervals of accuracy, balanced accuracy and macro AUC.

    Resamples without a person say nothing of that person's recall and AUC: the means are over those who are in it.
    """
    hits = predicted == labels
    resampled: dict[str, list[FloatArray]] = {"accuracy": [], "balanced_accuracy": [], "macro_auc": []}
    for weights in draw_weights(groups, seed):
        resampled["accuracy"].append(weigh_accuracy(hits, weights))
        resampled["balanced_accuracy"].append(weigh_balanced_accuracy(hits, labels, weights))
        resampled["macro_auc"].append(weigh_macro_auc(probabilities, labels, weights))
    intervals = {}
    for name, blocks in resampled.items():
        values = np.concatenate(blocks)
        if not np.isnan(values).any():
            intervals[name] = _percentiles(values)
    return intervals


def _percentiles(values: FloatArray) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def weigh_accuracy(hits: NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    """Return the accuracy under each row of (resamples, N) weights."""
    accuracy: FloatArray = weights @ hits / weights.sum(axis=1)
    return accuracy


def weigh_balanced_accuracy(hits: NDArray[np.bool_], labels: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Return the mean recall of the people who are there under each row of (resamples, N) weights."""
    one_hot = (labels[:, None] == np.unique(labels)).astype(np.float64)
    return _mean_of_present((weights * hits) @ one_hot, weights @ one_hot)


def weigh_macro_auc(probabilities: FloatArray, labels: NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """Return the mean area under the ROC curves of the people under each row of (resamples, N) weights.

    The area is the chance that a photograph of the person scores above one of somebody else, ties counting half.
    """
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
class PairedTest:
    """Two results on the same photographs: how many only one of them named rightly, and what that says.

    `p_value` is that of McNemar's exact test; `difference` is B's accuracy less A's, with its paired interval.
    """

    only_a: int
    only_b: int
    p_value: float
    difference: float
    interval: Interval

    @property
    def verdict(self) -> Literal["better", "worse", "chance"]:
        """Return whether B is better or worse than A, or the difference may be chance.

        It takes both a p value below 1 - CONFIDENCE and an interval without 0: the test takes each photograph as
        evidence of its own, and only the interval knows of groups.
        """
        if self.p_value < 1 - CONFIDENCE and self.interval.low > 0:
            return "better"
        if self.p_value < 1 - CONFIDENCE and self.interval.high < 0:
            return "worse"
        return "chance"


def compare_hits(
    hits_a: NDArray[np.bool_], hits_b: NDArray[np.bool_], groups: NDArray[np.int64], seed: int
) -> PairedTest:
    """Compare which of the same N photographs A and B named rightly.

    McNemar, 1947, in its exact form: of the photographs that only one of them named rightly, each is as likely to be
    A's as B's if neither is better.
    """
    only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
    # The two tails of a binomial distribution are alike at a half; scipy.stats would take a second to import.
    p_value = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    change = hits_b.astype(np.float64) - hits_a
    resampled = [weights @ change / weights.sum(axis=1) for weights in draw_weights(groups, seed)]
    interval = _percentiles(np.concatenate(resampled))
    return PairedTest(only_a, only_b, p_value, float(change.mean()), interval)
