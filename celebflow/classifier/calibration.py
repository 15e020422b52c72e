"""Logits → probabilities that match accuracy; pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from celebflow.errors import CelebflowError
from celebflow.features.sparse import split_rows

FloatArray = NDArray[np.float64]

_LEAST_DEVIATION = 1e-6  # of scores, relative to their mean: less is the rounding of equal ones in float32


@dataclass(frozen=True)
class Calibration:
    """What turns logits into probabilities, and a photograph's match into known or unknown; saved with the classifier.

    Logits are divided by `temperature`, and probabilities are moved towards equal ones until none exceeds
    `max_confidence`. Both are fitted on val. A photograph whose match is below `threshold` shows an unknown person; of
    unknown people's photographs, a fraction `false_acceptance_rate` is expected to reach it. The threshold is None
    where there are too few people to know: then nobody is unknown.

    Raises ValueError when one of them is not a number that can be used so.
    """

    temperature: float
    max_confidence: float
    threshold: float | None
    false_acceptance_rate: float

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite, as a damaged file could hold."""
        others = [0.0 if self.threshold is None else self.threshold, self.false_acceptance_rate]
        if not (0 < self.temperature < np.inf and 0 < self.max_confidence <= 1 and np.isfinite(others).all()):
            raise ValueError(f"{self} is not a valid calibration")

    def compute_probabilities(self, logits: NDArray[np.floating]) -> FloatArray:
        """Turn (N, people) logits into probabilities, as softmax does."""
        probabilities = softmax(logits, self.temperature)
        if self.max_confidence < 1:
            equal = 1 / logits.shape[1]
            probabilities -= equal
            probabilities *= self.shrink_factor(logits.shape[1])
            probabilities += equal
        return probabilities

    def shrink_factor(self, person_count: int) -> float:
        """Return what the differences of probabilities from equal ones are multiplied by."""
        equal = 1 / person_count
        return (self.max_confidence - equal) / (1 - equal)


UNCALIBRATED = Calibration(temperature=1.0, max_confidence=1.0, threshold=None, false_acceptance_rate=1.0)


def require_finite_scores(scores: NDArray[np.floating]) -> None:
    """Raise CelebflowError when one of the scores that a model computes for photographs is not finite."""
    if not np.isfinite(scores).all():
        raise CelebflowError(
            "The model computes values that are not finite: its training diverged. Lower train.learning_rate if it is "
            "a network and run `dvc repro`, or choose another model."
        )


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> FloatArray:
    """Turn (N, people) logits into probabilities, in float64; raise CelebflowError when a logit is not finite.

    They are computed in blocks, so that those of many people need little more memory than their own.
    """
    probabilities: FloatArray = np.empty(logits.shape)
    for block in split_rows(*logits.shape):
        probabilities[block] = _compute_softmax(logits[block], temperature)
    return probabilities


def _compute_softmax(logits: NDArray[np.floating], temperature: float) -> FloatArray:
    divided = logits / temperature
    require_finite_scores(divided)
    exponentials: FloatArray = np.exp(divided.astype(np.float64) - divided.max(axis=1, keepdims=True))
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


def compute_loss(probabilities: FloatArray, labels: NDArray[np.int64]) -> float:
    """Return the mean cross-entropy of (N, people) probabilities."""
    of_actual = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_actual, np.finfo(np.float64).tiny)).mean())


