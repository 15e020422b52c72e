"""What the answers to one attribute owe to another: accuracy in groups, and co-occurrence; pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from celebflow.classifier.calibration import FloatArray
from celebflow.data.attributes import NO, YES
from celebflow.evaluation.attribute_answers import AttributeAnswers, BoolArray, LabelArray, divide
from celebflow.evaluation.metrics import DEVIATIONS, compute_wilson_intervals
from celebflow.evaluation.significance import CONFIDENCE

MIN_GROUP_SIZE = 30  # photographs; what is said of fewer is mostly chance


@dataclass(frozen=True)
class GroupAccuracy:
    """An attribute's accuracy among the photographs in which another one, `given`, has the `value` "yes" or "no".

    `count` is how many photographs have labels of both, and `people` how many people, or groups of near-duplicates,
    they show. The other group are the photographs in which `given` has the other value; a difference is this group's
    metric minus the other's. Figures of a group without photographs are None, and so is the balanced accuracy of one
    that lacks a value of the attribute.

    The interval of the accuracy holds for itself alone. Those of the differences hold for all A (A - 1) comparisons at
    once (Bonferroni): in 95 % of such tables, no group seems to be at a disadvantage that is not.
    """

    attribute: str
    given: str
    value: str
    count: int
    people: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    other_accuracy: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    balanced_accuracy: float | None
    other_balanced_accuracy: float | None
    balanced_difference: float | None
    balanced_difference_low: float | None
    balanced_difference_high: float | None


@dataclass(frozen=True)
class _Estimate:
    """Values with the distances to the lower and upper ends of their intervals; NaN where undefined."""

    values: FloatArray
    below: FloatArray
    above: FloatArray

    def subtract(self, other: "_Estimate") -> "_Estimate":
        """Return the differences, with the hybrid score interval of Newcombe (1998)."""
        below, above = np.hypot(self.below, other.above), np.hypot(self.above, other.below)
        return _Estimate(self.values - other.values, below, above)

    def average(self, other: "_Estimate") -> "_Estimate":
        """Return the means of both, with intervals by the same method (MOVER; Zou and Donner, 2008)."""
        below, above = np.hypot(self.below, other.below) / 2, np.hypot(self.above, other.above) / 2
        return _Estimate((self.values + other.values) / 2, below, above)

    def swap_halves(self) -> "_Estimate":
        """Return the estimates of the other value of the attribute that is given; the columns are as in _count."""
        half = self.values.shape[1] // 2
        return _Estimate(*(np.roll(each, half, axis=1) for each in (self.values, self.below, self.above)))


@dataclass(frozen=True)
class _Tally:
    """How many photographs of one kind there are in each group, (A, 2 A), and how many answers are right."""

    counts: FloatArray
    hits: FloatArray
    effective: FloatArray

    def estimate(self, deviations: float) -> _Estimate:
        """Return the fractions of right answers, with Wilson's intervals."""
        values = divide(self.hits, self.counts)
        effective = np.where(self.counts > 0, self.effective, np.nan)
        low, high = compute_wilson_intervals(values, effective, deviations)
        return _Estimate(values, values - low, high - values)


def compute_group_accuracies(answers: AttributeAnswers) -> list[GroupAccuracy]:
    """Return a row for each attribute, each other attribute and both of its values.

    Intervals are Wilson's (1927), with effective counts: photographs of one person are answered alike, so they count
    for less (Kish's design effect, 1965, from the correlation of an attribute's answers within people). A bootstrap
    would call a small group without an error certain, and there are thousands of groups.
    """
    attribute_count = len(answers.names)
    comparisons = max(1, attribute_count * (attribute_count - 1))
    deviations = -float(ndtri((1 - CONFIDENCE) / 2 / comparisons))
    of_yes, of_no, of_both, people = _count(answers)
    accuracy = of_both.estimate(DEVIATIONS)
    wide = of_both.estimate(deviations)
    balanced = of_yes.estimate(deviations).average(of_no.estimate(deviations))
    difference = wide.subtract(wide.swap_halves())
    balanced_difference = balanced.subtract(balanced.swap_halves())
    columns = {
        "accuracy": accuracy.values,
        "accuracy_low": accuracy.values - accuracy.below,
        "accuracy_high": accuracy.values + accuracy.above,
        "other_accuracy": accuracy.swap_halves().values,
        "difference": difference.values,
        "difference_low": difference.values - difference.below,
        "difference_high": difference.values + difference.above,
        "balanced_accuracy": balanced.values,
        "other_balanced_accuracy": balanced.swap_halves().values,
        "balanced_difference": balanced_difference.values,
        "balanced_difference_low": balanced_difference.values - balanced_difference.below,
        "balanced_difference_high": balanced_difference.values + balanced_difference.above,
    }
    rows = []
    for attribute, name in enumerate(answers.names):
        for column, (given, value) in enumerate((given, value) for value in ("yes", "no") for given in answers.names):
            if given != name:
                figures = {key: float(each[attribute, column]) for key, each in columns.items()}
                rows.append(
                    GroupAccuracy(
                        attribute=name,
                        given=given,
                        value=value,
                        count=int(of_both.counts[attribute, column]),
                        people=int(people[attribute, column]),
                        **{key: None if np.isnan(figure) else figure for key, figure in figures.items()},
                    )
                )
    return rows


