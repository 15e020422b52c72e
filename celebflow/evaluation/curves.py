"""Scores and labels → ROC curves, and curves of precision and recall; pure functions.

Memory is that of the scores: curves of many people come from one column of scores after the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray

_MAX_POINTS = 500  # of a curve in a file or a figure, which shows no more


@dataclass(frozen=True)
class Curve:
    """A curve of P points over all thresholds, with the area below it.

    For a receiver operating characteristic (ROC), `x` and `y` are the (P,) false and true positive rates. For
    precision and recall, they are the (P,) recalls, ascending, and precisions; each precision is valid from its recall
    down to the previous one.
    """

    name: str
    x: FloatArray
    y: FloatArray
    area: float

    def thin(self) -> "Curve":
        """Return at most 500 points, evenly chosen among those that make a difference; the area is that of all."""
        if len(self.x) <= _MAX_POINTS:
            return self
        kept = np.linspace(0, len(self.x) - 1, _MAX_POINTS).round().astype(np.int64)
        return replace(self, x=self.x[kept], y=self.y[kept])


@dataclass(frozen=True)
class Curves:
    """One kind of curve of a split: every person against the rest, without people for whom it is undefined, and means.

    The means are "macro", of the people's curves, whose area is the mean of their areas, and "micro", of all decisions
    pooled. Without people there are no means.
    """

    people: list[Curve]
    means: list[Curve]


@dataclass
class _Counts:
    """How many scores exceed and how many reach each of the T `thresholds`, the distinct positive scores, ascending.

    The (T,) counts are of all scores that were added, and of the positive ones among them.
    """

    thresholds: FloatArray
    positive: NDArray[np.int64]  # positive scores that are equal to the threshold
    exceeding: NDArray[np.int64]
    reaching: NDArray[np.int64]
    count: int = 0

    @classmethod
    def of(cls, positive_scores: FloatArray) -> "_Counts":
        """Return counts to which no scores have been added, neither the positive nor the others."""
        thresholds, positive = np.unique(positive_scores, return_counts=True)
        return cls(thresholds, positive, np.zeros(len(thresholds), np.int64), np.zeros(len(thresholds), np.int64))

    def add(self, ascending: FloatArray) -> None:
        """Add scores, in ascending order; in the end, they must be all, with the positive ones."""
        self.exceeding += len(ascending) - np.searchsorted(ascending, self.thresholds, side="right")
        self.reaching += len(ascending) - np.searchsorted(ascending, self.thresholds, side="left")
        self.count += len(ascending)

    def trace_roc(self, name: str) -> Curve:
        """Return the ROC curve, which has points only where its direction changes."""
        hits = np.cumsum(self.positive[::-1])  # by descending thresholds, as all below
        positive, false_count = int(hits[-1]), self.count - int(hits[-1])
        falsely_exceeding = self.exceeding[::-1] - (hits - self.positive[::-1])
        falsely_reaching = self.reaching[::-1] - hits
        x = np.concatenate([[0], np.stack([falsely_exceeding, falsely_reaching], 1).ravel(), [false_count]])
        y = np.concatenate([[0], np.stack([hits - self.positive[::-1], hits], 1).ravel(), [positive]])
        x, y = _keep_corners(x, y)
        doubled_area = int(np.dot(np.diff(x), y[1:] + y[:-1]))
        return Curve(name, x / false_count, y / positive, doubled_area / (2 * false_count * positive))

    def trace_precision_recall(self, name: str) -> Curve:
        """Return the curve of precision and recall, with one point per recall."""
        hits = np.cumsum(self.positive[::-1])
        # Where several thresholds give the same recall, the best precision counts: that of the positive score.
        precisions = hits / self.reaching[::-1]
        area = float(np.dot(self.positive[::-1], precisions) / hits[-1])  # the average precision
        return Curve(name, np.append(0.0, hits / hits[-1]), np.append(1.0, precisions), area)


def _keep_corners(x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ends of a line of (P,) points and those where its direction changes."""
    moved = np.append(True, (np.diff(x) != 0) | (np.diff(y) != 0))
    x, y = x[moved], y[moved]
    right, up = np.diff(x), np.diff(y)
    turns = np.concatenate([[True], right[:-1] * up[1:] != up[:-1] * right[1:], [True]])
    return x[turns], y[turns]


def trace_people(
    probabilities: FloatArray, labels: NDArray[np.int64], class_names: Sequence[str] | range
) -> tuple[Curves, Curves]:
    """Return the ROC curves of (N, people) probabilities and (N,) labels, and those of precision and recall.

    The macro curve of the former is the vertical average of Fawcett (2006, "An introduction to ROC analysis"): the true
    positive rates are averaged just before and just after every false positive rate that occurs, since curves rise in
    steps. The area of the latter is the average precision; their macro curve is the people's mean precision at every
    recall.
    """
    rocs, precision_recalls = [], []
    pooled = _Counts.of(probabilities[np.arange(len(labels)), labels])
    own = _divide_by_label(labels, len(class_names))
    for name, column, rows in zip(class_names, probabilities.T, own, strict=True):
        ascending = np.sort(column)
        pooled.add(ascending)
        if 0 < len(rows) < len(labels):
            counts = _Counts.of(column[rows])
            counts.add(ascending)
            rocs.append(counts.trace_roc(str(name)))
            precision_recalls.append(counts.trace_precision_recall(str(name)))
    if not rocs:
        return Curves([], []), Curves([], [])
    return (
        Curves(rocs, [average_rocs(rocs), pooled.trace_roc("micro")]),
        Curves(
            precision_recalls, [average_precision_recalls(precision_recalls), pooled.trace_precision_recall("micro")]
        ),
    )


def _divide_by_label(labels: NDArray[np.int64], count: int) -> Iterator[NDArray[np.int64]]:
    """Yield for each of `count` labels where it is among the (N,), ascending."""
    order = np.argsort(labels, kind="stable")
    yield from np.split(order, np.searchsorted(labels[order], np.arange(1, count)))


def trace_both(name: str, positive: NDArray[np.bool_], scores: FloatArray) -> tuple[Curve, Curve]:
    """Return the ROC curve of (N,) scores, and that of precision and recall; both kinds of scores must occur."""
    counts = _Counts.of(scores[positive])
    counts.add(np.sort(scores))
    return counts.trace_roc(name), counts.trace_precision_recall(name)


def average_rocs(curves: Sequence[Curve]) -> Curve:
    """Return the macro curve of ROC curves, as trace_people describes it."""
    rates = np.unique(np.concatenate([curve.x for curve in curves]))  # (R,)
    before, after = np.zeros(len(rates)), np.zeros(len(rates))
    for curve in curves:
        # Where a rate occurs several times, np.interp takes the last point; of the reversed curve, that is the lowest.
        before += np.interp(-rates, -curve.x[::-1], curve.y[::-1])
        after += np.interp(rates, curve.x, curve.y)
    x, y = np.repeat(rates, 2), np.stack([before, after], axis=1).ravel() / len(curves)  # (2 R,) each
    return Curve("macro", x, y, float(np.mean([curve.area for curve in curves])))


def average_precision_recalls(curves: Sequence[Curve]) -> Curve:
    """Return the macro curve of precision and recall, as trace_people describes it."""
    recalls = np.unique(np.concatenate([curve.x for curve in curves]))
    precisions = np.zeros(len(recalls))
    for curve in curves:
        precisions += curve.y[np.searchsorted(curve.x, recalls)]
    return Curve("macro", recalls, precisions / len(curves), float(np.mean([curve.area for curve in curves])))
