"""Scores of pairs → rates, their summary and its intervals; pure functions, with the names of ISO/IEC 19795-1."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.pair_calibration import compute_pair_loss
from celebflow.evaluation.significance import Interval, compute_percentiles, draw_weights

# The false match rates at which the true match rate is reported, by the name of the metric.
FALSE_MATCH_RATES = {"tmr_at_fmr_1_percent": 0.01, "tmr_at_fmr_0_1_percent": 0.001}
_MIN_PEOPLE = 3  # whose resamples differ


@dataclass(frozen=True)
class Rates:
    """Rates at each of T thresholds, from one that nothing reaches down to one that everything reaches.

    `false_matches` is the fraction of pairs of two people whose score reaches the threshold (false match rate, FMR),
    `true_matches` that of pairs of the same person (true match rate; one less it is the false non-match rate, FNMR).
    Both are (resamples, T).
    """

    false_matches: FloatArray
    true_matches: FloatArray

    def compute_auc(self) -> FloatArray:
        """Return the (resamples,) areas under the curve of true against false match rates."""
        widths = np.diff(self.false_matches, axis=1)
        area: FloatArray = (widths * (self.true_matches[:, 1:] + self.true_matches[:, :-1]) / 2).sum(axis=1)
        return area

    def compute_equal_error_rate(self) -> FloatArray:
        """Return the (resamples,) rates where FMR and FNMR are equal, interpolated between thresholds."""
        gaps = self.false_matches - (1 - self.true_matches)  # ascending, from -1 to 1
        after = np.argmax(gaps >= 0, axis=1)[:, None]
        low, high = (np.take_along_axis(gaps, places, 1) for places in (after - 1, after))
        part = -low / (high - low)
        before_rate, after_rate = (np.take_along_axis(self.false_matches, at, 1) for at in (after - 1, after))
        rate: FloatArray = (before_rate + part * (after_rate - before_rate))[:, 0]
        return rate

    def find_true_match_rate(self, false_match_rate: float) -> FloatArray:
        """Return the (resamples,) highest true match rates at which the false match rate is at most this."""
        allowed = (self.false_matches <= false_match_rate).sum(axis=1)[:, None] - 1
        found: FloatArray = np.take_along_axis(self.true_matches, allowed, 1)[:, 0]
        return found


def trace_rates(scores: FloatArray, same: NDArray[np.bool_], weights: FloatArray | None = None) -> Rates:
    """Return the rates of P pairs at every threshold that makes a difference, under each row of (resamples, P) weights.

    Without weights, there is one row, in which all pairs weigh the same. In each row, both kinds must have weight.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores share a threshold
    weights = np.ones((1, len(scores))) if weights is None else weights
    sorted_weights, sorted_same = weights[:, order], same[order]
    rates = []
    for kind in (~sorted_same, sorted_same):
        reached = np.cumsum(sorted_weights * kind, axis=1)[:, ends]
        reached = reached / reached[:, -1:]
        rates.append(np.concatenate([np.zeros((len(reached), 1)), reached], axis=1))
    return Rates(*rates)


def compute_pair_metrics(log_odds: FloatArray, same: NDArray[np.bool_]) -> dict[str, float]:
    """Return the metrics of P pairs from their (P,) log odds; log odds of 0 or more are a match."""
    rates = trace_rates(log_odds, same)
    matches = log_odds >= 0
    return {
        "accuracy": float((matches == same).mean()),
        "auc": float(rates.compute_auc()[0]),
        "equal_error_rate": float(rates.compute_equal_error_rate()[0]),
        **{name: float(rates.find_true_match_rate(rate)[0]) for name, rate in FALSE_MATCH_RATES.items()},
        "false_match_rate": float(matches[~same].mean()),
        "false_non_match_rate": float((~matches[same]).mean()),
        "loss": compute_pair_loss(log_odds, same),
    }


def compute_pair_intervals(
    log_odds: FloatArray,
    same: NDArray[np.bool_],
    people: NDArray[np.int64],
    seed: int,
) -> dict[str, Interval]:
    """Return intervals by compute_percentiles; people are drawn, not pairs: pairs that share one are alike.

    `people` (P, 2) numbers both people of each pair from 0, as draw_weights takes them. Resamples without pairs of both
    kinds, as few people make, are left out. Of two people, only resamples that hold both would remain, which are all
    alike: there are no intervals.
    """
    person_count = int(people.max()) + 1
    if person_count < _MIN_PEOPLE:
        return {}
    blocks: list[dict[str, FloatArray]] = []
    for weights in draw_weights(people, seed):
        weights = weights[(weights[:, same].sum(axis=1) > 0) & (weights[:, ~same].sum(axis=1) > 0)]
        rates = trace_rates(log_odds, same, weights)
        blocks.append(
            {
                "accuracy": weights @ ((log_odds >= 0) == same) / weights.sum(axis=1),
                "auc": rates.compute_auc(),
                "equal_error_rate": rates.compute_equal_error_rate(),
                **{name: rates.find_true_match_rate(rate) for name, rate in FALSE_MATCH_RATES.items()},
            }
        )
    resampled = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return compute_percentiles(resampled, person_count)
