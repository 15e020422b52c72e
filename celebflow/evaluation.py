"""Logits and labels → metrics; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
TOP_K = 5


@dataclass(frozen=True)
class PersonMetrics:
    """One person in one split; `support` counts their photographs. What cannot be said is None: recall and F1
    without support, precision of somebody who was never named, AUC without photographs of them or of others.
    """

    person: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None


@dataclass(frozen=True)
class RocCurve:
    """A receiver operating characteristic: (P,) false and true positive rates, and the area below."""

    name: str
    false_positive_rate: FloatArray
    true_positive_rate: FloatArray
    area: float


def softmax(logits: NDArray[np.floating]) -> FloatArray:
    """Turn (N, people) logits into probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def compute_metrics(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> dict[str, float]:
    """Return a split's headline figures from (N, people) logits and (N,) labels.

    Balanced accuracy (mean recall) and macro AUC (mean of one against the rest) are over the persons that are in the
    split; the AUC is left out when nobody has both photographs of their own and of others to compare. Top-5 accuracy
    counts a photograph when its person is among the five most probable, or among all when there are fewer.
    """
    probabilities = softmax(logits)
    picked = probabilities[np.arange(len(labels)), labels]
    predicted = logits.argmax(axis=1)
    most_probable = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]  # (N, ≤ 5)
    recalls = [float((predicted[labels == person] == person).mean()) for person in np.unique(labels)]
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "top_5_accuracy": float((most_probable == labels[:, None]).any(axis=1).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "loss": float(-np.log(np.maximum(picked, np.finfo(np.float64).tiny)).mean()),
    }
    areas = [curve.area for curve in compute_person_rocs(probabilities, labels, range(logits.shape[1]))]
    if areas:
        metrics["macro_auc"] = float(np.mean(areas))
    return metrics


def compute_person_metrics(
    logits: NDArray[np.floating], labels: NDArray[np.int64], class_names: Sequence[str]
) -> list[PersonMetrics]:
    """Return precision, recall, F1 and AUC of every person, also of those that the split lacks."""
    everyone = np.arange(len(class_names))
    predicted = logits.argmax(axis=1)
    from sklearn.metrics import precision_recall_fscore_support  # takes a second to import, and train needs none of it

    scores = precision_recall_fscore_support(labels, predicted, labels=everyone, zero_division=0)
    areas = {curve.name: curve.area for curve in compute_person_rocs(softmax(logits), labels, class_names)}
    rows = []
    for person, (name, precision, recall, f1, support) in enumerate(zip(class_names, *scores, strict=True)):
        rows.append(
            PersonMetrics(
                person=name,
                support=int(support),
                precision=float(precision) if (predicted == person).any() else None,
                recall=float(recall) if support else None,
                f1=float(f1) if support else None,
                auc=areas.get(name),
            )
        )
    return rows


def compute_person_rocs(
    probabilities: FloatArray, labels: NDArray[np.int64], class_names: Sequence[str] | range
) -> list[RocCurve]:
    """Return the curve of every person against the rest, but of those for whom there is none."""
    curves = []
    for person, name in enumerate(class_names):
        positive = labels == person
        if positive.any() and not positive.all():
            curves.append(_roc(str(name), positive, probabilities[:, person]))
    return curves


def compute_mean_rocs(
    person_rocs: Sequence[RocCurve], probabilities: FloatArray, labels: NDArray[np.int64]
) -> list[RocCurve]:
    """Return the macro curve (the mean of the persons' curves) and the micro one (all decisions pooled).

    The macro curve is the vertical average of Fawcett (2006, "An introduction to ROC analysis"): true positive rates
    averaged at every false positive rate that occurs, just before and just after it, since curves rise in steps.
    Its area is the mean of the persons' areas.
    """
    if not person_rocs:
        return []
    rates = np.unique(np.concatenate([curve.false_positive_rate for curve in person_rocs]))
    before, after = [], []
    for curve in person_rocs:
        x, y = curve.false_positive_rate, curve.true_positive_rate
        # Where a rate occurs several times, np.interp takes the last; backwards, that is the lowest.
        before.append(np.interp(-rates, -x[::-1], y[::-1]))
        after.append(np.interp(rates, x, y))
    mean = np.stack([np.mean(before, axis=0), np.mean(after, axis=0)], axis=1).ravel()
    macro = RocCurve("macro", np.repeat(rates, 2), mean, float(np.mean([curve.area for curve in person_rocs])))
    one_hot = labels[:, None] == np.arange(probabilities.shape[1])
    return [macro, _roc("micro", one_hot.ravel(), probabilities.ravel())]


def _roc(name: str, positive: NDArray[np.bool_], scores: FloatArray) -> RocCurve:
    from sklearn.metrics import auc, roc_curve

    false_positive_rate, true_positive_rate, _ = roc_curve(positive, scores)
    return RocCurve(name, false_positive_rate, true_positive_rate, float(auc(false_positive_rate, true_positive_rate)))
