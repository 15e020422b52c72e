"""Logits of attributes → probabilities of yes, and thresholds from which the answer is yes; fitted on val."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from celebflow.classifier.calibration import FloatArray, fit_logistic, require_finite_scores
from celebflow.data.attributes import BLANK, YES

ThresholdKind = Literal["accuracy", "balanced_accuracy"]
THRESHOLD_KINDS: tuple[ThresholdKind, ...] = ("accuracy", "balanced_accuracy")
# An answer is uncertain where the odds of yes are within this factor of those at the threshold: between probabilities
# of 0.3 and 0.7 where the threshold is 0.5.
UNCERTAIN_ODDS = 7 / 3


@dataclass(frozen=True)
class AttributeCalibration:
    """What turns the logits of A attributes into probabilities and answers; one value per attribute in each field.

    The probability of yes is the logistic function of `slopes` · logit + `offsets`, moved towards 0.5 until neither
    answer's exceeds `max_probabilities`. The answer is yes from a threshold on: `accuracy_thresholds`
    are for the highest accuracy, `balanced_thresholds` for the highest mean of the recalls of yes and of no. `used`
    says which apply.

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
            raise ValueError("its numbers are not a valid calibration")
        bounds, slopes = np.array(self.max_probabilities), np.array(self.slopes)
        thresholds = np.array([*self.accuracy_thresholds, *self.balanced_thresholds])
        finite = np.isfinite(np.array(list(values.values()), float)).all()
        if not (finite and (slopes > 0).all() and ((bounds >= 0.5) & (bounds <= 1)).all()):
            raise ValueError("its numbers are not a valid calibration")
        if not ((thresholds > 0) & (thresholds < 1)).all():
            raise ValueError("its numbers are not a valid calibration")

    @property
    def thresholds(self) -> FloatArray:
        """Return the (A,) probabilities from which the answer is yes."""
        return self.select_thresholds(self.used)

    def select_thresholds(self, kind: ThresholdKind) -> FloatArray:
        """Return the (A,) thresholds of a kind."""
        return np.array(self.accuracy_thresholds if kind == "accuracy" else self.balanced_thresholds)

    def compute_probabilities(self, logits: NDArray[np.floating]) -> FloatArray:
        """Turn (N, A) logits into probabilities of yes; raise CelebflowError when a logit is not finite."""
        require_finite_scores(logits)
        fitted = expit(np.array(self.slopes) * np.asarray(logits, np.float64) + np.array(self.offsets))
        probabilities: FloatArray = 0.5 + (2 * np.array(self.max_probabilities) - 1) * (fitted - 0.5)
        return probabilities

    def find_uncertain(self, probabilities: FloatArray) -> NDArray[np.bool_]:
        """Return for (N, A) probabilities whether each is near its threshold."""
        with np.errstate(divide="ignore"):  # a probability can be 0 or 1 where nothing bounds it
            distances = np.abs(logit(probabilities) - logit(self.thresholds))
        uncertain: NDArray[np.bool_] = distances < np.log(UNCERTAIN_ODDS)
        return uncertain


def fit_attribute_calibration(
    logits: NDArray[np.floating], labels: NDArray[np.int64], used: ThresholdKind
) -> AttributeCalibration:
    """Fit the calibration to the (N, A) logits and labels of val; blanks do not count.

    N known labels show no more than a probability of (N + 1) / (N + 2), by Laplace's rule of succession.

    Calibrated probabilities say which thresholds are best on photographs like those of val: 0.5 for accuracy, and the
    fraction of yes for balanced accuracy. On other photographs, they do better than the thresholds that happen to make
    a metric highest on val, which follow single photographs.

    Raises CelebflowError when a logit is not finite.
    """
    require_finite_scores(logits)
    slopes, offsets, bounds, fractions = [], [], [], []
    for attribute in range(labels.shape[1]):
        known = labels[:, attribute] != BLANK
        scores, actual = logits[known, attribute].astype(np.float64), labels[known, attribute] == YES
        count = len(actual)
        slope, offset = fit_logistic(scores, actual, np.full(count, 1 / count)) if count else (1.0, 0.0)
        bound = (count + 1) / (count + 2)
        fractions.append((float(actual.sum()) + 1) / (count + 2))
        slopes.append(slope)
        offsets.append(offset)
        bounds.append(bound)
    return AttributeCalibration(
        slopes=tuple(slopes),
        offsets=tuple(offsets),
        max_probabilities=tuple(bounds),
        accuracy_thresholds=(0.5,) * labels.shape[1],
        balanced_thresholds=tuple(fractions),
        used=used,
    )
