"""Answers to yes-or-no questions → metrics, their intervals and curves; pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray, bin_reliability, compute_calibration_error
from celebflow.data.attributes import BLANK, NO, YES
from celebflow.evaluation.metrics import Curve, compute_precision_recall, compute_roc
from celebflow.evaluation.significance import Interval, compute_percentiles, draw_weights

# The metrics whose mean over the attributes is a metric of the result.
MEAN_METRICS = ("accuracy", "balanced_accuracy", "f1", "auc", "average_precision")
_INTERVAL_METRICS = (*MEAN_METRICS, "precision", "recall")  # those of an attribute that have an interval
_CALIBRATION_BINS = 10
_MAX_POINTS = 500  # of one curve; a small figure shows no more
_MIN_GROUPS = 3  # whose resamples differ
_MIN_DEFINED = 0.9  # the fraction of resamples in which a metric must be defined to have an interval
_BLOCK_CELLS = 2**18  # weights that are sorted at once: 2 MB, as much as a processor keeps at hand

BoolArray = NDArray[np.bool_]
LabelArray = NDArray[np.int8]


@dataclass(frozen=True)
class AttributeAnswers:
    """What a model answers about the A attributes of N photographs, and what their labels say.

    `probabilities` (N, A) are those of yes, `labels` (N, A) are YES, NO or BLANK, and `thresholds` (A,) the
    probabilities from which the answer is yes. `groups` (N,) numbers the photographs' people, or groups of
    near-duplicates, from 0, as draw_weights takes them.
    """

    names: tuple[str, ...]
    probabilities: FloatArray
    labels: LabelArray
    thresholds: FloatArray
    groups: NDArray[np.int64]

    @property
    def yes(self) -> BoolArray:
        """Return where the label is yes, (N, A)."""
        yes: BoolArray = self.labels == YES
        return yes

    @property
    def no(self) -> BoolArray:
        """Return where the label is no, (N, A)."""
        no: BoolArray = self.labels == NO
        return no

    @property
    def known(self) -> BoolArray:
        """Return where there is a label, (N, A); nothing else counts."""
        known: BoolArray = self.labels != BLANK
        return known

    @property
    def positive(self) -> BoolArray:
        """Return where the answer is yes, (N, A)."""
        return self.probabilities >= self.thresholds


@dataclass(frozen=True)
class AttributeMetrics:
    """One attribute in one split; `support` is the number of its labels, `yes` how many of them are yes.

    `trivial_accuracy` is that of the label that is more frequent in train, and `trivial_average_precision` that of
    probabilities which are all equal. `calibration_error` is the expected one of the probability of yes, in ten bins of
    equal width.

    Undefined figures are None: recall and F1 without labels of yes, specificity without labels of no, balanced
    accuracy, AUC and average precision without both, precision without answers of yes. The ends of an interval are None
    as resample_metrics and find_intervals explain.
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


def weigh_metrics(answers: AttributeAnswers, weights: FloatArray) -> dict[str, FloatArray]:
    """Return each metric of each attribute, (resamples, A), under each row of (resamples, N) weights.

    The weights are how often a resample holds each photograph. Metrics that are undefined in a resample are NaN there.
    """
    yes, no, positive = answers.yes, answers.no, answers.positive
    yes_counts, no_counts = weights @ yes, weights @ no
    true_positives, false_positives = weights @ (yes & positive), weights @ (no & positive)
    true_negatives = no_counts - false_positives
    positives = true_positives + false_positives
    recalls, specificities = divide(true_positives, yes_counts), divide(true_negatives, no_counts)
    areas, average_precisions = _weigh_rankings(answers, weights)
    return {
        "accuracy": divide(true_positives + true_negatives, yes_counts + no_counts),
        "balanced_accuracy": (recalls + specificities) / 2,
        "precision": divide(true_positives, positives),
        "recall": recalls,
        "specificity": specificities,
        "f1": divide(2 * true_positives, np.where(yes_counts > 0, positives + yes_counts, 0)),
        "auc": areas,
        "average_precision": average_precisions,
    }


