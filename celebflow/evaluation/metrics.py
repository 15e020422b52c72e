"""Logits and labels → metrics; pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray, compute_loss

TOP_K = 5


@dataclass(frozen=True)
class PersonMetrics:
    """One person in one split; `support` counts their photographs. What cannot be said is None: recall and F1
    without support, precision of somebody who was never named, AUC without photographs of them or of others.

    `recall_low` and `recall_high` are Wilson's 95 % interval (1927), which holds for few photographs, too.
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
class Curve:
    """A curve over all thresholds, with the area below.

    Of a receiver operating characteristic (ROC), `x` and `y` are the (P,) false and true positive rates; of precision
    and recall, the (P,) recalls, ascending, and precisions, which hold from each recall down to the one before.
    """

    name: str
    x: FloatArray
    y: FloatArray
    area: float


def compute_metrics(
    logits: NDArray[np.floating], probabilities: FloatArray, labels: NDArray[np.int64], person_rocs: Sequence[Curve]
) -> dict[str, float]:
    """Return a split's headline figures from (N, people) logits, their probabilities, (N,) labels and ROC curves.

    Balanced accuracy (mean recall) and macro AUC (mean of one against the rest) are over the people that are in the
    split; the AUC is left out when nobody has both photographs of their own and of others to compare. Top-5 accuracy
    counts a photograph when its person is among the five most probable, or among all when there are fewer.
    """
    predicted = logits.argmax(axis=1)
    most_probable = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]  # (N, ≤ 5)
    recalls = [float((predicted[labels == person] == person).mean()) for person in np.unique(labels)]
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "top_5_accuracy": float((most_probable == labels[:, None]).any(axis=1).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "loss": compute_loss(probabilities, labels),
    }
    if person_rocs:
        metrics["macro_auc"] = float(np.mean([curve.area for curve in person_rocs]))
    return metrics


def compute_person_metrics(
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    person_rocs: Sequence[Curve],
    person_precision_recalls: Sequence[Curve],
) -> list[PersonMetrics]:
    """Return the figures of every person, also of those that the split lacks.

    `predicted` and `labels` are (N,) indices of the class names.
    """
    everyone = np.arange(len(class_names))
    from sklearn.metrics import precision_recall_fscore_support  # takes a second to import, and train needs none of it

    scores = precision_recall_fscore_support(labels, predicted, labels=everyone, zero_division=0)
    areas = {curve.name: curve.area for curve in person_rocs}
    average_precisions = {curve.name: curve.area for curve in person_precision_recalls}
    rows = []
    for person, (name, precision, recall, f1, support) in enumerate(zip(class_names, *scores, strict=True)):
        hits = int((predicted[labels == person] == person).sum())
        low, high = _wilson_interval(hits, int(support)) if support else (None, None)
        rows.append(
            PersonMetrics(
                person=name,
                support=int(support),
                precision=float(precision) if (predicted == person).any() else None,
                recall=float(recall) if support else None,
                recall_low=low,
                recall_high=high,
                f1=float(f1) if support else None,
                auc=areas.get(name),
                average_precision=average_precisions.get(name),
            )
        )
    return rows


def _wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the ends of Wilson's interval, as scipy.stats has it, which would take a second to import."""
    deviations = 1.959963984540054  # of a normal distribution, that hold 95 % of it
    share, spread = hits / count, deviations**2 / count
    center = (share + spread / 2) / (1 + spread)
    half = deviations / (1 + spread) * float(np.sqrt((share * (1 - share) + spread / 4) / count))
    return max(0.0, center - half), min(1.0, center + half)


def is_lower_better(metric: str) -> bool:
    """Tell whether the least of a metric is the best, as of losses and errors; of all else it is the greatest."""
    return metric.endswith(("loss", "error"))


