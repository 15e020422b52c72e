"""Answers to yes-or-no questions → metrics, their intervals and curves; pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from celebflow.classifier.calibration import FloatArray, bin_reliability, compute_calibration_error
from celebflow.data.attributes import YES
from celebflow.evaluation.attribute_answers import (
    AttributeAnswers,
    BoolArray,
    LabelArray,
    divide,
    find_intervals,
    weigh_metrics,
)
from celebflow.evaluation.curves import Curve, trace_both
from celebflow.evaluation.significance import Interval

# The metrics whose mean over the attributes is a metric of the result.
MEAN_METRICS = ("accuracy", "balanced_accuracy", "f1", "auc", "average_precision")
_INTERVAL_METRICS = (*MEAN_METRICS, "precision", "recall")  # those of an attribute that have an interval
_CALIBRATION_BINS = 10


@dataclass(frozen=True)
class AttributeMetrics:
    """One attribute in one split; `support` is the number of its labels, `yes` how many of them are yes.

    `trivial_accuracy` is that of the label that is more frequent in train, and `trivial_average_precision` that of
    probabilities which are all equal. `calibration_error` is the expected one of the probability of yes, in ten bins of
    equal width.

    Undefined figures are None: recall and F1 without labels of yes, specificity without labels of no, balanced
    accuracy, AUC and average precision without both, precision without answers of yes. The ends of an interval are None
    as find_intervals explains; its groups are those with yes, or no, where only these decide a metric.
    """

    attribute: str
    support: int
    yes: int
    threshold: float
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    trivial_accuracy: float | None
    balanced_accuracy: float | None
    balanced_accuracy_low: float | None
    balanced_accuracy_high: float | None
    precision: float | None
    precision_low: float | None
    precision_high: float | None
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    specificity: float | None
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    average_precision: float | None
    average_precision_low: float | None
    average_precision_high: float | None
    trivial_average_precision: float | None
    calibration_error: float | None


def compute_attribute_metrics(
    answers: AttributeAnswers, frequent: LabelArray | BoolArray, resampled: Mapping[str, FloatArray]
) -> list[AttributeMetrics]:
    """Return the metrics of every attribute, also of those without labels.

    `frequent` (A,) are the labels, yes or no, that are more frequent in train. `resampled` is what resample_metrics
    returned; without it, there are no intervals.
    """
    values = {name: metric[0].tolist() for name, metric in weigh_metrics(answers, _weigh_once(answers)).items()}
    trivial_accuracies = _compute_trivial_accuracies(answers, frequent)
    calibration_errors = _compute_calibration_errors(answers)
    rows = []
    for attribute, name in enumerate(answers.names):
        support, yes = int(answers.known[:, attribute].sum()), int(answers.yes[:, attribute].sum())
        group_counts = _count_deciding_groups(answers, attribute)
        ends: dict[str, float | None] = {}
        for metric in _INTERVAL_METRICS:
            own = {metric: resampled[metric][:, attribute]} if resampled else {}
            interval = find_intervals(own, group_counts[metric]).get(metric)
            ends |= {f"{metric}_{end}": getattr(interval, end, None) for end in ("low", "high")}
        rows.append(
            AttributeMetrics(
                attribute=name,
                support=support,
                yes=yes,
                threshold=float(answers.thresholds[attribute]),
                **{metric: _drop_nan(each[attribute]) for metric, each in values.items()},
                **ends,
                trivial_accuracy=_drop_nan(float(trivial_accuracies[attribute])),
                trivial_average_precision=yes / support if support else None,
                calibration_error=_drop_nan(float(calibration_errors[attribute])),
            )
        )
    return rows


def _count_deciding_groups(answers: AttributeAnswers, attribute: int) -> dict[str, int]:
    """Return for each metric with an interval how many groups it is made of: of a rare attribute, those with yes."""
    known, positive = answers.known[:, attribute], answers.positive[:, attribute]
    of_yes, of_no, of_all, of_positive = (
        len(np.unique(answers.groups[photographs]))
        for photographs in (answers.yes[:, attribute], answers.no[:, attribute], known, known & positive)
    )
    both = dict.fromkeys(("balanced_accuracy", "auc", "average_precision"), min(of_yes, of_no))
    return {"accuracy": of_all, "precision": of_positive, "recall": of_yes, "f1": of_yes, **both}


def compute_mean_metrics(answers: AttributeAnswers, frequent: LabelArray | BoolArray) -> dict[str, float]:
    """Return a split's headline metrics: means over the attributes for which a metric is defined.

    Those that are defined for none are left out. The loss is the mean cross-entropy of all labels that are not blank.
    """
    weighed = weigh_metrics(answers, _weigh_once(answers))
    columns = {
        **{name: weighed[name] for name in MEAN_METRICS},
        "trivial_accuracy": _compute_trivial_accuracies(answers, frequent)[None],
        "calibration_error": _compute_calibration_errors(answers)[None],
    }
    metrics = {name: float(average_defined(values)[0]) for name, values in columns.items()}
    of_actual = np.where(answers.yes, answers.probabilities, 1 - answers.probabilities)[answers.known]
    if len(of_actual):
        metrics["loss"] = float(-np.log(np.maximum(of_actual, np.finfo(np.float64).tiny)).mean())
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def compute_mean_intervals(resampled: Mapping[str, FloatArray], group_count: int) -> dict[str, Interval]:
    """Return the intervals of MEAN_METRICS, from what resample_metrics returned, by find_intervals.

    A resample's mean is over the attributes that are defined in it.
    """
    return find_intervals({name: average_defined(resampled[name]) for name in MEAN_METRICS}, group_count)


def trace_attribute_curves(answers: AttributeAnswers) -> dict[str, list[Curve]]:
    """Return the curves of "roc" and "precision_recall" of each attribute that has labels of both values.

    They have at most the points that Curve.thin leaves.
    """
    rocs, precision_recalls = [], []
    for attribute, name in enumerate(answers.names):
        known = answers.known[:, attribute]
        yes, scores = answers.yes[known, attribute], answers.probabilities[known, attribute]
        if yes.any() and not yes.all():
            roc, precision_recall = trace_both(name, yes, scores)
            rocs.append(roc.thin())
            precision_recalls.append(precision_recall.thin())
    return {"roc": rocs, "precision_recall": precision_recalls}


def _weigh_once(answers: AttributeAnswers) -> FloatArray:
    return np.ones((1, len(answers.labels)))


def _compute_trivial_accuracies(answers: AttributeAnswers, frequent: LabelArray | BoolArray) -> FloatArray:
    hits = answers.labels == np.asarray(frequent, np.int8)
    return divide(hits.sum(axis=0), answers.known.sum(axis=0))


def _compute_calibration_errors(answers: AttributeAnswers) -> FloatArray:
    """Return the (A,) expected calibration errors; NaN without labels."""
    errors: FloatArray = np.full(len(answers.names), np.nan)
    for attribute, known in enumerate(answers.known.T):
        if known.any():
            probabilities, labels = answers.probabilities[known, attribute], answers.labels[known, attribute]
            # With yes as the only class, number 0, the confidence is the probability of yes.
            bins = bin_reliability(probabilities[:, None], np.where(labels == YES, 0, 1), _CALIBRATION_BINS)
            errors[attribute] = compute_calibration_error(bins)
    return errors


def average_defined(values: FloatArray) -> FloatArray:
    """Return each row's mean of the columns that are not NaN; NaN when all are."""
    return divide(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))


def _drop_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
