"""The files of a result: evaluate writes them; plot, DVC plots, MLflow and compare read them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.calibration import (
    ReliabilityBin,
    bin_reliability,
    compute_calibration_error,
    compute_loss,
    softmax,
)
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.history import EpochResult, load_history
from celebflow.data.photos import Photo, number_groups
from celebflow.data.tables import load_rows, load_table, save_rows, save_table
from celebflow.errors import CelebflowError
from celebflow.evaluation.confusion import save_confusion
from celebflow.evaluation.curves import Curve, Curves, trace_people
from celebflow.evaluation.metrics import PersonMetrics, compute_metrics, compute_person_metrics
from celebflow.evaluation.open_set import OpenSetRates, OpenSetResult
from celebflow.evaluation.significance import BOOTSTRAP_SEED, Interval, compute_intervals
from celebflow.features.store import Features
from celebflow.params import TaskName
from celebflow.paths import write_whole

REPORTED_SPLITS = ("val", "test")
# What `dvc metrics show` and `dvc exp show` list, in one line of a terminal: a column per split each.
_HEADLINE = ("accuracy", "balanced_accuracy", "macro_auc", "auc", "average_precision", "equal_error_rate", "loss")
_WARNING = "backbone"  # the key beside the splits
# The beginning of the names of the files of curves → the columns of the points.
_CURVE_COLUMNS = {
    "roc": ("false_positive_rate", "true_positive_rate"),
    "precision_recall": ("recall", "precision"),
}


PATH_SEPARATOR = "\t"  # between both paths of a pair: no path holds it
ATTRIBUTE_SEPARATOR = "\t\t"  # between a path and an attribute


@dataclass(frozen=True)
class Prediction:
    """The prediction for one photograph, a pair or an attribute, its probability, and that of the actual one.

    `path` is that of the photograph; of a pair, it holds both, of an attribute, also its name.
    """

    path: str
    group: str
    actual: str
    predicted: str
    confidence: float
    probability_of_actual: float

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the groups that a bootstrap resamples: one, or of a pair the people in both, by their folders."""
        if len(self.photographs) == 1:
            return (self.group,)
        return tuple(path.split("/")[0] for path in self.photographs)

    @property
    def is_hit(self) -> bool:
        """Return whether the prediction is correct."""
        return self.actual == self.predicted

    @property
    def photographs(self) -> list[str]:
        """Return the path of the photograph, or both paths of the pair."""
        return self.path.partition(ATTRIBUTE_SEPARATOR)[0].split(PATH_SEPARATOR)

    @property
    def attribute(self) -> str:
        """Return the attribute that this is about, or an empty text."""
        return self.path.partition(ATTRIBUTE_SEPARATOR)[2]

    @property
    def task(self) -> TaskName:
        """Return the task of which this is a prediction."""
        if self.attribute:
            return "attributes"
        return "verification" if len(self.photographs) > 1 else "recognition"

    @property
    def title(self) -> str:
        """Return what texts call this: its photographs, and the attribute where there is one."""
        return " | ".join([*self.photographs, *([self.attribute] if self.attribute else [])])


AnyPrediction = TypeVar("AnyPrediction", bound=Prediction)


@dataclass(frozen=True)
class PersonPrediction(Prediction):
    """The prediction for one photograph, and the fraction of unknown people's photographs that match at least as well.

    It is None where nobody is unknown.
    """

    unknown_p_value: float | None


@dataclass(frozen=True)
class SplitReport:
    """What figures, page and comparison need from one split; its files are in reports/<split>/.

    The keys of `reliability` are "calibrated" and "uncalibrated".
    """

    predictions: list[Prediction]
    people: list[PersonMetrics]
    intervals: dict[str, Interval]
    rocs: Curves
    precision_recalls: Curves
    reliability: dict[str, list[ReliabilityBin]]
    open_set: list[OpenSetRates]

    def errors(self) -> list[Prediction]:
        """Return the wrong predictions, the most confident first."""
        return list_errors(self.predictions)

    def hits(self) -> list[Prediction]:
        """Return the right predictions, the least confident first."""
        return list_hits(self.predictions)


@dataclass(frozen=True)
class Report:
    """What figures and page need from a result."""

    history: list[EpochResult]
    metrics: dict[str, dict[str, float]]
    splits: dict[str, SplitReport]


