"""Logits and labels → metrics and curves; pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray, compute_loss
from celebflow.evaluation.significance import Interval

TOP_K = 5
DEVIATIONS = 1.959963984540054  # standard deviations around the mean that hold 95 % of a normal distribution


@dataclass(frozen=True)
class PersonMetrics:
    """One person in one split; `support` is the number of their photographs.

    Undefined figures are None: recall and F1 of a person without photographs, precision of a person who is never
    predicted, AUC and average precision when the split lacks photographs of the person or of others.
    `recall_low` and `recall_high` are Wilson's 95 % interval (1927), which is valid for few photographs too.
    """

    person: str
    support: int
    precision: float | None
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    f1: float | None
    auc: float | None
    average_precision: float | None


@dataclass(frozen=True)
class Fraction:
    """How many of some photographs are of a kind, and Wilson's interval of the fraction."""

    hits: int
    count: int
    interval: Interval

    @property
    def value(self) -> float:
        """Return the fraction."""
        return self.hits / self.count


def measure_fraction(hits: int, count: int) -> Fraction:
    """Return the fraction hits / count of photographs that were drawn independently, one at least."""
    return Fraction(hits, count, Interval(*compute_wilson_interval(hits, count)))


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


@dataclass(frozen=True)
class Curves:
    """One kind of curve of a split: every person against the rest, without people for whom it is undefined, and means.

    The means are "macro", of the people's curves, whose area is the mean of their areas, and "micro", of all decisions
    pooled. Without people there are no means.
    """

    people: list[Curve]
    means: list[Curve]


def compute_metrics(
    logits: NDArray[np.floating], probabilities: FloatArray, labels: NDArray[np.int64], rocs: Curves
) -> dict[str, float]:
    """Return a split's headline metrics from (N, people) logits, their probabilities, (N,) labels and ROC curves.

    Balanced accuracy is the mean recall, and macro AUC the mean area of the ROC curves, over the people in the split.
    Without curves there is no macro AUC. Top-5 accuracy counts a photograph when its person is among the five most
    probable, or among all when there are fewer.
    """
    predicted = logits.argmax(axis=1)
    most_probable = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]  # (N, ≤ 5)
    recalls = [(predicted[labels == person] == person).mean() for person in np.unique(labels)]
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "top_5_accuracy": float((most_probable == labels[:, None]).any(axis=1).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "loss": compute_loss(probabilities, labels),
    }
    if rocs.means:
        macro, _ = rocs.means
        metrics["macro_auc"] = macro.area
    return metrics


def compute_person_metrics(
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    rocs: Curves,
    precision_recalls: Curves,
) -> list[PersonMetrics]:
    """Return the metrics of every person, including those without photographs in the split.

    `predicted` and `labels` are (N,) indices of the class names.
    """
    from sklearn.metrics import precision_recall_fscore_support  # takes a second to import, and train does not need it

    precisions, recalls, f1_scores, supports = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(class_names)), zero_division=0
    )
    areas = {curve.name: curve.area for curve in rocs.people}
    average_precisions = {curve.name: curve.area for curve in precision_recalls.people}
    rows = []
    for person, name in enumerate(class_names):
        support = int(supports[person])
        hits = int((predicted[labels == person] == person).sum())
        low, high = compute_wilson_interval(hits, support) if support else (None, None)
        rows.append(
            PersonMetrics(
                person=name,
                support=support,
                precision=float(precisions[person]) if (predicted == person).any() else None,
                recall=float(recalls[person]) if support else None,
                recall_low=low,
                recall_high=high,
                f1=float(f1_scores[person]) if support else None,
                auc=areas.get(name),
                average_precision=average_precisions.get(name),
            )
        )
    return rows


def compute_wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the ends of Wilson's interval of the fraction hits / count."""
    low, high = compute_wilson_intervals(np.array(hits / count), np.array(count, np.float64), DEVIATIONS)
    return float(low), float(high)


