"""Logits → probabilities that match accuracy, and the threshold below which a person is unknown; pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.errors import CelebflowError

FloatArray = NDArray[np.float64]
_OPEN_SET_STEPS = 200


@dataclass(frozen=True)
class Calibration:
    """What turns logits into a prediction; fitted on validation and saved with the classifier.

    Logits are divided by `temperature`. A photograph whose confidence is below `threshold` shows an unknown person;
    the confidence of a fraction `false_acceptance_rate` of unknown people's photographs is expected to reach it.

    Raises ValueError when one of them is not a number that can be used so.
    """

    temperature: float
    threshold: float
    false_acceptance_rate: float

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite, as a damaged file could hold."""
        if not (0 < self.temperature < np.inf and np.isfinite([self.threshold, self.false_acceptance_rate]).all()):
            raise ValueError(f"{self} is not a valid calibration")


UNCALIBRATED = Calibration(temperature=1.0, threshold=0.0, false_acceptance_rate=1.0)


def softmax(logits: NDArray[np.floating]) -> FloatArray:
    """Turn (N, people) logits into probabilities, in float64; raise CelebflowError when a logit is not finite."""
    if not np.isfinite(logits).all():
        raise CelebflowError(
            "The classifier computes values that are not finite: its training diverged. Lower train.learning_rate and "
            "run `dvc repro`, or choose another model."
        )
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def compute_loss(probabilities: FloatArray, labels: NDArray[np.int64]) -> float:
    """Return the mean cross-entropy of (N, people) probabilities."""
    of_actual = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_actual, np.finfo(np.float64).tiny)).mean())


def fit_calibration(
    logits: NDArray[np.floating], labels: NDArray[np.int64], false_acceptance_rate: float
) -> Calibration:
    """Fit temperature and threshold to the (N, people) logits and (N,) labels of validation."""
    temperature = fit_temperature(logits, labels)
    if logits.shape[1] < 3:  # without one of two people, only one would be left to predict
        return Calibration(temperature, UNCALIBRATED.threshold, UNCALIBRATED.false_acceptance_rate)
    scores = score_unknown(logits / temperature, labels)
    return Calibration(temperature, choose_threshold(scores, false_acceptance_rate), false_acceptance_rate)


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the temperature that minimizes the loss of (N, people) logits divided by it (Guo et al., 2017)."""
    from scipy.optimize import minimize_scalar

    if (logits.argmax(axis=1) == labels).all():  # without errors, the loss falls with the temperature without end
        return UNCALIBRATED.temperature

    def loss(log_temperature: float) -> float:
        return compute_loss(softmax(logits / np.exp(log_temperature)), labels)

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-6}).x))


def score_unknown(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> FloatArray:
    """Return the (N,) confidences that the classifier would have without an output for each photograph's person.

    Each person is then unknown to the others, of whom there must be at least two. But the classifier was trained on
    that person too: the confidences of people who are really unknown may differ.
    """
    others = np.arange(logits.shape[1]) != labels[:, None]  # (N, people)
    rest = logits[others].reshape(len(labels), -1)  # (N, people - 1)
    scores: FloatArray = softmax(rest).max(axis=1)
    return scores


def choose_threshold(scores: FloatArray, false_acceptance_rate: float) -> float:
    """Return the lowest threshold that at most this fraction of unknown people's (N,) confidences reaches.

    It is never above 1, so that a confidence of 1 always reaches it.
    """
    max_count = int(np.floor(false_acceptance_rate * len(scores)))
    if max_count >= len(scores):
        return 0.0
    descending = np.sort(scores)[::-1]
    return min(1.0, float(np.nextafter(descending[max_count], np.inf)))


@dataclass(frozen=True)
class OpenSetRates:
    """The fractions of photographs of known and of unknown people whose confidence reaches a threshold."""

    threshold: float
    known: float
    unknown: float


def trace_open_set(known_scores: FloatArray, unknown_scores: FloatArray, threshold: float) -> list[OpenSetRates]:
    """Return the rates at thresholds from 0 to 1, in equal steps, and at the classifier's own; scores are (N,)."""
    thresholds = np.union1d(np.linspace(0, 1, _OPEN_SET_STEPS + 1), threshold).tolist()
    return [
        OpenSetRates(each, float((known_scores >= each).mean()), float((unknown_scores >= each).mean()))
        for each in thresholds
    ]


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
