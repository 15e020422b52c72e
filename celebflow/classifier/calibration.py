"""How sure the classifier may be: temperature, reliability, and from where on it knows a photograph; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_OPEN_SET_STEPS = 200


@dataclass(frozen=True)
class Calibration:
    """What turns logits into an answer; fitted on validation and saved with the classifier.

    Logits are divided by `temperature`. A photograph whose greatest probability lies below `threshold` shows nobody
    whom the classifier knows; of strangers, `false_acceptance_rate` are expected to lie above.
    """

    temperature: float
    threshold: float
    false_acceptance_rate: float


UNCALIBRATED = Calibration(temperature=1.0, threshold=0.0, false_acceptance_rate=1.0)


def softmax(logits: NDArray[np.floating]) -> FloatArray:
    """Turn (N, people) logits into probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def compute_loss(probabilities: FloatArray, labels: NDArray[np.int64]) -> float:
    """Return the mean cross-entropy of (N, people) probabilities."""
    picked = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(picked, np.finfo(np.float64).tiny)).mean())


def fit_calibration(
    logits: NDArray[np.floating], labels: NDArray[np.int64], false_acceptance_rate: float
) -> Calibration:
    """Fit temperature and threshold to (N, people) logits and (N,) labels; those of validation, for it chooses."""
    temperature = fit_temperature(logits, labels)
    if logits.shape[1] < 3:  # without one of two people, only one is left to take anybody for
        return Calibration(temperature, UNCALIBRATED.threshold, UNCALIBRATED.false_acceptance_rate)
    scores = score_unknown(logits / temperature, labels)
    return Calibration(temperature, choose_threshold(scores, false_acceptance_rate), false_acceptance_rate)


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the temperature that (N, people) logits are best divided by: the one of the least loss.

    Temperature scaling of Guo et al., 2017. Fit it on validation: it chooses.
    """
    from scipy.optimize import minimize_scalar

    if (logits.argmax(axis=1) == labels).all():  # without a mistake, the least loss would be at no temperature at all
        return UNCALIBRATED.temperature

    def loss(log_temperature: float) -> float:
        return compute_loss(softmax(logits / np.exp(log_temperature)), labels)

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-6}).x))


def score_unknown(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> FloatArray:
    """Return the greatest probability of each photograph, (N,), as if the classifier had no output for its person.

    Who is in it is then a stranger to all people that are left. It takes three people and more. It has been taught
    with that person nonetheless, so that real strangers may score otherwise.
    """
    others = np.arange(logits.shape[1]) != labels[:, None]
    rest = logits[others].reshape(len(labels), -1)
    scores: FloatArray = softmax(rest).max(axis=1)
    return scores


def choose_threshold(scores: FloatArray, false_acceptance_rate: float) -> float:
    """Return the least threshold that at most such a share of strangers' (N,) scores reaches, but never above 1.

    What is entirely sure is named in any case, and so are strangers who score 1.
    """
    accepted = int(np.floor(false_acceptance_rate * len(scores)))
    if accepted >= len(scores):
        return 0.0
    return min(1.0, float(np.nextafter(np.sort(scores)[::-1][accepted], np.inf)))


@dataclass(frozen=True)
class OpenSetRates:
    """The fractions of photographs of known and of unknown people whose confidence reaches a threshold."""

    threshold: float
    known: float
    unknown: float


def trace_open_set(known_scores: FloatArray, unknown_scores: FloatArray, threshold: float) -> list[OpenSetRates]:
    """Return the fractions at thresholds from 0 to 1, in equal steps, and at the classifier's own.

    Both scores are (N,) confidences.
    """
    thresholds = np.union1d(np.linspace(0, 1, _OPEN_SET_STEPS + 1), threshold)
    known, unknown = (
        (scores[:, None] >= thresholds).mean(axis=0).tolist() for scores in (known_scores, unknown_scores)
    )
    return [OpenSetRates(*row) for row in zip(thresholds.tolist(), known, unknown, strict=True)]


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
