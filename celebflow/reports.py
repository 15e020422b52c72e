"""The files of a result: what train and evaluate write, and plot, DVC plots and MLflow read."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celebflow.backbone import BackboneSource, select_device
from celebflow.classifier import Classifier
from celebflow.data import Photo
from celebflow.errors import CelebflowError
from celebflow.evaluation import (
    RocCurve,
    compute_mean_rocs,
    compute_metrics,
    compute_person_metrics,
    compute_person_rocs,
    softmax,
)
from celebflow.features import Features, select_split
from celebflow.params import ComputeParams
from celebflow.tables import load_table, save_table
from celebflow.training import EpochResult, compute_logits
from celebflow.uncertainty import compute_intervals

REPORTED_SPLITS = ("val", "test")
_BATCH_SIZE = 256
_BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class SplitReport:
    """What figures need of one split; its files stand in reports/<split>/."""

    actual: list[str]
    predicted: list[str]
    mean_rocs: list[RocCurve]
    person_rocs: list[RocCurve]


@dataclass(frozen=True)
class Report:
    """What figures need of a result."""

    history: list[EpochResult]
    splits: dict[str, SplitReport]


def save_history(history: Iterable[EpochResult], path: Path) -> None:
    """Write history.csv, one row an epoch."""
    save_table(path, [field.name for field in fields(EpochResult)], (astuple(result) for result in history))


def load_history(path: Path) -> list[EpochResult]:
    """Read what save_history wrote."""
    rows = load_table(path)
    return [EpochResult(int(row.pop("epoch")), **{name: float(value) for name, value in row.items()}) for row in rows]


def save_metrics(metrics: dict[str, dict[str, float]], source: BackboneSource, path: Path) -> None:
    """Write metrics.json: split → figure → value, and a word of warning where the backbone is untrained."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {split: _rounded(figures) for split, figures in metrics.items()}
    if not source.trained:
        content = {"backbone": "UNTRAINED", **content}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}


def report_splits(
    classifier: Classifier, features: Features, compute: ComputeParams, folder: Path
) -> dict[str, dict[str, float]]:
    """Classify val and test; write the files of each to folder/<split>, and return each one's headline figures.

    Raises CelebflowError when the classifier was taught on another backbone's features.
    """
    if classifier.card.backbone.fingerprint != features.origin.backbone.fingerprint:
        raise CelebflowError("The classifier was taught on another backbone's features. Run `dvc repro`.")
    device = select_device(compute.device)
    class_names = classifier.card.class_names
    metrics = {}
    for split in REPORTED_SPLITS:
        examples = select_split(features, class_names, split)
        logits, labels = compute_logits(classifier.to(device), examples, _BATCH_SIZE)
        save_split_report(logits, labels, [features.photos[row] for row in examples.rows], class_names, folder / split)
        metrics[split] = compute_metrics(logits, labels)
        print(f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics[split].items()))
    print(features.origin.backbone.warning(), end="\n" if features.origin.backbone.warning() else "")
    return metrics


def save_split_report(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    photos: Sequence[Photo],
    class_names: Sequence[str],
    folder: Path,
) -> None:
    """Write one split's predictions, intervals, figures of each person and ROC points to `folder`.

    `photos` are in the order of the (N, people) logits and (N,) labels.
    """
    probabilities = softmax(logits)
    predicted = logits.argmax(axis=1)
    save_table(
        folder / "predictions.csv",
        ["path", "actual", "predicted", "probability", "probability_of_actual"],
        (
            (photo.path, class_names[label], class_names[guess], f"{row[guess]:.6f}", f"{row[label]:.6f}")
            for photo, label, guess, row in zip(photos, labels, predicted, probabilities, strict=True)
        ),
    )
    # Each photograph counts as evidence of its own.
    intervals = compute_intervals(logits, labels, np.arange(len(labels)), _BOOTSTRAP_SEED)
    content = {name: asdict(interval) for name, interval in intervals.items()}
    (folder / "intervals.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    persons = compute_person_metrics(logits, labels, class_names)
    save_table(folder / "persons.csv", list(asdict(persons[0])), (astuple(person) for person in persons))
    person_rocs = compute_person_rocs(probabilities, labels, class_names)
    # A file each, since DVC plots draws all points of a file as one line.
    for curve in compute_mean_rocs(person_rocs, probabilities, labels):
        _save_rocs(folder / f"roc_{curve.name}.csv", [curve])
    _save_rocs(folder / "roc_persons.csv", person_rocs)


def load_report(history: Path, folder: Path) -> Report:
    """Read history.csv, and what report_split wrote to `folder`, as far as figures need it."""
    return Report(load_history(history), {split: _load_split(folder / split) for split in REPORTED_SPLITS})


def _load_split(folder: Path) -> SplitReport:
    rows = list(load_table(folder / "predictions.csv"))
    actual, predicted = [row["actual"] for row in rows], [row["predicted"] for row in rows]
    files = [folder / f"roc_{name}.csv" for name in ("macro", "micro")]
    mean_rocs = [curve for file in files if file.exists() for curve in _load_rocs(file)]
    return SplitReport(actual, predicted, mean_rocs, _load_rocs(folder / "roc_persons.csv"))


def _save_rocs(path: Path, curves: Iterable[RocCurve]) -> None:
    header = ["curve", "false_positive_rate", "true_positive_rate", "area"]
    rows = (
        (curve.name, f"{x:.6f}", f"{y:.6f}", f"{curve.area:.6f}")
        for curve in curves
        for x, y in zip(curve.false_positive_rate, curve.true_positive_rate, strict=True)
    )
    save_table(path, header, rows)


def _load_rocs(path: Path) -> list[RocCurve]:
    points: dict[str, list[tuple[float, float, float]]] = {}
    for row in load_table(path):
        point = (float(row["false_positive_rate"]), float(row["true_positive_rate"]), float(row["area"]))
        points.setdefault(row["curve"], []).append(point)
    return [
        RocCurve(name, np.array([p[0] for p in group]), np.array([p[1] for p in group]), group[0][2])
        for name, group in points.items()
    ]