def save_metrics(
    metrics: dict[str, dict[str, float]], source: BackboneSource, headline: Path, everything: Path
) -> None:
    """Write metrics.json, which DVC lists, and all_metrics.json: split → metric → value.

    Both have a warning where the backbone is untrained.
    """
    warning: dict[str, Any] = {} if source.trained else {_WARNING: "UNTRAINED"}
    rounded = {split: {name: round(value, 6) for name, value in values.items()} for split, values in metrics.items()}
    chosen = {split: {name: values[name] for name in _HEADLINE if name in values} for split, values in rounded.items()}
    save_json(warning | chosen, headline)
    save_json(warning | rounded, everything)


def save_json(content: object, path: Path) -> None:
    """Write a JSON file, whole or not at all."""
    with write_whole(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_metrics(path: Path) -> dict[str, dict[str, float]]:
    """Read what save_metrics wrote, without the warning; raise CelebflowError when the file is damaged."""
    with _reading(path) as content:
        splits = {split: _check_figures(values) for split, values in content.items() if split != _WARNING}
        if not splits:
            raise ValueError("it has no metrics")
        return splits


def _check_figures(values: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


@contextmanager
def _reading(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the object in a JSON file; raise CelebflowError when it is none, or is not what the caller expects."""
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise CelebflowError(f"{path} is damaged ({error}). Run `dvc repro` to make it again.") from None


def require_backbone(source: BackboneSource, features: Features, model: str) -> None:
    """Raise CelebflowError when a model, called so in the message, was trained on features of another backbone."""
    if source.fingerprint != features.origin.backbone.fingerprint:
        raise CelebflowError(f"The {model} was trained on the features of another backbone. Run `dvc repro`.")


def print_metrics(split: str, metrics: dict[str, float]) -> None:
    """Print the metrics of a split in a line."""
    print(f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def save_split_report(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    photos: Sequence[Photo],
    card: ClassifierCard,
    folder: Path,
    open_set: OpenSetResult | None = None,
) -> dict[str, float]:
    """Write the results of one split to `folder`, and return its metrics.

    `photos` are in the order of the (N, people) logits and (N,) labels. All results are calibrated, except those that
    are called uncalibrated. Without `open_set`, nobody is unknown.
    """
    uncalibrated = softmax(logits)
    uncalibrated_bins, uncalibrated_loss = bin_reliability(uncalibrated, labels), compute_loss(uncalibrated, labels)
    del uncalibrated  # of many people, gigabytes
    probabilities = card.calibration.compute_probabilities(logits)
    predicted = logits.argmax(axis=1)
    rocs, precision_recalls = trace_people(probabilities, labels, card.class_names)
    people = compute_person_metrics(predicted, labels, card.class_names, rocs, precision_recalls)
    bins = bin_reliability(probabilities, labels)
    intervals = compute_intervals(predicted, probabilities, labels, number_groups(photos), BOOTSTRAP_SEED)
    p_values: list[float | None] = [None] * len(photos)
    if open_set is not None:
        intervals |= open_set.intervals
        p_values = open_set.p_values.tolist()

    predictions = []
    for photo, label, guess, row, p_value in zip(photos, labels, predicted, probabilities, p_values, strict=True):
        names = card.class_names[label], card.class_names[guess]
        confidence, of_actual = float(row[guess]), float(row[label])
        predictions.append(PersonPrediction(photo.path, photo.group, *names, confidence, of_actual, p_value))
    save_predictions(PersonPrediction, predictions, card.class_names, folder)
    save_rows(PersonMetrics, people, folder / "people.csv")
    save_rows(ReliabilityBin, bins, folder / "reliability_calibrated.csv")
    save_rows(ReliabilityBin, uncalibrated_bins, folder / "reliability_uncalibrated.csv")
    save_rows(OpenSetRates, open_set.curve if open_set else [], folder / "open_set.csv")
    _save_all_curves("roc", rocs, folder)
    _save_all_curves("precision_recall", precision_recalls, folder)
    save_json({name: asdict(interval) for name, interval in intervals.items()}, folder / "intervals.json")
    return {
        **compute_metrics(logits, probabilities, labels, rocs),
        "calibration_error": compute_calibration_error(bins),
        "uncalibrated_loss": uncalibrated_loss,
        "uncalibrated_calibration_error": compute_calibration_error(uncalibrated_bins),
        **(open_set.metrics if open_set else {"coverage": 1.0}),
    }


def save_predictions(
    kind: type[AnyPrediction], predictions: Sequence[AnyPrediction], class_names: Sequence[str], folder: Path
) -> None:
    """Write predictions.csv, and confusion.csv, which counts them."""
    save_rows(kind, predictions, folder / "predictions.csv")
    pairs = [(prediction.actual, prediction.predicted) for prediction in predictions]
    save_confusion(pairs, class_names, folder / "confusion.csv")


def load_report(history: Path, metrics: Path, folder: Path) -> Report:
    """Read history.csv, all_metrics.json, and what save_split_report wrote to folder/<split>.

    Raises CelebflowError when a file or a column is missing, as in the results of earlier versions.
    """
    try:
        splits = {split: _load_split(folder / split) for split in REPORTED_SPLITS}
        return Report(load_history(history), load_metrics(metrics), splits)
    except FileNotFoundError as error:
        raise CelebflowError(
            f"{error.filename} is missing: the result is not whole, or an earlier version of celebflow wrote it. "
            "Run `dvc repro`."
        ) from None


def _load_split(folder: Path) -> SplitReport:
    return SplitReport(
        predictions=load_predictions(folder / "predictions.csv"),
        people=load_rows(PersonMetrics, folder / "people.csv", may_be_empty=False),
        intervals=load_intervals(folder / "intervals.json"),
        rocs=_load_curves("roc", folder),
        precision_recalls=_load_curves("precision_recall", folder),
        reliability={
            name: load_rows(ReliabilityBin, folder / f"reliability_{name}.csv", may_be_empty=False)
            for name in ("calibrated", "uncalibrated")
        },
        open_set=load_rows(OpenSetRates, folder / "open_set.csv"),
    )


def load_intervals(path: Path) -> dict[str, Interval]:
    """Read intervals.json: the interval of each metric; raise CelebflowError when the file is damaged."""
    with _reading(path) as content:
        return {name: Interval(float(ends["low"]), float(ends["high"])) for name, ends in content.items()}


def load_predictions(path: Path) -> list[Prediction]:
    """Read predictions.csv.

    Raises CelebflowError when a column is missing, or there is no row.
    """
    return load_rows(Prediction, path, may_be_empty=False)


def load_person_predictions(path: Path) -> list[PersonPrediction]:
    """Read predictions.csv of recognition; errors are those of load_predictions."""
    return load_rows(PersonPrediction, path, may_be_empty=False)


def list_errors(predictions: Sequence[AnyPrediction]) -> list[AnyPrediction]:
    """Return the wrong ones among predictions, the most confident first."""
    wrong = [prediction for prediction in predictions if not prediction.is_hit]
    return sorted(wrong, key=lambda prediction: (-prediction.confidence, prediction.path))


def list_hits(predictions: Sequence[AnyPrediction]) -> list[AnyPrediction]:
    """Return the right ones among predictions, the least confident first."""
    right = [prediction for prediction in predictions if prediction.is_hit]
    return sorted(right, key=lambda prediction: (prediction.confidence, prediction.path))


def _save_all_curves(kind: str, curves: Curves, folder: Path) -> None:
    """Write all people's curves to one file, and each mean curve to its own: DVC plots draws a file as one line."""
    save_curves(kind, "people", curves.people, folder)
    for mean in curves.means:
        save_curves(kind, mean.name, [mean], folder)


def save_curves(kind: str, name: str, curves: Sequence[Curve], folder: Path) -> None:
    """Write curves of a kind, "roc" or "precision_recall", to <kind>_<name>.csv, one row per point."""
    rows = []
    for curve in curves:
        thinned = curve.thin()
        for x, y in zip(thinned.x, thinned.y, strict=True):
            rows.append((curve.name, f"{x:.6f}", f"{y:.6f}", f"{curve.area:.6f}"))
    save_table(folder / f"{kind}_{name}.csv", ["curve", *_CURVE_COLUMNS[kind], "area"], rows)


def _load_curves(kind: str, folder: Path) -> Curves:
    means = []
    for name in ("macro", "micro"):
        path = folder / f"{kind}_{name}.csv"
        if path.exists():
            means += _load_points(kind, path)
    return Curves(_load_points(kind, folder / f"{kind}_people.csv"), means)


def _load_points(kind: str, path: Path) -> list[Curve]:
    get_cells = itemgetter(*_CURVE_COLUMNS[kind], "area")
    curves = []
    try:
        for name, rows in groupby(load_table(path), itemgetter("curve")):
            x, y, areas = np.array([get_cells(row) for row in rows], np.float64).T
            curves.append(Curve(name, x, y, float(areas[0])))
    except (KeyError, ValueError) as error:
        raise CelebflowError(f"{path} is damaged ({error}). Run `dvc repro` to make it again.") from None
    return curves
