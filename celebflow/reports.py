"""The files of a result: what train and evaluate write, and plot, DVC plots and MLflow read."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celebflow.backbone import BackboneSource, select_device
from celebflow.calibration import (
    Acceptance,
    ReliabilityBin,
    bin_reliability,
    compute_calibration_error,
    compute_loss,
    score_strangers,
    softmax,
    trace_acceptance,
)
from celebflow.classifier import Classifier, ClassifierCard
from celebflow.data import Photo
from celebflow.errors import CelebflowError
from celebflow.evaluation import (
    Curve,
    PersonMetrics,
    compute_mean_precision_recalls,
    compute_mean_rocs,
    compute_metrics,
    compute_person_metrics,
    compute_person_precision_recalls,
    compute_person_rocs,
)
from celebflow.features import Features, select_split
from celebflow.params import ComputeParams
from celebflow.tables import load_rows, load_table, save_rows, save_table
from celebflow.training import EpochResult, compute_logits
from celebflow.uncertainty import BOOTSTRAP_SEED, Interval, compute_intervals

REPORTED_SPLITS = ("val", "test")
_BATCH_SIZE = 256


@dataclass(frozen=True)
class Prediction:
    """What the classifier says of one photograph: whom it names, and the probabilities of that and of who it is."""

    path: str
    group: str
    actual: str
    predicted: str
    probability: float
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
    persons: list[PersonMetrics]
    intervals: dict[str, Interval]
    mean_rocs: list[Curve]
    person_rocs: list[Curve]
    mean_precision_recalls: list[Curve]
    person_precision_recalls: list[Curve]
    reliability: dict[str, list[ReliabilityBin]]
    acceptance: list[Acceptance]

    def mistakes(self) -> list[Prediction]:
        """Return what it names wrongly, the most confident first."""
        return sorted((p for p in self.predictions if not p.is_hit), key=lambda p: (-p.probability, p.path))

    def hits(self) -> list[Prediction]:
        """Return what it names rightly, the most doubtful first."""
        return sorted((p for p in self.predictions if p.is_hit), key=lambda p: (p.probability, p.path))


@dataclass(frozen=True)
class Report:
    """What figures and page need of a result."""

    history: list[EpochResult]
    metrics: dict[str, dict[str, float]]
    splits: dict[str, SplitReport]


def save_history(history: Iterable[EpochResult], path: Path) -> None:
    """Write history.csv, one row an epoch."""
    save_rows(EpochResult, history, path)


def load_history(path: Path) -> list[EpochResult]:
    """Read what save_history wrote."""
    return load_rows(EpochResult, path)


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
    probabilities, predicted = softmax(calibrated), logits.argmax(axis=1)
    predictions = (
        # Probabilities have all their digits: rounded, they could stand on the other side of the threshold.
        Prediction(photo.path, photo.group, class_names[label], class_names[guess], *row[[guess, label]].tolist())
        for photo, label, guess, row in zip(photos, labels, predicted, probabilities, strict=True)
    )
    save_rows(Prediction, predictions, folder / "predictions.csv")
    _, groups = np.unique([photo.group for photo in photos], return_inverse=True)
    intervals = compute_intervals(calibrated, labels, groups, BOOTSTRAP_SEED)
    content = {name: asdict(interval) for name, interval in intervals.items()}
    (folder / "intervals.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    save_rows(PersonMetrics, compute_person_metrics(calibrated, labels, class_names), folder / "persons.csv")
    rocs = compute_person_rocs(probabilities, labels, class_names)
    _save_curves(_ROC, rocs, compute_mean_rocs(rocs, probabilities, labels), folder)
    curves = compute_person_precision_recalls(probabilities, labels, class_names)
    _save_curves(_PRECISION_RECALL, curves, compute_mean_precision_recalls(curves, probabilities, labels), folder)
    answers = {"calibrated": probabilities, "uncalibrated": softmax(logits)}
    bins = {name: bin_reliability(answer, labels) for name, answer in answers.items()}
    for name, rows in bins.items():
        save_rows(ReliabilityBin, rows, folder / f"reliability_{name}.csv")
    scores = probabilities.max(axis=1)
    strangers = score_strangers(calibrated, labels) if len(class_names) > 2 else np.array([])
    acceptance = trace_acceptance(scores, strangers, card.calibration.threshold) if len(strangers) else []
    save_rows(Acceptance, acceptance, folder / "acceptance.csv")
    return {
        **compute_metrics(calibrated, labels),
        "calibration_error": compute_calibration_error(bins["calibrated"]),
        "uncalibrated_loss": compute_loss(answers["uncalibrated"], labels),
        "uncalibrated_calibration_error": compute_calibration_error(bins["uncalibrated"]),
        "accepted": float((scores >= card.calibration.threshold).mean()),
    }


def load_report(history: Path, metrics: Path, folder: Path) -> Report:
    """Read history.csv, metrics.json, and what save_split_report wrote to folder/<split>."""
    splits = {split: _load_split(folder / split) for split in REPORTED_SPLITS}
    return Report(load_history(history), load_metrics(metrics), splits)


def _load_split(folder: Path) -> SplitReport:
    intervals = json.loads((folder / "intervals.json").read_text(encoding="utf-8"))
    return SplitReport(
        predictions=load_predictions(folder / "predictions.csv"),
        persons=load_rows(PersonMetrics, folder / "persons.csv"),
        intervals={name: Interval(**ends) for name, ends in intervals.items()},
        mean_rocs=_load_mean_curves(_ROC, folder),
        person_rocs=_load_curves(_ROC, folder / f"{_ROC.name}_persons.csv"),
        mean_precision_recalls=_load_mean_curves(_PRECISION_RECALL, folder),
        person_precision_recalls=_load_curves(_PRECISION_RECALL, folder / f"{_PRECISION_RECALL.name}_persons.csv"),
        reliability={
            name: load_rows(ReliabilityBin, folder / f"reliability_{name}.csv")
            for name in ("calibrated", "uncalibrated")
        },
        acceptance=load_rows(Acceptance, folder / "acceptance.csv"),
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


def _save_curves(kind: _CurveFiles, persons: Iterable[Curve], means: Iterable[Curve], folder: Path) -> None:
    """Write the persons' curves to one file, and each mean curve to its own: DVC plots draws a file as one line."""
    for name, curves in [("persons", persons), *((curve.name, [curve]) for curve in means)]:
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