def list_worst_groups(
    rows: Sequence[GroupAccuracy],
    max_count: int,
    min_count: int,
    metric: Literal["accuracy", "balanced_accuracy"] = "accuracy",
) -> list[GroupAccuracy]:
    """Return the groups that are certainly at a disadvantage, the most certain ones first.

    They have at least `min_count` photographs, and the whole interval of their difference is below 0; its upper end,
    which is the least disadvantage that the data allow, ranks them. Accuracy is also lower where an attribute is merely
    less one-sided, as beards are among men; balanced accuracy does not depend on how frequent yes is.
    """
    end = {"accuracy": "difference_high", "balanced_accuracy": "balanced_difference_high"}[metric]
    certain = [row for row in rows if row.count >= min_count and (getattr(row, end) or 0) < 0]
    return sorted(certain, key=lambda row: float(getattr(row, end)))[:max_count]


def compute_co_occurrence(labels: LabelArray) -> FloatArray:
    """Return the (A, A) fractions of yes of the column's attribute among photographs with yes of the row's.

    `labels` (N, A) are YES, NO or BLANK; photographs with a blank of the column's attribute do not count. NaN without
    photographs.
    """
    yes = (labels == YES).astype(np.float64)
    known = yes + (labels == NO)
    return divide(yes.T @ yes, yes.T @ known)


def _count(answers: AttributeAnswers) -> tuple[_Tally, _Tally, _Tally, NDArray[np.int64]]:
    """Return the tallies of labels of yes, of no and of both, and the number of people, in each group.

    Rows are attributes; columns are the groups: yes of each attribute, then no of each.
    """
    given = np.concatenate([answers.yes, answers.no], axis=1).astype(np.float64)  # (N, 2 A)
    yes, no, known = answers.yes, answers.no, answers.known
    hits = answers.positive == yes
    order = np.argsort(answers.groups, kind="stable")
    starts = np.flatnonzero(np.diff(answers.groups[order], prepend=-1))  # of each person's photographs
    squares = np.zeros((3, len(answers.names), given.shape[1]))
    people = np.zeros(squares.shape[1:], np.int64)
    for photographs in np.split(order, starts[1:]):
        yes_counts = yes[photographs].T @ given[photographs]
        no_counts = no[photographs].T @ given[photographs]
        squares += np.stack([yes_counts, no_counts, yes_counts + no_counts]) ** 2
        people += yes_counts + no_counts > 0
    tallies = []
    for present, own_squares in zip((yes, no, known), squares, strict=True):
        counts = present.T @ given
        correlations = _estimate_correlations(present[order], (present & hits)[order], starts)
        repeats = np.divide(own_squares, counts, out=np.ones_like(counts), where=counts > 0) - 1
        tallies.append(_Tally(counts, (present & hits).T @ given, counts / (1 + correlations[:, None] * repeats)))
    of_yes, of_no, of_both = tallies
    return of_yes, of_no, of_both, people


def _estimate_correlations(present: BoolArray, hits: BoolArray, starts: NDArray[np.int64]) -> FloatArray:
    """Return how alike each attribute's answers about one person are, (A,): 0 when not at all, 1 when always.

    The intraclass correlation by the analysis of variance of hits (Ridout et al., 1999). `present` and `hits` are
    (N, A), sorted by person, each from one of `starts`. Where nothing shows it, as without an error, it is taken as 1.
    """
    counts = np.add.reduceat(present.astype(np.float64), starts)  # (people, A)
    own_hits = np.add.reduceat(hits.astype(np.float64), starts)
    total, people = counts.sum(axis=0), (counts > 0).sum(axis=0)
    explained = np.divide(own_hits**2, counts, out=np.zeros_like(counts), where=counts > 0).sum(axis=0)
    between = divide(explained - own_hits.sum(axis=0) ** 2 / np.maximum(total, 1), people - 1)
    within = divide(own_hits.sum(axis=0) - explained, total - people)
    size = divide(total - (counts**2).sum(axis=0) / np.maximum(total, 1), people - 1)  # mean photographs per person
    correlations = divide(between - within, between + (size - 1) * within)
    return np.where(np.isnan(correlations), 1.0, np.clip(correlations, 0, 1))