def compute_person_rocs(
    probabilities: FloatArray, labels: NDArray[np.int64], class_names: Sequence[str] | range
) -> list[Curve]:
    """Return the ROC of every person against the rest, but of those for whom there is none."""
    return _curves_of_people(_roc, probabilities, labels, class_names)


def compute_person_precision_recalls(
    probabilities: FloatArray, labels: NDArray[np.int64], class_names: Sequence[str] | range
) -> list[Curve]:
    """Return precision and recall of every person against the rest, but of those for whom there is none.

    The area is the average precision.
    """
    return _curves_of_people(_precision_recall, probabilities, labels, class_names)


def compute_mean_rocs(
    person_rocs: Sequence[Curve], probabilities: FloatArray, labels: NDArray[np.int64]
) -> list[Curve]:
    """Return the macro curve (the mean of the people' curves) and the micro one (all decisions pooled).

    The macro curve is the vertical average of Fawcett (2006, "An introduction to ROC analysis"): true positive rates
    averaged at every false positive rate that occurs, just before and just after it, since curves rise in steps.
    Its area is the mean of the people' areas.
    """
    if not person_rocs:
        return []
    rates = np.unique(np.concatenate([curve.x for curve in person_rocs]))
    before, after = [], []
    for curve in person_rocs:
        # Where a rate occurs several times, np.interp takes the last; backwards, that is the lowest.
        before.append(np.interp(-rates, -curve.x[::-1], curve.y[::-1]))
        after.append(np.interp(rates, curve.x, curve.y))
    mean = np.stack([np.mean(before, axis=0), np.mean(after, axis=0)], axis=1).ravel()
    macro = Curve("macro", np.repeat(rates, 2), mean, float(np.mean([curve.area for curve in person_rocs])))
    return [macro, _roc("micro", *_pool(probabilities, labels))]


def compute_mean_precision_recalls(
    person_curves: Sequence[Curve], probabilities: FloatArray, labels: NDArray[np.int64]
) -> list[Curve]:
    """Return the macro curve (the mean of the people' precisions at every recall) and the micro one (all pooled).

    The area of the macro curve is the mean average precision.
    """
    if not person_curves:
        return []
    recalls = np.unique(np.concatenate([curve.x for curve in person_curves]))
    precisions = np.mean([curve.y[np.searchsorted(curve.x, recalls)] for curve in person_curves], axis=0)
    macro = Curve("macro", recalls, precisions, float(np.mean([curve.area for curve in person_curves])))
    return [macro, _precision_recall("micro", *_pool(probabilities, labels))]


def _curves_of_people(
    compute: Callable[[str, NDArray[np.bool_], FloatArray], Curve],
    probabilities: FloatArray,
    labels: NDArray[np.int64],
    class_names: Sequence[str] | range,
) -> list[Curve]:
    curves = []
    for person, name in enumerate(class_names):
        positive = labels == person
        if positive.any() and not positive.all():
            curves.append(compute(str(name), positive, probabilities[:, person]))
    return curves


def _pool(probabilities: FloatArray, labels: NDArray[np.int64]) -> tuple[NDArray[np.bool_], FloatArray]:
    one_hot = labels[:, None] == np.arange(probabilities.shape[1])
    return one_hot.ravel(), probabilities.ravel()


def _roc(name: str, positive: NDArray[np.bool_], scores: FloatArray) -> Curve:
    from sklearn.metrics import auc, roc_curve

    false_positive_rate, true_positive_rate, _ = roc_curve(positive, scores)
    return Curve(name, false_positive_rate, true_positive_rate, float(auc(false_positive_rate, true_positive_rate)))


def _precision_recall(name: str, positive: NDArray[np.bool_], scores: FloatArray) -> Curve:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    # By ascending recall; of the thresholds that find as many, the highest is the most precise.
    recalls, starts = np.unique(recall[::-1], return_index=True)
    best = np.maximum.reduceat(precision[::-1], starts)
    return Curve(name, recalls, best, float(average_precision_score(positive, scores)))
