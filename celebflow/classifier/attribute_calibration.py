"""Logits of attributes → probabilities of yes, and thresholds from which the answer is yes; fitted on val."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from celebflow.classifier.calibration import FloatArray, fit_logistic
from celebflow.data.attributes import BLANK, YES

ThresholdKind = Literal["accuracy", "balanced_accuracy"]
THRESHOLD_KINDS: tuple[ThresholdKind, ...] = ("accuracy", "balanced_accuracy")
# An answer is uncertain where the odds of yes are within this factor of those at the threshold: between probabilities
# of 0.3 and 0.7 where the threshold is 0.5.
_UNCERTAIN_ODDS = 7 / 3


@dataclass(frozen=True)
class AttributeCalibration:
    """What turns the logits of A attributes into probabilities and answers; one value per attribute in each field.

    The probability of yes is the logistic function of `slopes` · logit + `offsets`, moved towards 0.5 until neither
    answer's exceeds `max_probabilities`. The answer is yes from a threshold on: `accuracy_thresholds` make the accuracy
    on val highest, `balanced_thresholds` the mean of the recalls of yes and of no. `used` says which of them apply.

    Raises ValueError when one of them is not a number that can be used so, or their counts differ.
    """

    slopes: tuple[float, ...]
    offsets: tuple[float, ...]
    max_probabilities: tuple[float, ...]
    accuracy_thresholds: tuple[float, ...]
    balanced_thresholds: tuple[float, ...]
    used: ThresholdKind

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite, as a damaged file could hold."""
        values = asdict(self)
        if values.pop("used") not in THRESHOLD_KINDS or len({len(each) for each in values.values()}) != 1:
            raise ValueError(f"{self} is not a valid calibration")
        bounds, slopes = np.array(self.max_probabilities), np.array(self.slopes)
        thresholds = np.array([*self.accuracy_thresholds, *self.balanced_thresholds])
        finite = np.isfinite(np.array(list(values.values()), float)).all()
        if not (finite and (slopes > 0).all() and ((bounds >= 0.5) & (bounds <= 1)).all()):
            raise ValueError(f"{self} is not a valid calibration")
        if not ((thresholds > 0) & (thresholds < 1)).all():
            raise ValueError(f"{self} is not a valid calibration")

    @property
    def thresholds(self) -> FloatArray:
        """Return the (A,) probabilities from which the answer is yes."""
        return self.select_thresholds(self.used)

    def select_thresholds(self, kind: ThresholdKind) -> FloatArray:
        """Return the (A,) thresholds of a kind."""
        return np.array(self.accuracy_thresholds if kind == "accuracy" else self.balanced_thresholds)

    def compute_probabilities(self, logits: NDArray[np.floating]) -> FloatArray:
        """Turn (N, A) logits into probabilities of yes."""
        fitted = expit(np.array(self.slopes) * np.asarray(logits, np.float64) + np.array(self.offsets))
        probabilities: FloatArray = 0.5 + (2 * np.array(self.max_probabilities) - 1) * (fitted - 0.5)
        return probabilities

    def find_uncertain(self, probabilities: FloatArray) -> NDArray[np.bool_]:
        """Return for (N, A) probabilities whether each is near its threshold."""
        with np.errstate(divide="ignore"):  # a probability can be 0 or 1 where nothing bounds it
            distances = np.abs(logit(probabilities) - logit(self.thresholds))
        uncertain: NDArray[np.bool_] = distances < np.log(_UNCERTAIN_ODDS)
        return uncertain


def fit_attribute_calibration(
    logits: NDArray[np.floating], labels: NDArray[np.int64], used: ThresholdKind
) -> AttributeCalibration:
    """Fit the calibration to the (N, A) logits and labels of val; blanks do not count.

    N known labels show no more than a probability of (N + 1) / (N + 2), by Laplace's rule of succession.
    """
    slopes, offsets, bounds = [], [], []
    thresholds: dict[ThresholdKind, list[float]] = {kind: [] for kind in THRESHOLD_KINDS}
    for attribute in range(labels.shape[1]):
        known = labels[:, attribute] != BLANK
        scores, actual = logits[known, attribute].astype(np.float64), labels[known, attribute] == YES
        count = len(actual)
        slope, offset = fit_logistic(scores, actual, np.full(count, 1 / count)) if count else (1.0, 0.0)
        bound = (count + 1) / (count + 2)
        fitted = AttributeCalibration((slope,), (offset,), (bound,), (0.5,), (0.5,), used)
        probabilities = fitted.compute_probabilities(scores[:, None])[:, 0]
        for kind, chosen in thresholds.items():
            chosen.append(choose_threshold(probabilities, actual, kind))
        slopes.append(slope)
        offsets.append(offset)
        bounds.append(bound)
    return AttributeCalibration(
        slopes=tuple(slopes),
        offsets=tuple(offsets),
        max_probabilities=tuple(bounds),
        accuracy_thresholds=tuple(thresholds["accuracy"]),
        balanced_thresholds=tuple(thresholds["balanced_accuracy"]),
        used=used,
    )


def choose_threshold(probabilities: FloatArray, actual: NDArray[np.bool_], kind: ThresholdKind) -> float:
    """Return the probability from which the answer is yes so that a metric is highest on N photographs.

    Of thresholds that are equally good, it is the one that is nearest to what calibrated probabilities call for: 0.5
    for accuracy, and the fraction of yes for balanced accuracy.
    """
    if kind == "accuracy" or actual.all() or not actual.any():
        expected, weight_of_yes, weight_of_no = 0.5, 1.0, 1.0
    else:
        expected, weight_of_yes, weight_of_no = float(actual.mean()), 1 / actual.sum(), 1 / (~actual).sum()
    order = np.argsort(probabilities)
    ascending = probabilities[order]
    # A threshold that moves up past a photograph loses a yes, or gains a no.
    gains = np.where(actual[order], -weight_of_yes, weight_of_no)
    totals = np.concatenate([[0.0], np.cumsum(gains)])
    places = np.concatenate([[0.0], ascending, [1.0]])
    low, high = places[:-1], places[1:]  # of each threshold's place, between two photographs
    best = (low < high) & (totals >= totals[low < high].max() - 1e-9)
    thresholds = np.where((low < expected) & (expected <= high), expected, (low + high) / 2)[best]
    return float(thresholds[np.abs(thresholds - expected).argmin()])