def fit_probabilities(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> Calibration:
    """Fit temperature and greatest confidence to the (N, people) logits and (N,) labels of val.

    Temperature scaling (Guo et al., 2017) with the targets of Platt (1999): the probability of the right person should
    be (N + 1) / (N + 2) instead of 1, which is also the greatest confidence (Laplace's rule of succession). So N
    photographs without an error give a temperature, and claim no more than they show.
    """
    from scipy.optimize import minimize_scalar

    target = (len(labels) + 1) / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        of_actual, of_others = _divide_probabilities(logits, labels, np.exp(log_temperature))
        least = np.finfo(np.float64).tiny
        losses = target * np.log(np.maximum(of_actual, least)) + (1 - target) * np.log(np.maximum(of_others, least))
        return float(-losses.mean())

    log_temperature = minimize_scalar(loss, bounds=(-6, 6), method="bounded", options={"xatol": 1e-6}).x
    equal = 1 / logits.shape[1]  # few photographs of many people still predict one of them
    return replace(UNCALIBRATED, temperature=float(np.exp(log_temperature)), max_confidence=max(target, equal))


def _divide_probabilities(
    logits: NDArray[np.floating], labels: NDArray[np.int64], temperature: float
) -> tuple[FloatArray, FloatArray]:
    """Return the (N,) probabilities of the actual people, and of all others together, by (N, people) logits."""
    of_actual, of_others = np.empty(len(labels)), np.empty(len(labels))
    for block in split_rows(*logits.shape):
        probabilities = _compute_softmax(logits[block], temperature)
        own = np.arange(len(probabilities)), labels[block]
        of_actual[block] = probabilities[own]
        probabilities[own] = 0
        of_others[block] = probabilities.sum(axis=1)  # more precise than 1 - of_actual
    return of_actual, of_others


def fit_logistic(scores: FloatArray, actual: NDArray[np.bool_], weights: FloatArray) -> tuple[float, float]:
    """Fit the logistic function of slope · score + offset to (N,) scores with weights; return slope and offset.

    The targets are those of Platt (1999): for n scores where `actual` is true and m others, (n + 1) / (n + 2) instead
    of 1, and 1 / (m + 2) instead of 0. They keep the fit finite without an error, and do not bound probabilities. The
    slope is above 0: a higher score never means a lower probability.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    counts = np.array([(~actual).sum(), actual.sum()])
    targets = np.where(actual, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    center, deviation = float(scores.mean()), float(scores.std())
    scale = deviation if deviation > _LEAST_DEVIATION * abs(center) else 1.0
    standard = (scores - center) / scale

    def lose(values: FloatArray) -> tuple[float, FloatArray]:
        log_odds = np.exp(values[0]) * standard + values[1]
        errors = weights * (expit(log_odds) - targets)
        loss = float((weights * (np.logaddexp(0, log_odds) - targets * log_odds)).sum())
        return loss, np.array([(errors * standard).sum() * np.exp(values[0]), errors.sum()])

    log_slope, offset = minimize(lose, np.zeros(2), jac=True, method="BFGS").x
    slope = float(np.exp(log_slope)) / scale
    return slope, float(offset) - slope * center


def format_confidence(confidence: float, ends: tuple[float, ...] = (100.0,)) -> str:
    """Write a confidence in percent, with as many digits as tell it apart from 100%, or from all of `ends`."""
    for digits in range(1, 7):
        text = f"{confidence:.{digits}%}"
        if float(text[:-1]) not in ends:
            return text
    return "more than 99.9999%" if confidence > 0.5 else "less than 0.0001%"


@dataclass(frozen=True)
class ReliabilityBin:
    """The photographs whose confidence is between `low` and `high`."""

    low: float
    high: float
    count: int
    mean_probability: float
    accuracy: float


def bin_reliability(probabilities: FloatArray, labels: NDArray[np.int64], bin_count: int = 15) -> list[ReliabilityBin]:
    """Sort predictions, of (N, people) probabilities, into bins of equal width by confidence; leave out empty bins."""
    confidences = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    numbers = np.minimum((confidences * bin_count).astype(int), bin_count - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        inside = numbers == number
        low, high = number / bin_count, (number + 1) / bin_count
        mean_probability, accuracy = float(confidences[inside].mean()), float(hits[inside].mean())
        bins.append(ReliabilityBin(low, high, int(inside.sum()), mean_probability, accuracy))
    return bins


def compute_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the expected calibration error (Guo et al., 2017): the mean gap between confidence and accuracy."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.mean_probability - each.accuracy) for each in bins) / total
