"""Scores of pairs → the probability that both photographs show the same person; fitted on val."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from celebflow.classifier.calibration import FloatArray, format_confidence, require_finite_scores


@dataclass(frozen=True)
class PairCalibration:
    """What turns a score into the probability that both photographs show the same person; fitted on val.

    The probability is the logistic function of `slope` · score + `offset`, moved towards 0.5 until neither answer's
    exceeds `max_probability`; both answers are equally likely before the photographs are seen. A pair is the same
    person where it is at least 0.5. On val, the fraction `false_match_rate` of pairs of two people reached that, and
    the fraction `false_non_match_rate` of pairs of the same person did not.

    Raises ValueError when one of them is not a number that can be used so.
    """

    slope: float
    offset: float
    max_probability: float
    false_match_rate: float
    false_non_match_rate: float

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite, as a damaged file could hold."""
        if not (self.slope > 0 and 0.5 < self.max_probability <= 1 and np.isfinite(list(asdict(self).values())).all()):
            raise ValueError(f"{self} is not a valid calibration")

    def compute_log_odds(self, scores: NDArray[np.floating]) -> FloatArray:
        """Return the (N,) logarithms of the odds, which tell apart probabilities that round to 1.

        Raises CelebflowError when a score is not finite.
        """
        require_finite_scores(scores)
        log_odds: FloatArray = self.slope * np.asarray(scores, np.float64) + self.offset
        if self.max_probability == 1:
            return log_odds
        # In logarithms: a probability near 1 still differs from one that is nearer.
        least, factor = np.log(1 - self.max_probability), np.log(2 * self.max_probability - 1)
        of_same = np.logaddexp(least, factor + log_expit(log_odds))
        of_different = np.logaddexp(least, factor + log_expit(-log_odds))
        bounded: FloatArray = of_same - of_different
        return bounded


def compute_pair_loss(log_odds: FloatArray, same: NDArray[np.bool_]) -> float:
    """Return the mean cross-entropy of P pairs with these (P,) log odds."""
    return float(np.logaddexp(0, np.where(same, -log_odds, log_odds)).mean())


def format_probability(log_odds: float) -> str:
    """Write the probability of the same person in percent, with as many digits as tell it apart from 0 and 1."""
    return format_confidence(float(expit(log_odds)), (0.0, 100.0))
