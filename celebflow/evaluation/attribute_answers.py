"""Answers to yes-or-no questions, and their metrics in every resample; pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray
from celebflow.data.attributes import BLANK, NO, YES
from celebflow.evaluation.significance import RESAMPLES, Interval, compute_percentiles, draw_weights

MIN_GROUPS = 3  # whose resamples differ
MIN_DEFINED = 0.9  # the fraction of resamples in which a metric must be defined to have an interval
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


def resample_metrics(answers: AttributeAnswers, seed: int, resamples: int = RESAMPLES) -> dict[str, FloatArray]:
    """Return each metric of each attribute in every resample of draw_weights, (resamples, A)."""
    row_count = max(1, _BLOCK_CELLS // len(answers.groups))
    parts = [
        weigh_metrics(answers, block[start : start + row_count])
        for block in draw_weights(answers.groups, seed, resamples)
        for start in range(0, len(block), row_count)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def find_intervals(resampled: Mapping[str, FloatArray], group_count: int) -> dict[str, Interval]:
    """Return intervals by compute_percentiles from (resamples,) values, without the resamples that lack a metric.

    A metric has none when it is undefined in more than a tenth of the resamples, when all of them are alike, as without
    any error, which shows nothing about other photographs, or when there are fewer than three groups.
    """
    if group_count < MIN_GROUPS:
        return {}
    kept = {}
    for name, values in resampled.items():
        defined = values[~np.isnan(values)]
        if len(defined) >= MIN_DEFINED * len(values) and defined.min() < defined.max():
            kept[name] = defined
    return compute_percentiles(kept, group_count)
