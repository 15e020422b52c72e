"""Whether new photographs look like those of train: a two-sample test by a classifier; pure functions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray
from celebflow.evaluation.metrics import Fraction, measure_fraction
from celebflow.evaluation.open_set import compute_auc
from celebflow.evaluation.significance import CONFIDENCE

PERMUTATIONS = 1000
_SEED = 0
_BEYOND = 0.95  # of the others' scores
_PENALTY = 0.1  # relative to the mean squared length of the vectors around their mean


@dataclass(frozen=True, eq=False)
class SampleComparison:
    """How well new photographs are told from others by classifiers, each of which was fitted without one of them.

    `scores` (N,) say how new each photograph looks to the one that was fitted without it. `auc` is the fraction of
    pairs of a new and another photograph in which the new one has the higher score, and `beyond` the fraction of the
    new ones whose scores are higher than those of 95% of the others. `p_value` is the probability of scores that differ
    as much where all are drawn alike.
    """

    scores: FloatArray
    auc: float
    beyond: Fraction
    p_value: float

    @property
    def differs(self) -> bool:
        """Return whether the new photographs differ by more than chance."""
        return self.p_value < 1 - CONFIDENCE


def compare_samples(
    products: NDArray[np.floating], new: NDArray[np.bool_], strata: NDArray[np.int64], permutations: int = PERMUTATIONS
) -> SampleComparison:
    """Test whether the new ones among N photographs look like the others; `products` (N, N) are inner products.

    This is a classifier two-sample test (Lopez-Paz and Oquab, 2017). Each photograph is compared with those of its
    stratum alone, of which `strata` (N,) are the numbers: such as the person's. A stratum holds two at least.

    Two figures tell the scores of new photographs from others: the AUC, which rises where all differ a little, and the
    mean square of the scores above 0, where some differ much. The p value is that of the one that stands out more. It
    comes from permutations of `new` (N,) within strata, to all of which the same is done, so that it holds whatever the
    classifier and the figures are.
    """
    random = np.random.default_rng(_SEED)
    labels = np.repeat(new[:, None], permutations + 1, axis=1)  # the first column stays as it is
    for stratum in np.unique(strata):
        own = strata == stratum
        labels[own, 1:] = random.permuted(labels[own, 1:], axis=0)
    scores = score_left_out(products, labels.astype(np.float64), strata, _PENALTY)
    figures = np.array([_tell_apart(*each) for each in zip(scores.T, labels.T, strict=True)])  # (permutations + 1, 2)
    # The fraction of all permutations, the real labels among them, whose figure is as high.
    ranked = 1 - np.array([np.searchsorted(np.sort(column), column) for column in figures.T]) / len(figures)
    least = ranked.min(axis=0)
    found, threshold = scores[:, 0], np.quantile(scores[~new, 0], _BEYOND)
    return SampleComparison(
        found,
        float(figures[0, 0]),
        measure_fraction(int((found[new] > threshold).sum()), int(new.sum())),
        float((least <= least[0]).mean()),
    )


def _tell_apart(scores: FloatArray, new: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the figures that tell the (N,) scores of new photographs from those of others."""
    squares = np.square(np.maximum(scores, 0))
    return compute_auc(scores[new], scores[~new]), float(squares[new].mean() - squares[~new].mean())


def score_left_out(
    products: NDArray[np.floating], targets: FloatArray, strata: NDArray[np.int64], penalty: float
) -> FloatArray:
    """Return how far ridge regressions of (N, T) targets, each fitted without a photograph, put it from its stratum.

    Ridge regression gives all of them at once (Cook's identity; Hastie et al., 2009, section 7.10). Each stratum has an
    intercept without a penalty. The scores (N, T) are without it: fitted without a photograph, it is lower where the
    photograph's target is higher, and so would tell the target.
    """
    _, numbers, counts = np.unique(strata, return_inverse=True, return_counts=True)
    members = (numbers == np.arange(len(counts))[:, None]).astype(np.float64)  # (strata, N)
    centered = products.astype(np.float64)
    centered -= (members @ centered / counts[:, None])[numbers]
    centered -= (centered @ members.T / counts)[:, numbers]
    strength = penalty * float(np.trace(centered)) / len(centered) or 1.0  # photographs may be all the same
    centered[np.diag_indices_from(centered)] += strength
    inverse = strength * np.linalg.inv(centered)
    sums, sizes = (members @ targets)[numbers], counts[numbers, None]
    residuals = inverse @ (targets - sums / sizes)
    freedom = np.diag(inverse)[:, None] - 1 / sizes
    scores: FloatArray = targets - residuals / freedom - (sums - targets) / (sizes - 1)
    return scores
