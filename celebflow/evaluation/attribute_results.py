"""The files of a result of attributes: evaluate writes them; plot, DVC plots, MLflow and compare read them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import ReliabilityBin, bin_reliability
from celebflow.classifier.cards import AttributeCard
from celebflow.classifier.history import EpochResult, load_history
from celebflow.data.attributes import BLANK, YES
from celebflow.data.photos import Photo
from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_answers import AttributeAnswers, resample_metrics
from celebflow.evaluation.attribute_groups import GroupAccuracy, compute_group_accuracies
from celebflow.evaluation.attribute_metrics import (
    AttributeMetrics,
    compute_attribute_metrics,
    compute_mean_intervals,
    compute_mean_metrics,
    trace_attribute_curves,
)
from celebflow.evaluation.curves import average_precision_recalls, average_rocs
from celebflow.evaluation.metrics import PersonMetrics, compute_wilson_interval
from celebflow.evaluation.results import (
    ATTRIBUTE_SEPARATOR,
    REPORTED_SPLITS,
    Prediction,
    load_intervals,
    load_metrics,
    save_curves,
    save_json,
    save_predictions,
)
from celebflow.evaluation.significance import BOOTSTRAP_SEED, Interval

ANSWERS = ("no", "yes")


@dataclass(frozen=True)
class AttributePrediction(Prediction):
    """The answer for one attribute of a photograph: `actual` and `predicted` are "yes" or "no".

    `group` is the person where it is known, otherwise the group of near-duplicates. `probability` is that of yes, and
    `uncertain` is 1 where it is near the threshold. Attributes whose label is blank have none.
    """

    probability: float
    uncertain: int


@dataclass(frozen=True)
class AttributeSplitReport:
    """What figures and page need from one split; its files are in reports/<split>/.

    The curves are those of each attribute that has both answers.
    """

    predictions: list[AttributePrediction]
    people: list[PersonMetrics]
    attributes: list[AttributeMetrics]
    groups: list[GroupAccuracy]
    intervals: dict[str, Interval]
    reliability: list[ReliabilityBin]

    @cached_property
    def photographs(self) -> list[str]:
        """Return the paths of the N photographs that have a label, in the order of `answers`."""
        return list(dict.fromkeys(each.photographs[0] for each in self.predictions))

    @cached_property
    def answers(self) -> AttributeAnswers:
        """Return the answers as arrays."""
        names = tuple(each.attribute for each in self.attributes)
        row_of = {path: row for row, path in enumerate(self.photographs)}
        column_of = {name: column for column, name in enumerate(names)}
        probabilities = np.full((len(row_of), len(names)), 0.5)
        labels = np.full((len(row_of), len(names)), BLANK, np.int8)
        group_of: dict[int, str] = {}
        for each in self.predictions:
            row, column = row_of[each.photographs[0]], column_of[each.attribute]
            probabilities[row, column] = each.probability
            labels[row, column] = each.actual == "yes"
            group_of[row] = each.group
        thresholds = np.array([each.threshold for each in self.attributes])
        groups = np.unique([group_of[row] for row in range(len(row_of))], return_inverse=True)[1]
        return AttributeAnswers(names, probabilities, labels, thresholds, groups)

    @cached_property
    def errors(self) -> dict[str, list[AttributePrediction]]:
        """Return the wrong answers for each attribute, the most confident first."""
        wrong: dict[str, list[AttributePrediction]] = {each.attribute: [] for each in self.attributes}
        for prediction in sorted(self.predictions, key=lambda each: (each.probability_of_actual, each.path)):
            if not prediction.is_hit:
                wrong[prediction.attribute].append(prediction)
        return wrong

    def list_errors(self, attribute: str) -> list[AttributePrediction]:
        """Return the wrong answers for an attribute, the most confident first."""
        return self.errors[attribute]


@dataclass(frozen=True)
class AttributeReport:
    """What figures and page need from a result; the keys of `splits` are val and test."""

    history: list[EpochResult]
    metrics: dict[str, dict[str, float]]
    splits: dict[str, AttributeSplitReport]


def save_attribute_report(
    logits: NDArray[np.floating],
    labels: NDArray[np.int64],
    photos: Sequence[Photo],
    card: AttributeCard,
    folder: Path,
) -> dict[str, float]:
    """Write the results of one split to `folder`, and return its metrics.

    `photos` are in the order of the (N, A) logits and labels.
    """
    calibration = card.calibration
    probabilities = calibration.compute_probabilities(logits)
    uncertain = calibration.find_uncertain(probabilities)
    groups = [photo.person or photo.group for photo in photos]
    numbers = np.unique(groups, return_inverse=True)[1]
    answers = AttributeAnswers(card.class_names, probabilities, labels.astype(np.int8), calibration.thresholds, numbers)
    frequent = np.array(card.yes_fractions) >= 0.5
    resampled = resample_metrics(answers, BOOTSTRAP_SEED)
    attributes = compute_attribute_metrics(answers, frequent, resampled)
    intervals = compute_mean_intervals(resampled, int(numbers.max()) + 1)
    curves = trace_attribute_curves(answers)
    bins = _bin_answers(answers)
    save_predictions(AttributePrediction, _list_predictions(answers, photos, groups, uncertain), ANSWERS, folder)
    save_rows(AttributeMetrics, attributes, folder / "attributes.csv")
    save_rows(PersonMetrics, [_measure_recall(each) for each in attributes], folder / "people.csv")
    save_rows(GroupAccuracy, compute_group_accuracies(answers), folder / "groups.csv")
    save_rows(ReliabilityBin, bins, folder / "reliability_calibrated.csv")
    for kind, average in (("roc", average_rocs), ("precision_recall", average_precision_recalls)):
        save_curves(kind, "attributes", curves[kind], folder)
        if curves[kind]:
            save_curves(kind, "macro", [average(curves[kind])], folder)
    save_json({name: asdict(interval) for name, interval in intervals.items()}, folder / "intervals.json")
    return {
        **compute_mean_metrics(answers, frequent),
        **_measure_threshold_kinds(answers, card),
        **_measure_certainty(answers, uncertain),
    }


def _list_predictions(
    answers: AttributeAnswers, photos: Sequence[Photo], groups: Sequence[str], uncertain: NDArray[np.bool_]
) -> list[AttributePrediction]:
    positive = answers.positive
    predictions = []
    for row, column in zip(*np.nonzero(answers.known), strict=True):
        of_yes = float(answers.probabilities[row, column])
        actual, predicted = bool(answers.labels[row, column] == YES), bool(positive[row, column])
        predictions.append(
            AttributePrediction(
                path=ATTRIBUTE_SEPARATOR.join((photos[row].path, answers.names[column])),
                group=groups[row],
                actual=ANSWERS[actual],
                predicted=ANSWERS[predicted],
                confidence=of_yes if predicted else 1 - of_yes,
                probability_of_actual=of_yes if actual else 1 - of_yes,
                probability=of_yes,
                uncertain=int(uncertain[row, column]),
            )
        )
    return predictions


def _measure_recall(metrics: AttributeMetrics) -> PersonMetrics:
    """Return the recall of yes of an attribute in the form of a person's, which DVC plots draws for any task."""
    hits = round((metrics.recall or 0) * metrics.yes)
    low, high = compute_wilson_interval(hits, metrics.yes) if metrics.yes else (None, None)
    return PersonMetrics(
        metrics.attribute,
        metrics.yes,
        metrics.precision,
        metrics.recall,
        low,
        high,
        metrics.f1,
        metrics.auc,
        metrics.average_precision,
    )


