"""The files of a result: what train and evaluate write, and plot, DVC plots and MLflow read."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celebflow.backbone.devices import select_device
from celebflow.backbone.vgg19 import BackboneSource
from celebflow.classifier.calibration import (
    OpenSetRates,
    ReliabilityBin,
    bin_reliability,
    compute_calibration_error,
    compute_loss,
    score_unknown,
    softmax,
    trace_open_set,
)
from celebflow.classifier.history import EpochResult, load_history
from celebflow.classifier.model import Classifier, ClassifierCard
from celebflow.classifier.training import compute_logits
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.evaluation.metrics import (
    Curve,
    PersonMetrics,
    compute_mean_precision_recalls,
    compute_mean_rocs,
    compute_metrics,
    compute_person_metrics,
    compute_person_precision_recalls,
    compute_person_rocs,
)
from celebflow.evaluation.significance import BOOTSTRAP_SEED, Interval, compute_intervals
from celebflow.features.store import Features, select_split
from celebflow.params import ComputeParams
from celebflow.tables import load_rows, load_table, save_rows, save_table

REPORTED_SPLITS = ("val", "test")
_BATCH_SIZE = 256


@dataclass(frozen=True)
class Prediction:
    """What the classifier says of one photograph: whom it names, and the probabilities of that and of who it is."""

    path: str
    group: str
    actual: str
    predicted: str
    confidence: float
    probability_of_actual: float

    @property
    def is_hit(self) -> bool:
        """Return whether it names who it is."""
        return self.actual == self.predicted


@dataclass(frozen=True)
class SplitReport:
    """What figures, page and comparison need of one split; its files stand in reports/<split>/.

    Mean curves are called "macro" and "micro"; the bins of `reliability`, "calibrated" and "uncalibrated".
    """

    predictions: list[Prediction]
    people: list[PersonMetrics]
    intervals: dict[str, Interval]
    mean_rocs: list[Curve]
    person_rocs: list[Curve]
    mean_precision_recalls: list[Curve]
    person_precision_recalls: list[Curve]
    reliability: dict[str, list[ReliabilityBin]]
    open_set: list[OpenSetRates]

    def errors(self) -> list[Prediction]:
        """Return the wrong predictions, the most confident first."""
        wrong = [prediction for prediction in self.predictions if not prediction.is_hit]
        return sorted(wrong, key=lambda prediction: (-prediction.confidence, prediction.path))

    def hits(self) -> list[Prediction]:
        """Return the right predictions, the least confident first."""
        right = [prediction for prediction in self.predictions if prediction.is_hit]
        return sorted(right, key=lambda prediction: (prediction.confidence, prediction.path))


@dataclass(frozen=True)
class Report:
    """What figures and page need of a result."""

    history: list[EpochResult]
    metrics: dict[str, dict[str, float]]
    splits: dict[str, SplitReport]


def save_metrics(metrics: dict[str, dict[str, float]], source: BackboneSource, path: Path) -> None:
    """Write metrics.json: split → figure → value, and a word of warning where the backbone is untrained."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {split: _rounded(figures) for split, figures in metrics.items()}
    if not source.trained:
        content = {"backbone": "UNTRAINED", **content}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}


