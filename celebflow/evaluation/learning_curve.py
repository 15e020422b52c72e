"""Accuracy by the number of photographs to train on, and what more of them would bring; pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray
from celebflow.evaluation.significance import (
    BOOTSTRAP_SEED,
    Interval,
    compute_percentiles,
    draw_weights,
    weigh_accuracy,
    weigh_balanced_accuracy,
)

CURVE_RESAMPLES = 500
_LINE_POINTS = 60
_LEAST_SIZES = 3  # for a law with three numbers
_DECAYS = np.geomspace(0.05, 4, 60)  # of errors, by powers of the number of photographs
_LEAST_VARIANCE = 1e-3  # of an accuracy, so that one without errors does not decide the fit alone
GROWTH = 2.0  # what the curve is continued to, times the photographs that there are
_Continued = TypeVar("_Continued")


@dataclass(frozen=True)
class LearningPoint:
    """Accuracies on val after training on a part of train: means over repetitions, with 95% intervals."""

    photographs_per_person: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float


@dataclass(frozen=True)
class Forecast:
    """What accuracy a fitted curve gives with so many photographs per person, and the change from all that there are.

    Both have 95% intervals.
    """

    photographs_per_person: float
    accuracy: float
    interval: Interval
    gain: float
    gain_interval: Interval


@dataclass(frozen=True)
class LearningCurve:
    """The curve's points, from few photographs to all, the fitted line, and what it forecasts."""

    points: list[LearningPoint]
    line: list[Forecast]
    forecast: Forecast


def build_learning_curve(
    hits: NDArray[np.bool_],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    sizes: Sequence[float],
    growth: float = GROWTH,
) -> LearningCurve:
    """Build the curve from (repetitions, sizes, M) hits on val, whose labels and groups of near-duplicates are (M,).

    `sizes` are the photographs per person, ascending. Errors follow a + b · size^-c, a power law with a rest (Hestness
    et al., 2017; Viering and Loog, 2023), fitted by least squares with weights. The intervals resample the groups of
    val, the repetitions and, for what the line forecasts, the sizes, since no law holds exactly.
    """
    accuracies, balanced = _resample(hits, labels, groups)
    points = []
    for position, size in enumerate(sizes):
        values = []
        for resampled in (accuracies[:, position], balanced[:, position]):
            interval = _compute_interval(resampled[1:])
            values += [float(resampled[0]), interval.low, interval.high]
        points.append(LearningPoint(size, *values))
    return LearningCurve(points, *continue_curve(accuracies, sizes, growth, Forecast))


def continue_curve(
    values: FloatArray,
    sizes: Sequence[float],
    growth: float,
    make: Callable[[float, float, Interval, float, Interval], _Continued],
    group_count: int | None = None,
) -> tuple[list[_Continued], _Continued]:
    """Fit power laws to (1 + resamples, sizes) values, the first of which are measured; return a line and a forecast.

    `make` gets a size, the value there and its interval, and the change from the largest size and its interval. The
    line ends at the forecast, `growth` times the largest size. Values are at most 1, such as accuracies. The number of
    groups that were resampled widens intervals where it is small, as compute_percentiles does.
    """
    laws = fit_power_law(np.array(sizes, np.float64), 1 - values, _share_sizes(*values.shape))
    at_end = _compute_accuracy(laws, sizes[-1])

    def forecast(size: float) -> _Continued:
        forecasts = _compute_accuracy(laws, size)
        gains = forecasts - at_end
        value, gain = float(forecasts[0]), float(gains[0])
        interval, gain_interval = (_compute_interval(each[1:], group_count) for each in (forecasts, gains))
        return make(size, value, interval, gain, gain_interval)

    line = [forecast(size) for size in np.geomspace(sizes[0], growth * sizes[-1], _LINE_POINTS).tolist()]
    return line, forecast(growth * sizes[-1])


def find_half(sizes: Sequence[float]) -> int:
    """Return the position of the size that is nearest to half of the largest."""
    return int(np.argmin(np.abs(np.array(sizes) - sizes[-1] / 2)))


def find_gains(
    hits: NDArray[np.bool_], labels: NDArray[np.int64], sizes: Sequence[float], class_names: Sequence[str]
) -> dict[str, float]:
    """Return by how much each person's recall on val rose from half of the photographs, or nearly, to all of them.

    `hits` are (repetitions, sizes, M). People without photographs in val are left out.
    """
    rises = hits[:, -1].mean(axis=0) - hits[:, find_half(sizes)].mean(axis=0)  # (M,)
    return {class_names[label]: float(rises[labels == label].mean()) for label in np.unique(labels)}


