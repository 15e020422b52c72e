"""Folds → their metrics, and whether two recipes differ on the same folds; pure functions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from celebflow.classifier.calibration import FloatArray
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import Prediction
from celebflow.evaluation.significance import (
    CONFIDENCE,
    Interval,
    weigh_accuracy,
    weigh_balanced_accuracy,
    weigh_macro_auc,
)

if TYPE_CHECKING:
    from celebflow.classifier.out_of_fold import OutOfFold

METRICS = ("accuracy", "balanced_accuracy", "macro_auc")


@dataclass(frozen=True)
class FoldResult:
    """What a classifier reaches on the photographs of a fold, after training on those of the other folds.

    `repetition` and `fold` count from 1. `photographs_md5` tells which photographs the fold holds. Macro AUC is None
    where it is not defined.
    """

    repetition: int
    fold: int
    trained_on: int
    photographs: int
    photographs_md5: str
    accuracy: float
    balanced_accuracy: float
    macro_auc: float | None


@dataclass(frozen=True)
class Summary:
    """The mean of a metric over all folds, and their standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class FoldComparison:
    """B's mean accuracy minus A's over the same folds, its interval, and the p value of the corrected t test."""

    fold_count: int
    difference: float
    interval: Interval
    p_value: float

    @property
    def verdict(self) -> Literal["better", "worse", "chance"]:
        """Return whether B is better or worse than A, or the difference may be chance."""
        if self.p_value >= 1 - CONFIDENCE:
            return "chance"
        return "better" if self.difference > 0 else "worse"


def measure_folds(predicted: "OutOfFold", repetition: int) -> list[FoldResult]:
    """Return the results of the folds of one repetition, of the photographs that are judged."""
    results = []
    for fold in np.unique(predicted.folds[predicted.judged]):
        asked = np.flatnonzero(predicted.judged & (predicted.folds == fold))
        paths = "\n".join(predicted.photos[row].path for row in asked)
        md5 = hashlib.md5(paths.encode(), usedforsecurity=False).hexdigest()
        counts = int((predicted.folds != fold).sum()), len(asked)
        accuracy, balanced, area = _measure(predicted.probabilities[asked], predicted.labels[asked])
        results.append(FoldResult(repetition, int(fold) + 1, *counts, md5, accuracy, balanced, area))
    return results


def list_predictions(predicted: "OutOfFold") -> list[Prediction]:
    """Return the predictions of all photographs that are judged, each by the classifier that was not trained on it."""
    predictions = []
    for row in np.flatnonzero(predicted.judged):
        label, of_row = predicted.labels[row], predicted.probabilities[row]
        guess = int(of_row.argmax())
        names = predicted.class_names[label], predicted.class_names[guess]
        photo = predicted.photos[row]
        predictions.append(Prediction(photo.path, photo.group, *names, float(of_row[guess]), float(of_row[label])))
    return predictions


def _measure(probabilities: FloatArray, labels: NDArray[np.int64]) -> tuple[float, float, float | None]:
    """Return accuracy, balanced accuracy and macro AUC of (N, people) probabilities and (N,) labels."""
    weights = np.ones((1, len(labels)))
    hits = probabilities.argmax(axis=1) == labels
    accuracy, balanced = weigh_accuracy(hits, weights), weigh_balanced_accuracy(hits, labels, weights)
    area = float(weigh_macro_auc(probabilities, labels, weights)[0])
    return float(accuracy[0]), float(balanced[0]), None if np.isnan(area) else area


def summarize_folds(folds: Sequence[FoldResult]) -> dict[str, Summary]:
    """Return the summary of each metric that all folds have."""
    summaries = {}
    for metric in METRICS:
        values = [getattr(fold, metric) for fold in folds]
        if None not in values:
            summaries[metric] = Summary(float(np.mean(values)), float(np.std(values, ddof=1)))
    return summaries


def compare_folds(a: Sequence[FoldResult], b: Sequence[FoldResult]) -> FoldComparison:
    """Compare the accuracies of A and B on the same folds by the corrected resampled t test (Nadeau and Bengio, 2003).

    Trainings on different folds share most of their photographs. So the variance of the mean difference is that of the
    differences times 1 / folds plus the number of photographs in a fold over that of the others.

    Raises CelebflowError when the folds of A and B are not the same.
    """
    if [_identify(fold) for fold in a] != [_identify(fold) for fold in b]:
        raise CelebflowError(
            "The two results divide the photographs into other folds. Run `celebflow crossvalidate` for both with the "
            "same --folds and --repeats, the same train.seed, and the same photographs."
        )
    differences = np.array([other.accuracy - one.accuracy for one, other in zip(a, b, strict=True)])
    count = len(differences)
    ratio = float(np.mean([fold.photographs / fold.trained_on for fold in a]))
    mean = float(differences.mean())
    error = float(np.sqrt((1 / count + ratio) * differences.var(ddof=1)))
    if error == 0:
        return FoldComparison(count, mean, Interval(mean, mean), 1.0 if mean == 0 else 0.0)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    p_value = 2 * float(stdtr(count - 1, -abs(mean) / error))
    return FoldComparison(count, mean, Interval(mean - half, mean + half), p_value)


def _identify(fold: FoldResult) -> tuple[int, int, int, str]:
    return fold.repetition, fold.fold, fold.trained_on, fold.photographs_md5