def _weigh_rankings(answers: AttributeAnswers, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the areas under the ROC curve and the average precisions, (resamples, A) each.

    Both are means over the photographs of yes: of the fraction of those of no that have a lower probability, where
    equal ones count half; and of the precision at the threshold that the photograph just reaches.
    """
    areas, precisions = np.empty((2, len(weights), len(answers.names)))
    by_photograph = np.ascontiguousarray(weights.T)  # (N, resamples): sorting moves whole rows
    for attribute, labels in enumerate(answers.labels.T):
        known = np.flatnonzero(labels != BLANK)
        order = known[np.argsort(-answers.probabilities[known, attribute], kind="stable")]
        places = np.flatnonzero(labels[order] == YES)
        descending = -answers.probabilities[order, attribute]
        # Before and through all photographs that have the same probability as one of yes:
        before = np.searchsorted(descending, descending[places], side="left")
        through = np.searchsorted(descending, descending[places], side="right")
        reached = _accumulate(by_photograph[order])  # (known + 1, resamples)
        own = by_photograph[order[places]]
        own_reached = _accumulate(own)
        own_through = own_reached[np.searchsorted(places, through)]
        no_before = reached[before] - own_reached[np.searchsorted(places, before)]
        no_through = reached[through] - own_through
        yes_count = own_reached[-1]
        no_count = reached[-1] - yes_count
        wins = (own * (no_count - (no_before + no_through) / 2)).sum(axis=0)
        areas[:, attribute] = divide(wins, yes_count * no_count)
        # Where a resample reaches nothing, it does not hold the photograph of yes either.
        precision = own_through / np.maximum(reached[through], 1)
        precisions[:, attribute] = divide((own * precision).sum(axis=0), np.where(no_count > 0, yes_count, 0))
    return areas, precisions


def _accumulate(rows: FloatArray) -> FloatArray:
    """Return the sums of the first 0, 1, … and of all rows."""
    sums = np.zeros((len(rows) + 1, rows.shape[1]))
    np.cumsum(rows, axis=0, out=sums[1:])
    return sums


def divide(numerators: FloatArray, denominators: FloatArray) -> FloatArray:
    """Return the quotients; NaN where the denominator is 0."""
    quotients: FloatArray = np.full(np.shape(numerators), np.nan)
    np.divide(numerators, denominators, out=quotients, where=denominators > 0)
    return quotients


def resample_metrics(answers: AttributeAnswers, seed: int) -> dict[str, FloatArray]:
    """Return each metric of each attribute in every resample of draw_weights, (resamples, A)."""
    row_count = max(1, _BLOCK_CELLS // len(answers.groups))
    parts = [
        weigh_metrics(answers, block[start : start + row_count])
        for block in draw_weights(answers.groups, seed)
        for start in range(0, len(block), row_count)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def find_intervals(resampled: Mapping[str, FloatArray], group_count: int) -> dict[str, Interval]:
    """Return intervals by compute_percentiles from (resamples,) values, without the resamples that lack a metric.

    A metric has none when it is undefined in more than a tenth of the resamples, when all of them are alike, as without
    any error, which shows nothing about other photographs, or when there are fewer than three groups.
    """
    if group_count < _MIN_GROUPS:
        return {}
    kept = {}
    for name, values in resampled.items():
        defined = values[~np.isnan(values)]
        if len(defined) >= _MIN_DEFINED * len(values) and defined.min() < defined.max():
            kept[name] = defined
    return compute_percentiles(kept, group_count)


def compute_attribute_metrics(
    answers: AttributeAnswers, frequent: NDArray[np.int8] | BoolArray, resampled: Mapping[str, FloatArray]
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
        known = answers.known[:, attribute]
        support, yes = int(known.sum()), int(answers.yes[:, attribute].sum())
        intervals = find_intervals(
            {metric: each[:, attribute] for metric, each in resampled.items() if metric in _INTERVAL_METRICS},
            len(np.unique(answers.groups[known])),
        )
        ends = {
            f"{metric}_{end}": getattr(intervals.get(metric), end, None)
            for metric in _INTERVAL_METRICS
            for end in ("low", "high")
        }
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


def compute_mean_metrics(answers: AttributeAnswers, frequent: NDArray[np.int8] | BoolArray) -> dict[str, float]:
    """Return a split's headline metrics: means over the attributes for which a metric is defined.

    Those that are defined for none are left out. The loss is the mean cross-entropy of all labels that are not blank.
    """
    weighed = weigh_metrics(answers, _weigh_once(answers))
    columns = {
        **{name: weighed[name] for name in MEAN_METRICS},
        "trivial_accuracy": _compute_trivial_accuracies(answers, frequent)[None],
        "calibration_error": _compute_calibration_errors(answers)[None],
    }
    metrics = {name: float(_average_defined(values)[0]) for name, values in columns.items()}
    of_actual = np.where(answers.yes, answers.probabilities, 1 - answers.probabilities)[answers.known]
    if len(of_actual):
        metrics["loss"] = float(-np.log(np.maximum(of_actual, np.finfo(np.float64).tiny)).mean())
    return {name: value for name, value in metrics.items() if not np.isnan(value)}


def compute_mean_intervals(resampled: Mapping[str, FloatArray], group_count: int) -> dict[str, Interval]:
    """Return the intervals of MEAN_METRICS, from what resample_metrics returned, by find_intervals.

    A resample's mean is over the attributes that are defined in it.
    """
    return find_intervals({name: _average_defined(resampled[name]) for name in MEAN_METRICS}, group_count)


def trace_attribute_curves(answers: AttributeAnswers) -> dict[str, list[Curve]]:
    """Return the curves of "roc" and "precision_recall" of each attribute that has labels of both values.

    A curve has at most 500 points, evenly chosen among those that make a difference; its area is that of all.
    """
    curves: dict[str, list[Curve]] = {"roc": [], "precision_recall": []}
    for attribute, name in enumerate(answers.names):
        known = answers.known[:, attribute]
        yes, scores = answers.yes[known, attribute], answers.probabilities[known, attribute]
        if yes.any() and not yes.all():
            curves["roc"].append(_thin(compute_roc(name, yes, scores)))
            curves["precision_recall"].append(_thin(compute_precision_recall(name, yes, scores)))
    return curves


def _thin(curve: Curve) -> Curve:
    if len(curve.x) <= _MAX_POINTS:
        return curve
    kept = np.linspace(0, len(curve.x) - 1, _MAX_POINTS).round().astype(np.int64)
    return replace(curve, x=curve.x[kept], y=curve.y[kept])


def _weigh_once(answers: AttributeAnswers) -> FloatArray:
    return np.ones((1, len(answers.labels)))


def _compute_trivial_accuracies(answers: AttributeAnswers, frequent: NDArray[np.int8] | BoolArray) -> FloatArray:
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


def _average_defined(values: FloatArray) -> FloatArray:
    """Return each row's mean of the columns that are not NaN; NaN when all are."""
    return divide(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))


def _drop_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