def compute_wilson_intervals(
    fractions: FloatArray, counts: FloatArray, deviations: float
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of Wilson's intervals, as scipy.stats does, which would take a second to import.

    `deviations` is how many standard deviations around the mean of a normal distribution hold the desired confidence.
    """
    spread = deviations**2 / counts
    center = (fractions + spread / 2) / (1 + spread)
    half = deviations / (1 + spread) * np.sqrt((fractions * (1 - fractions) + spread / 4) / counts)
    return np.maximum(0.0, center - half), np.minimum(1.0, center + half)


def is_lower_better(metric: str) -> bool:
    """Return whether the lowest value of a metric is the best: true for losses, errors and false answers alone."""
    return metric.endswith(("loss", "error", "equal_error_rate", "false_match_rate", "false_non_match_rate"))


def compute_rocs(probabilities: FloatArray, labels: NDArray[np.int64], class_names: Sequence[str] | range) -> Curves:
    """Return the ROC curves of (N, people) probabilities and (N,) labels.

    The macro curve is the vertical average of Fawcett (2006, "An introduction to ROC analysis"): the true positive
    rates are averaged just before and just after every false positive rate that occurs, since curves rise in steps.
    """
    return _compute_curves(compute_roc, average_rocs, probabilities, labels, class_names)


def compute_precision_recalls(
    probabilities: FloatArray, labels: NDArray[np.int64], class_names: Sequence[str] | range
) -> Curves:
    """Return the curves of precision and recall of (N, people) probabilities and (N,) labels.

    The area is the average precision. The macro curve is the people's mean precision at every recall.
    """
    return _compute_curves(compute_precision_recall, average_precision_recalls, probabilities, labels, class_names)


def _compute_curves(
    compute: Callable[[str, NDArray[np.bool_], FloatArray], Curve],
    average: Callable[[Sequence[Curve]], Curve],
    probabilities: FloatArray,
    labels: NDArray[np.int64],
    class_names: Sequence[str] | range,
) -> Curves:
    people = []
    for person, name in enumerate(class_names):
        positive = labels == person
        if positive.any() and not positive.all():
            people.append(compute(str(name), positive, probabilities[:, person]))
    if not people:
        return Curves([], [])
    decisions = labels[:, None] == np.arange(probabilities.shape[1])  # (N, people)
    return Curves(people, [average(people), compute("micro", decisions.ravel(), probabilities.ravel())])


def compute_roc(name: str, positive: NDArray[np.bool_], scores: FloatArray) -> Curve:
    """Return the ROC curve of (N,) scores, which has points only where its direction changes; both kinds must occur."""
    from sklearn.metrics import auc, roc_curve

    false_positive_rate, true_positive_rate, _ = roc_curve(positive, scores)
    return Curve(name, false_positive_rate, true_positive_rate, float(auc(false_positive_rate, true_positive_rate)))


def average_rocs(curves: Sequence[Curve]) -> Curve:
    """Return the macro curve of ROC curves, as compute_rocs describes it."""
    rates = np.unique(np.concatenate([curve.x for curve in curves]))  # (R,)
    # Where a rate occurs several times, np.interp takes the last point; of the reversed curve, that is the lowest.
    before = np.mean([np.interp(-rates, -curve.x[::-1], curve.y[::-1]) for curve in curves], axis=0)
    after = np.mean([np.interp(rates, curve.x, curve.y) for curve in curves], axis=0)
    x, y = np.repeat(rates, 2), np.stack([before, after], axis=1).ravel()  # (2 R,) each
    return Curve("macro", x, y, float(np.mean([curve.area for curve in curves])))


def compute_precision_recall(name: str, positive: NDArray[np.bool_], scores: FloatArray) -> Curve:
    """Return the curve of precision and recall of (N,) scores, with one point per recall; some must be positive."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    # By ascending recall; where several thresholds give the same recall, the best precision counts.
    recalls, starts = np.unique(recall[::-1], return_index=True)
    best = np.maximum.reduceat(precision[::-1], starts)
    return Curve(name, recalls, best, float(average_precision_score(positive, scores)))


def average_precision_recalls(curves: Sequence[Curve]) -> Curve:
    """Return the macro curve of precision and recall, as compute_precision_recalls describes it."""
    recalls = np.unique(np.concatenate([curve.x for curve in curves]))
    precisions = np.mean([curve.y[np.searchsorted(curve.x, recalls)] for curve in curves], axis=0)
    return Curve("macro", recalls, precisions, float(np.mean([curve.area for curve in curves])))
