"""Logits and labels → metrics; pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray, compute_loss
from celebflow.evaluation.curves import Curves
from celebflow.evaluation.significance import Interval
from celebflow.features.sparse import split_rows

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


def compute_metrics(
    logits: NDArray[np.floating], probabilities: FloatArray, labels: NDArray[np.int64], rocs: Curves
) -> dict[str, float]:
    """Return a split's headline metrics from (N, people) logits, their probabilities, (N,) labels and ROC curves.

    Balanced accuracy is the mean recall, and macro AUC the mean area of the ROC curves, over the people in the split.
    Without curves there is no macro AUC. Top-5 accuracy counts a photograph when its person is among the five most
    probable, or among all when there are fewer.
    """
    predicted = logits.argmax(axis=1)
    supports = np.bincount(labels)
    recalls = _count_hits(predicted, labels)[supports > 0] / supports[supports > 0]
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "top_5_accuracy": float((_rank_actual(logits, labels) < TOP_K).mean()),
        "balanced_accuracy": float(recalls.mean()),
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
    count = len(class_names)
    supports, guesses = np.bincount(labels, minlength=count).tolist(), np.bincount(predicted, minlength=count).tolist()
    hit_counts = _count_hits(predicted, labels, count).tolist()
    areas = {curve.name: curve.area for curve in rocs.people}
    average_precisions = {curve.name: curve.area for curve in precision_recalls.people}
    rows = []
    for name, support, guessed, hits in zip(class_names, supports, guesses, hit_counts, strict=True):
        low, high = compute_wilson_interval(hits, support) if support else (None, None)
        rows.append(
            PersonMetrics(
                person=name,
                support=support,
                precision=hits / guessed if guessed else None,
                recall=hits / support if support else None,
                recall_low=low,
                recall_high=high,
                f1=2 * hits / (support + guessed) if support else None,
                auc=areas.get(name),
                average_precision=average_precisions.get(name),
            )
        )
    return rows


def _count_hits(predicted: NDArray[np.int64], labels: NDArray[np.int64], person_count: int = 0) -> NDArray[np.int64]:
    """Return how many photographs of each person are predicted correctly, of those up to the last in `labels`."""
    return np.bincount(labels, predicted == labels, person_count).astype(np.int64)


def _rank_actual(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of N photographs how many people come before the actual one; of equal ones, the first does."""
    ranks = np.empty(len(labels), np.int64)
    for block in split_rows(*logits.shape):
        own = logits[np.arange(len(logits))[block], labels[block]][:, None]
        is_before = np.arange(logits.shape[1]) < labels[block, None]
        ranks[block] = ((logits[block] > own) | (logits[block] == own) & is_before).sum(axis=1)
    return ranks


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
