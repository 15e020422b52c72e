"""The files of a result of verification: evaluate writes them; plot, DVC plots, MLflow and compare read them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from celebflow.classifier.calibration import FloatArray, ReliabilityBin, bin_reliability, compute_calibration_error
from celebflow.classifier.history import EpochResult, load_history
from celebflow.data.pairs import Pair
from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError
from celebflow.evaluation.curves import trace_both
from celebflow.evaluation.metrics import PersonMetrics, compute_wilson_interval
from celebflow.evaluation.pair_metrics import compute_pair_intervals, compute_pair_metrics
from celebflow.evaluation.results import (
    PATH_SEPARATOR,
    Prediction,
    load_intervals,
    load_metrics,
    save_curves,
    save_json,
    save_predictions,
)
from celebflow.evaluation.significance import BOOTSTRAP_SEED, Interval
from celebflow.features.store import Features

SAME, DIFFERENT = "same", "different"
# The pairs of all folds, each compared by a model of the other folds; reported beside the splits.
FOLDS = "folds"


@dataclass(frozen=True)
class PairPrediction(Prediction):
    """The verifier's answer for a pair: `actual` and `predicted` are "same" or "different".

    `log_odds` are those of the same person, which tell apart confidences that round to 1.
    """

    first: str
    second: str
    log_odds: float


@dataclass(frozen=True)
class PairReport:
    """What figures and page need from the pairs of one split, or of all folds."""

    predictions: list[PairPrediction]
    people: list[PersonMetrics]
    intervals: dict[str, Interval]
    reliability: list[ReliabilityBin]

    @property
    def log_odds(self) -> FloatArray:
        """Return the (P,) log odds."""
        return np.array([prediction.log_odds for prediction in self.predictions])

    @property
    def same(self) -> NDArray[np.bool_]:
        """Return for each pair whether it shows the same person."""
        return np.array([prediction.actual == SAME for prediction in self.predictions])

    def list_errors(self, actual: str) -> list[PairPrediction]:
        """Return the wrong predictions for pairs of one kind, the most confident first."""
        wrong = [each for each in self.predictions if each.actual == actual and not each.is_hit]
        return sorted(wrong, key=lambda each: (-abs(each.log_odds), each.path))


@dataclass(frozen=True)
class VerificationReport:
    """What figures and page need from a result; the keys of `splits` are val, test and, with folds, folds."""

    history: list[EpochResult]
    metrics: dict[str, dict[str, float]]
    splits: dict[str, PairReport]


def place_split(folder: Path, split: str) -> Path:
    """Return the folder of the files of a split, or of all folds, in that of the reports."""
    return folder / "test" / FOLDS if split == FOLDS else folder / split


def save_pair_report(log_odds: FloatArray, pairs: Sequence[Pair], features: Features, folder: Path) -> dict[str, float]:
    """Write the results of pairs, with their (P,) log odds, to `folder`, and return their metrics."""
    person_of = {photo.path: photo.person for photo in features.photos}
    same = np.array([bool(pair.same) for pair in pairs])
    names = [(person_of[pair.first], person_of[pair.second]) for pair in pairs]
    numbers = np.unique(names, return_inverse=True)[1].reshape(-1, 2)
    probabilities = expit(np.stack([-log_odds, log_odds], axis=1))  # (P, 2): different, same
    predictions = []
    for pair, (person, _), odds, row in zip(pairs, names, log_odds, probabilities, strict=True):
        actual, predicted = (SAME if each else DIFFERENT for each in (pair.same, odds >= 0))
        path = PATH_SEPARATOR.join((pair.first, pair.second))
        confidence, of_actual = float(row.max()), float(row[pair.same])
        prediction = PairPrediction(
            path, person, actual, predicted, confidence, of_actual, pair.first, pair.second, float(odds)
        )
        predictions.append(prediction)
    bins = bin_reliability(probabilities, same.astype(np.int64))
    intervals = compute_pair_intervals(log_odds, same, numbers, BOOTSTRAP_SEED)
    save_predictions(PairPrediction, predictions, [DIFFERENT, SAME], folder)
    save_rows(PersonMetrics, _measure_people(predictions), folder / "people.csv")
    save_rows(ReliabilityBin, bins, folder / "reliability_calibrated.csv")
    for kind, curve in zip(("roc", "precision_recall"), trace_both(SAME, same, log_odds), strict=True):
        save_curves(kind, "macro", [curve], folder)
    save_json({name: asdict(interval) for name, interval in intervals.items()}, folder / "intervals.json")
    return {**compute_pair_metrics(log_odds, same), "calibration_error": compute_calibration_error(bins)}


def _measure_people(predictions: Sequence[PairPrediction]) -> list[PersonMetrics]:
    """Return for each person the fraction of pairs of the person that are recognized as such, as recall."""
    same = [prediction for prediction in predictions if prediction.actual == SAME]
    supports = Counter(prediction.group for prediction in same)
    hits = Counter(prediction.group for prediction in same if prediction.is_hit)
    return [
        PersonMetrics(
            person,
            support,
            None,
            hits[person] / support,
            *compute_wilson_interval(hits[person], support),
            None,
            None,
            None,
        )
        for person, support in sorted(supports.items())
    ]


def load_verification_report(history: Path, metrics: Path, folder: Path) -> VerificationReport:
    """Read history.csv, all_metrics.json, and what save_pair_report wrote.

    Raises CelebflowError when a file or a column is missing, as in the results of another task.
    """
    try:
        loaded = load_metrics(metrics)
        splits = {split: _load_pair_report(place_split(folder, split)) for split in loaded}
        return VerificationReport(load_history(history), loaded, splits)
    except FileNotFoundError as error:
        raise CelebflowError(f"{error.filename} is missing: the result is not whole. Run `dvc repro`.") from None


def _load_pair_report(folder: Path) -> PairReport:
    return PairReport(
        predictions=load_rows(PairPrediction, folder / "predictions.csv", may_be_empty=False),
        people=load_rows(PersonMetrics, folder / "people.csv", may_be_empty=False),
        intervals=load_intervals(folder / "intervals.json"),
        reliability=load_rows(ReliabilityBin, folder / "reliability_calibrated.csv", may_be_empty=False),
    )
