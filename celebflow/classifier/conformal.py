"""How unusual a score is: conformal p values (Vovk et al., 2005) among scores of what should not score high."""

import numpy as np

from celebflow.classifier.calibration import FloatArray


def compute_p_values(ascending: FloatArray, scores: FloatArray) -> FloatArray:
    """Return for (M,) scores the fraction of the (N,) ascending ones that are at least as high.

    The score itself counts as one of them, so that no p value is below 1 / (N + 1).
    """
    at_least = len(ascending) - np.searchsorted(ascending, scores, side="left")
    p_values: FloatArray = (1 + at_least) / (len(ascending) + 1)
    return p_values


def choose_threshold(ascending: FloatArray, rate: float) -> float:
    """Return the lowest score whose p value, among (N,) ascending scores, is at most this rate.

    Where there are too few scores for such a p value, it is just above all of them.
    """
    may_reach = max(0, int(np.floor(rate * (len(ascending) + 1))) - 1)
    return float(np.nextafter(ascending[-1 - may_reach], np.inf))
