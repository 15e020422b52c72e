"""How well known and unknown people are told apart: rates, their intervals, and the curve of one by the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import Calibration, FloatArray
from celebflow.data.photos import UNKNOWN
from celebflow.evaluation.significance import (
    BOOTSTRAP_SEED,
    Interval,
    compute_percentiles,
    count_below,
    draw_weights,
    weigh_accuracy,
)
from celebflow.features.store import Features, LabeledFeatures

if TYPE_CHECKING:
    from celebflow.classifier.gallery import Gallery, LeftOutMatches

_CURVE_POINTS = 200
# The false acceptance rates that are reported, whatever the classifier's own is: the ends of their metrics' names.
_RATES = {"5_percent": 0.05, "1_percent": 0.01}


@dataclass(frozen=True)
class OpenSetRates:
    """What is expected at a threshold: the fractions of unknown and of known people's photographs that reach it.

    `identified` is the fraction of known people's photographs that reach it and whose prediction is right: the
    detection and identification rate (Phillips et al., 2011).
    """

    false_acceptance_rate: float
    coverage: float
    identified: float


@dataclass(frozen=True, eq=False)
class UnknownPeople:
    """What becomes of unknown people's photographs, the same for every split: metrics, and their intervals.

    `folder_p_values` (M,) are those of the photographs of prepare.unknown_folder.
    """

    metrics: dict[str, float]
    intervals: dict[str, Interval]
    folder_p_values: FloatArray


@dataclass(frozen=True, eq=False)
class OpenSetResult:
    """What a split says of known and unknown people: metrics with intervals, a curve, and (N,) p values.

    A p value is the fraction of unknown people's photographs that match at least as well as one of the split.
    """

    metrics: dict[str, float]
    intervals: dict[str, Interval]
    curve: list[OpenSetRates]
    p_values: FloatArray


def measure_unknown_people(gallery: "Gallery", features: Features, calibration: Calibration) -> UnknownPeople:
    """Measure the people who were left out while the gallery was fitted, and those of prepare.unknown_folder, if any.

    The former are cross-validated: the photographs of each fold of people meet the threshold of the other folds.
    Intervals resample people.
    """
    left_out = gallery.left_out
    accepted = {"false_acceptance_rate": _accept_left_out(left_out, calibration.false_acceptance_rate)}
    for name, rate in _RATES.items():
        accepted[f"measured_far_at_{name}"] = _accept_left_out(left_out, rate)
    _, people = np.unique(left_out.people, return_inverse=True)
    metrics, intervals = _average(accepted), _resample(accepted, people)
    rows = features.find_rows(UNKNOWN)
    if not len(rows):
        return UnknownPeople(metrics, intervals, np.empty(0))
    matches = gallery.match_rows(features, rows)
    reached = matches >= left_out.choose_threshold(calibration.false_acceptance_rate)
    metrics["unknown_folder_far"] = float(reached.mean())
    intervals["unknown_folder_far"] = measure_interval(reached, [features.photos[row].person for row in rows])
    return UnknownPeople(metrics, intervals, left_out.compute_p_values(matches))


def measure_open_set(
    gallery: "Gallery",
    examples: LabeledFeatures,
    hits: NDArray[np.bool_],
    groups: NDArray[np.int64],
    calibration: Calibration,
    unknown: UnknownPeople,
) -> OpenSetResult:
    """Measure the N photographs of a split against unknown people.

    `hits` (N,) says whether the prediction is right. Intervals resample the (N,) groups of near-duplicates.
    """
    left_out = gallery.left_out
    matches = gallery.match_rows(examples.features, examples.rows)
    fractions = {"coverage": matches >= left_out.choose_threshold(calibration.false_acceptance_rate)}
    for name, rate in _RATES.items():
        reached = matches >= left_out.choose_threshold(rate)
        fractions[f"coverage_at_far_{name}"] = reached
        fractions[f"dir_at_far_{name}"] = reached & hits
    p_values = left_out.compute_p_values(matches)
    metrics = _average(fractions) | unknown.metrics | {"open_set_auc": compute_auc(matches, left_out.scores)}
    if len(unknown.folder_p_values):
        metrics["unknown_folder_auc"] = compute_auc(-p_values, -unknown.folder_p_values)
    intervals = _resample(fractions, groups) | unknown.intervals
    return OpenSetResult(metrics, intervals, _trace(p_values, hits, len(left_out.scores)), p_values)


def _average(fractions: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    return {name: float(reached.mean()) for name, reached in fractions.items()}


def _accept_left_out(left_out: "LeftOutMatches", rate: float) -> NDArray[np.bool_]:
    """Return for each photograph whether it reaches the threshold that the people of the other folds give."""
    accepted = np.zeros(len(left_out.scores), bool)
    for fold in np.unique(left_out.folds).tolist():
        own = left_out.folds == fold
        accepted[own] = left_out.scores[own] >= left_out.choose_threshold(rate, fold)
    return accepted


def _resample(fractions: Mapping[str, NDArray[np.bool_]], groups: NDArray[np.int64]) -> dict[str, Interval]:
    """Return the interval of each fraction of N photographs, by (N,) groups."""
    blocks: dict[str, list[FloatArray]] = {name: [] for name in fractions}
    for weights in draw_weights(groups, BOOTSTRAP_SEED):
        for name, reached in fractions.items():
            blocks[name].append(weigh_accuracy(reached, weights))
    resampled = {name: np.concatenate(values) for name, values in blocks.items()}
    return compute_percentiles(resampled, int(groups.max()) + 1)


def measure_interval(reached: NDArray[np.bool_], people: Sequence[str]) -> Interval:
    """Return the interval of the fraction of N photographs that reach a threshold; it resamples their people.

    The photographs of one person say nothing about other people: the interval is from 0 to 1.
    """
    names, numbers = np.unique(people, return_inverse=True)
    if len(names) == 1:
        return Interval(0.0, 1.0)
    return _resample({"": reached}, numbers)[""]


def compute_auc(known: FloatArray, unknown: FloatArray) -> float:
    """Return the fraction of pairs of a known and an unknown person's photograph in which the former matches better."""
    return float(count_below(np.sort(unknown), known).mean() / len(unknown))


def _trace(p_values: FloatArray, hits: NDArray[np.bool_], left_out_count: int) -> list[OpenSetRates]:
    """Return the rates at false acceptance rates from the least that can be judged to 1, in equal ratios."""
    rates = np.geomspace(1 / (left_out_count + 1), 1, _CURVE_POINTS)
    rates[-1] = 1.0  # all photographs reach it, without rounding
    return [
        OpenSetRates(rate, float((p_values <= rate).mean()), float(((p_values <= rate) & hits).mean()))
        for rate in rates.tolist()
    ]
