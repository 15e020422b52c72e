"""The files of a result of verification: evaluate writes them; plot, DVC plots, MLflow and compare read them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from celebflow import paths
from celebflow.classifier.calibration import FloatArray, ReliabilityBin, bin_reliability, compute_calibration_error
from celebflow.classifier.history import EpochResult, load_history
from celebflow.classifier.verifier import load_verifier
from celebflow.classifier.verifier_training import score_split
from celebflow.data.pairs import Pair, load_folds, load_pairs
from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError
from celebflow.evaluation.folds import FoldScores, score_folds
from celebflow.evaluation.metrics import PersonMetrics, compute_precision_recalls, compute_rocs, compute_wilson_interval
from celebflow.evaluation.pair_metrics import compute_pair_intervals, compute_pair_metrics
from celebflow.evaluation.results import (
    PATH_SEPARATOR,
    REPORTED_SPLITS,
    Prediction,
    load_intervals,
    load_metrics,
    print_metrics,
    require_backbone,
    save_curves,
    save_json,
)
from celebflow.evaluation.significance import BOOTSTRAP_SEED, Interval
from celebflow.features.store import Features
from celebflow.params import ComputeParams

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


def evaluate_verifier(
    model_file: Path, features: Features, compute: ComputeParams, folder: Path
) -> dict[str, dict[str, float]]:
    """Evaluate the verifier in a file on the pairs of val and test, and by the k-fold protocol where there are folds.

    Writes the files of each to folder/<split>, those of the folds to folder/test/folds, and returns each one's metrics.
    `compute` is not used: scores are computed on the CPU.

    Raises CelebflowError when the verifier was trained on the features of another backbone.
    """
    verifier = load_verifier(model_file)
    require_backbone(verifier.card.backbone, features, "verifier")
    pairs = load_pairs(paths.PAIRS)
    metrics = {}
    for split in REPORTED_SPLITS:
        scores, _ = score_split(verifier, features, pairs, split)
        log_odds = verifier.card.calibration.compute_log_odds(scores)
        chosen = [pair for pair in pairs if pair.split == split]
        metrics[split] = save_pair_report(log_odds, chosen, features, _place(folder, split))
    if fold_of := load_folds(paths.FOLDS):
        folds = score_folds(verifier.card, features, [pair for pair in pairs if pair.fold], fold_of)
        metrics[FOLDS] = _report_folds(folds, features, _place(folder, FOLDS))
    for split, values in metrics.items():
        print_metrics(split, values)
    if warning := features.origin.backbone.warning():
        print(warning)
    return metrics


def _place(folder: Path, split: str) -> Path:
    return folder / "test" / FOLDS if split == FOLDS else folder / split


def _report_folds(folds: Sequence[FoldScores], features: Features, folder: Path) -> dict[str, float]:
    """Write the files of all folds together; the accuracy is the mean of the folds', with its standard error."""
    pairs = [pair for fold in folds for pair in fold.pairs]
    metrics = save_pair_report(np.concatenate([fold.log_odds for fold in folds]), pairs, features, folder)
    accuracies = [float(((fold.log_odds >= 0) == fold.same).mean()) for fold in folds]
    metrics["accuracy"] = float(np.mean(accuracies))
    metrics["standard_error"] = float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies)))
    return metrics


def save_pair_report(log_odds: FloatArray, pairs: Sequence[Pair], features: Features, folder: Path) -> dict[str, float]:
    """Write the results of pairs, with their (P,) log odds, to `folder`, and return their metrics."""
    person_of = {photo.path: photo.person for photo in features.photos}
    same = np.array([bool(pair.same) for pair in pairs])
    names = [(person_of[pair.first], person_of[pair.second]) for pair in pairs]
    numbers = np.unique(names, return_inverse=True)[1].reshape(-1, 2)
    both = np.stack([-log_odds, log_odds], axis=1)  # (P, 2): different, same
    probabilities = expit(both)
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
    save_rows(PairPrediction, predictions, folder / "predictions.csv")
    save_rows(PersonMetrics, _measure_people(predictions), folder / "people.csv")
    save_rows(ReliabilityBin, bins, folder / "reliability_calibrated.csv")
    for kind, compute in (("roc", compute_rocs), ("precision_recall", compute_precision_recalls)):
        curve = compute(both, same.astype(np.int64), [DIFFERENT, SAME]).people[-1]
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
        splits = {split: _load_pair_report(_place(folder, split)) for split in loaded}
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