def _bin_answers(answers: AttributeAnswers) -> list[ReliabilityBin]:
    """Return the bins of the confidence of all answers together."""
    of_yes = answers.probabilities[answers.known]
    both = np.stack([1 - of_yes, of_yes], axis=1)
    return bin_reliability(both, (answers.labels[answers.known] == YES).astype(np.int64))


def _measure_threshold_kinds(answers: AttributeAnswers, card: AttributeCard) -> dict[str, float]:
    """Return the mean accuracy and balanced accuracy at the thresholds that were fitted for each."""
    metrics = {}
    for kind in ("accuracy", "balanced_accuracy"):
        thresholds = card.calibration.select_thresholds(kind)
        chosen = AttributeAnswers(answers.names, answers.probabilities, answers.labels, thresholds, answers.groups)
        means = compute_mean_metrics(chosen, np.array(card.yes_fractions) >= 0.5)
        if kind in means:
            metrics[f"{kind}_at_its_thresholds"] = means[kind]
    return metrics


def _measure_certainty(answers: AttributeAnswers, uncertain: NDArray[np.bool_]) -> dict[str, float]:
    """Return the fraction of answers that are not uncertain, and their accuracy, over all labels."""
    certain = answers.known & ~uncertain
    metrics = {"certain_fraction": float(certain.sum() / max(1, answers.known.sum()))}
    if certain.any():
        metrics["certain_accuracy"] = float((answers.positive == answers.yes)[certain].mean())
    return metrics


def load_attribute_report(history: Path, metrics: Path, folder: Path) -> AttributeReport:
    """Read history.csv, all_metrics.json, and what save_attribute_report wrote.

    Raises CelebflowError when a file or a column is missing, as in the results of another task.
    """
    try:
        splits = {split: load_attribute_split(folder / split) for split in REPORTED_SPLITS}
        return AttributeReport(load_history(history), load_metrics(metrics), splits)
    except FileNotFoundError as error:
        raise CelebflowError(f"{error.filename} is missing: the result is not whole. Run `dvc repro`.") from None


def load_attribute_split(folder: Path) -> AttributeSplitReport:
    """Read what save_attribute_report wrote to the folder of a split; errors are those of load_attribute_report."""
    predictions = load_rows(AttributePrediction, folder / "predictions.csv", may_be_empty=False)
    attributes = load_rows(AttributeMetrics, folder / "attributes.csv", may_be_empty=False)
    if unknown := {each.attribute for each in predictions} - {each.attribute for each in attributes}:
        raise CelebflowError(f"{folder / 'attributes.csv'} has no row of {min(unknown)}. Run `dvc repro`.")
    return AttributeSplitReport(
        predictions=predictions,
        people=load_rows(PersonMetrics, folder / "people.csv", may_be_empty=False),
        attributes=attributes,
        groups=load_rows(GroupAccuracy, folder / "groups.csv"),
        intervals=load_intervals(folder / "intervals.json"),
        reliability=load_rows(ReliabilityBin, folder / "reliability_calibrated.csv", may_be_empty=False),
    )


def rank_attributes(attributes: Sequence[AttributeMetrics]) -> list[AttributeMetrics]:
    """Put the attribute with the lowest average precision first, and those without one last."""
    return sorted(
        attributes, key=lambda each: (each.average_precision is None, each.average_precision or 0, each.attribute)
    )