def load_metrics(path: Path) -> dict[str, dict[str, float]]:
    """Read what save_metrics wrote, the word of warning left out."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {split: figures for split, figures in content.items() if isinstance(figures, dict)}


def report_splits(
    classifier: Classifier, features: Features, compute: ComputeParams, folder: Path
) -> dict[str, dict[str, float]]:
    """Classify val and test; write the files of each to folder/<split>, and return each one's headline figures.

    Raises CelebflowError when the classifier was taught on another backbone's features.
    """
    if classifier.card.backbone.fingerprint != features.origin.backbone.fingerprint:
        raise CelebflowError("The classifier was taught on another backbone's features. Run `dvc repro`.")
    device = select_device(compute.device)
    metrics = {}
    for split in REPORTED_SPLITS:
        examples = select_split(features, classifier.card.class_names, split)
        logits, labels = compute_logits(classifier.to(device), examples, _BATCH_SIZE)
        photos = [features.photos[row] for row in examples.rows]
        metrics[split] = save_split_report(logits, labels, photos, classifier.card, folder / split)
        print(f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics[split].items()))
    print(features.origin.backbone.warning(), end="\n" if features.origin.backbone.warning() else "")
    return metrics


def save_split_report(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    photos: Sequence[Photo],
    card: ClassifierCard,
    folder: Path,
) -> dict[str, float]:
    """Write what one split shows of a classifier to `folder`, and return its headline figures.

    `photos` are in the order of the (N, people) logits and (N,) labels. All figures are of the calibrated answer but
    for those that are called uncalibrated.
    """
    calibrated, class_names = logits / card.calibration.temperature, card.class_names
    probabilities, uncalibrated = softmax(calibrated), softmax(logits)
    predicted, confidences = logits.argmax(axis=1), probabilities.max(axis=1)
    predictions = (
        # Probabilities have all their digits: rounded, they could stand on the other side of the threshold.
        Prediction(photo.path, photo.group, class_names[label], class_names[guess], *row[[guess, label]].tolist())
        for photo, label, guess, row in zip(photos, labels, predicted, probabilities, strict=True)
    )
    save_rows(Prediction, predictions, folder / "predictions.csv")
    _, groups = np.unique([photo.group for photo in photos], return_inverse=True)
    intervals = compute_intervals(predicted, probabilities, labels, groups, BOOTSTRAP_SEED)
    content = {name: asdict(interval) for name, interval in intervals.items()}
    (folder / "intervals.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    rocs = compute_person_rocs(probabilities, labels, class_names)
    _save_curves(_ROC, rocs, compute_mean_rocs(rocs, probabilities, labels), folder)
    precision_recalls = compute_person_precision_recalls(probabilities, labels, class_names)
    mean_precision_recalls = compute_mean_precision_recalls(precision_recalls, probabilities, labels)
    _save_curves(_PRECISION_RECALL, precision_recalls, mean_precision_recalls, folder)
    people = compute_person_metrics(predicted, labels, class_names, rocs, precision_recalls)
    save_rows(PersonMetrics, people, folder / "people.csv")
    bins = bin_reliability(probabilities, labels)
    uncalibrated_bins = bin_reliability(uncalibrated, labels)
    save_rows(ReliabilityBin, bins, folder / "reliability_calibrated.csv")
    save_rows(ReliabilityBin, uncalibrated_bins, folder / "reliability_uncalibrated.csv")
    threshold = card.calibration.threshold
    has_unknown = len(class_names) > 2  # of two people, leaving one out leaves nothing to choose from
    open_set = trace_open_set(confidences, score_unknown(calibrated, labels), threshold) if has_unknown else []
    save_rows(OpenSetRates, open_set, folder / "open_set.csv")
    return {
        **compute_metrics(calibrated, probabilities, labels, rocs),
        "calibration_error": compute_calibration_error(bins),
        "uncalibrated_loss": compute_loss(uncalibrated, labels),
        "uncalibrated_calibration_error": compute_calibration_error(uncalibrated_bins),
        "coverage": float((confidences >= threshold).mean()),
    }


def load_report(history: Path, metrics: Path, folder: Path) -> Report:
    """Read history.csv, metrics.json, and what save_split_report wrote to folder/<split>."""
    splits = {split: _load_split(folder / split) for split in REPORTED_SPLITS}
    return Report(load_history(history), load_metrics(metrics), splits)


def _load_split(folder: Path) -> SplitReport:
    intervals = json.loads((folder / "intervals.json").read_text(encoding="utf-8"))
    return SplitReport(
        predictions=load_predictions(folder / "predictions.csv"),
        people=load_rows(PersonMetrics, folder / "people.csv"),
        intervals={name: Interval(**ends) for name, ends in intervals.items()},
        mean_rocs=_load_mean_curves(_ROC, folder),
        person_rocs=_load_curves(_ROC, folder / f"{_ROC.name}_people.csv"),
        mean_precision_recalls=_load_mean_curves(_PRECISION_RECALL, folder),
        person_precision_recalls=_load_curves(_PRECISION_RECALL, folder / f"{_PRECISION_RECALL.name}_people.csv"),
        reliability={
            name: load_rows(ReliabilityBin, folder / f"reliability_{name}.csv")
            for name in ("calibrated", "uncalibrated")
        },
        open_set=load_rows(OpenSetRates, folder / "open_set.csv"),
    )


def load_predictions(path: Path) -> list[Prediction]:
    """Read predictions.csv.

    Raises CelebflowError when a column is missing.
    """
    return load_rows(Prediction, path)


@dataclass(frozen=True)
class _CurveFiles:
    """How the files of a kind of curve begin, and what their columns are called."""

    name: str
    x: str
    y: str


_ROC = _CurveFiles("roc", "false_positive_rate", "true_positive_rate")
_PRECISION_RECALL = _CurveFiles("precision_recall", "recall", "precision")


def _save_curves(kind: _CurveFiles, people: Iterable[Curve], means: Iterable[Curve], folder: Path) -> None:
    """Write the people' curves to one file, and each mean curve to its own: DVC plots draws a file as one line."""
    for name, curves in [("people", people), *((curve.name, [curve]) for curve in means)]:
        rows = (
            (curve.name, f"{x:.6f}", f"{y:.6f}", f"{curve.area:.6f}")
            for curve in curves
            for x, y in zip(curve.x, curve.y, strict=True)
        )
        save_table(folder / f"{kind.name}_{name}.csv", ["curve", kind.x, kind.y, "area"], rows)


def _load_mean_curves(kind: _CurveFiles, folder: Path) -> list[Curve]:
    files = [folder / f"{kind.name}_{name}.csv" for name in ("macro", "micro")]
    return [curve for file in files if file.exists() for curve in _load_curves(kind, file)]


def _load_curves(kind: _CurveFiles, path: Path) -> list[Curve]:
    points: dict[str, list[tuple[float, float, float]]] = {}
    for row in load_table(path):
        points.setdefault(row["curve"], []).append((float(row[kind.x]), float(row[kind.y]), float(row["area"])))
    return [
        Curve(name, np.array([p[0] for p in group]), np.array([p[1] for p in group]), group[0][2])
        for name, group in points.items()
    ]