def _resample(
    hits: NDArray[np.bool_], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Return (1 + resamples, sizes) accuracies and balanced accuracies, the first of all photographs as they are."""
    repetitions, size_count, _ = hits.shape
    shares = draw_shares(repetitions)
    measured: list[list[FloatArray]] = [[], []]
    for weights in (np.ones((1, len(labels))), *draw_weights(groups, BOOTSTRAP_SEED, CURVE_RESAMPLES)):
        each = hits.reshape(-1, len(labels))
        measured[0].append(np.stack([weigh_accuracy(of_one, weights) for of_one in each], axis=1))
        measured[1].append(np.stack([weigh_balanced_accuracy(of_one, labels, weights) for of_one in each], axis=1))
    accuracies, balanced = (np.concatenate(blocks).reshape(-1, repetitions, size_count) for blocks in measured)
    return tuple(np.einsum("brs,br->bs", each, shares) for each in (accuracies, balanced))


def draw_shares(repetitions: int) -> FloatArray:
    """Return (1 + resamples, repetitions) shares of repetitions in a mean, the first row of all as they are."""
    random = np.random.default_rng([BOOTSTRAP_SEED, 2])  # other numbers than those that draw the groups
    drawn = random.multinomial(repetitions, np.full(repetitions, 1 / repetitions), CURVE_RESAMPLES)
    return np.concatenate([np.full((1, repetitions), 1 / repetitions), drawn / repetitions])


def _share_sizes(row_count: int, size_count: int) -> FloatArray:
    """Return (rows, sizes) shares: the first row has all sizes, and each other one a resample of three or more."""
    shares = np.ones((row_count, size_count))
    if size_count > _LEAST_SIZES:
        random = np.random.default_rng([BOOTSTRAP_SEED, 1])
        drawn = random.multinomial(size_count, np.full(size_count, 1 / size_count), row_count - 1)
        enough = (drawn > 0).sum(axis=1) >= _LEAST_SIZES
        shares[1:][enough] = drawn[enough]
    return shares


def _compute_accuracy(laws: FloatArray, size: float) -> FloatArray:
    rest, scale, decay = laws.T
    accuracy: FloatArray = 1 - np.minimum(rest + scale * size**-decay, 1)
    return accuracy


def _compute_interval(resampled: FloatArray, group_count: int | None = None) -> Interval:
    return compute_percentiles({"value": resampled}, group_count)["value"]


def fit_power_law(sizes: FloatArray, errors: FloatArray, shares: FloatArray) -> FloatArray:
    """Fit a + b · size^-c with a, b ≥ 0 to (B, S) errors at (S,) sizes; return (B, 3) a, b and c.

    A size's weight is its (B, S) share, over the variance of its error, as of a binomial's.
    """
    weights = shares / np.maximum(errors * (1 - errors), _LEAST_VARIANCE)
    best = np.full(len(errors), np.inf)
    found = np.zeros((len(errors), 3))
    for decay in _DECAYS:
        powers = sizes**-decay
        a, b = _fit_line(powers, errors, weights)
        loss = (weights * (a[:, None] + b[:, None] * powers - errors) ** 2).sum(axis=1)
        better = loss < best
        best[better] = loss[better]
        found[better] = np.stack([a, b, np.full(len(a), decay)], axis=1)[better]
    return found


def _fit_line(x: FloatArray, y: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the (B,) a and b, none below 0, by which a + b · x is nearest to (B, S) y at (S,) x."""
    total = weights.sum(axis=1)
    mean_x, mean_y = (weights * x).sum(axis=1) / total, (weights * y).sum(axis=1) / total
    centered = x - mean_x[:, None]
    b = (weights * centered * y).sum(axis=1) / (weights * centered**2).sum(axis=1)
    a = mean_y - b * mean_x
    through_zero = (weights * x * y).sum(axis=1) / (weights * x**2).sum(axis=1)
    b = np.where(a < 0, through_zero, b)
    a = np.where(a < 0, 0.0, a)
    a = np.where(b < 0, mean_y, a)
    return a, np.maximum(b, 0)
