"""How well attributes are told by the number of photographs to train on, and what more would bring; pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray
from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_answers import (
    MIN_DEFINED,
    MIN_GROUPS,
    AttributeAnswers,
    resample_metrics,
    weigh_metrics,
)
from celebflow.evaluation.attribute_metrics import average_defined
from celebflow.evaluation.learning_curve import CURVE_RESAMPLES, GROWTH, continue_curve, draw_shares, find_half
from celebflow.evaluation.significance import BOOTSTRAP_SEED, Interval, compute_percentiles

_METRICS = ("average_precision", "balanced_accuracy")


@dataclass(frozen=True)
class AttributeLearningPoint:
    """What val says after training on so many photographs: means over attributes and repetitions, 95% intervals.

    Balanced accuracy is that at the thresholds that are for it.
    """

    photographs: float
    average_precision: float
    average_precision_low: float
    average_precision_high: float
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float


@dataclass(frozen=True)
class AttributeForecast:
    """What average precision a fitted curve gives with so many photographs, and the change from all that there are.

    Both have 95% intervals.
    """

    photographs: float
    average_precision: float
    interval: Interval
    gain: float
    gain_interval: Interval


@dataclass(frozen=True)
class AttributeLearningCurve:
    """The curve's points, from few photographs to all, the fitted line, and what it forecasts.

    `gains` say by how much the average precision of each attribute rose from half of the photographs, or nearly, to
    all. Those of which val has no yes, or no no, are left out.
    """

    points: list[AttributeLearningPoint]
    line: list[AttributeForecast]
    forecast: AttributeForecast
    gains: dict[str, float]


def build_attribute_learning_curve(
    answers: Sequence[Sequence[AttributeAnswers]], sizes: Sequence[float], growth: float = GROWTH
) -> AttributeLearningCurve:
    """Build the curve from the answers on val of models that were trained on parts, one row per repetition.

    `sizes` are the numbers of photographs, ascending, one for each model of a row. What average precision lacks to 1
    follows the power law of build_learning_curve, and the intervals resample the same: val, by the people or groups of
    near-duplicates in the answers, the repetitions and, for the forecast, the sizes.

    Raises CelebflowError when val has too few people or labels for intervals.
    """
    require_groups(answers[0][0].groups)
    once = np.ones((1, len(answers[0][0].labels)))
    measured = [[weigh_metrics(each, once) for each in row] for row in answers]
    resampled = [[resample_metrics(each, BOOTSTRAP_SEED, CURVE_RESAMPLES) for each in row] for row in answers]
    group_count = int(answers[0][0].groups.max()) + 1
    shares = draw_shares(len(answers))
    values: dict[str, FloatArray] = {}  # (1 + resamples, sizes) of each metric
    for name in _METRICS:
        means = np.array(
            [
                [
                    average_defined(np.concatenate([first[name], others[name]]))
                    for first, others in zip(*rows, strict=True)
                ]
                for rows in zip(measured, resampled, strict=True)
            ]
        )  # (repetitions, sizes, 1 + resamples)
        values[name] = np.einsum("rsb,br->bs", means, shares)
    defined = ~np.isnan(np.concatenate([values[name] for name in _METRICS], axis=1)).any(axis=1)  # (1 + resamples,)
    if not defined[0] or defined.mean() < MIN_DEFINED:
        raise CelebflowError(
            "val has too few labels for a learning curve: of no attribute, enough people have yes and enough have no. "
            "Add photographs."
        )
    values = {name: each[defined] for name, each in values.items()}
    points = []
    for position, size in enumerate(sizes):
        numbers: list[float] = []
        for name in _METRICS:
            of_size = values[name][:, position]
            interval = compute_percentiles({name: of_size[1:]}, group_count)[name]
            numbers += [float(of_size[0]), interval.low, interval.high]
        points.append(AttributeLearningPoint(size, *numbers))
    line, forecast = continue_curve(values["average_precision"], sizes, growth, AttributeForecast, group_count)
    of_attributes = np.array([[each["average_precision"][0] for each in row] for row in measured]).mean(axis=0)
    rises = of_attributes[-1] - of_attributes[find_half(sizes)]  # (A,)
    named = zip(answers[0][0].names, rises.tolist(), strict=True)
    return AttributeLearningCurve(points, line, forecast, {name: rise for name, rise in named if not np.isnan(rise)})


def require_groups(groups: NDArray[np.int64]) -> None:
    """Raise CelebflowError when the (N,) people or groups of near-duplicates of val are too few for intervals."""
    if (count := len(np.unique(groups))) < MIN_GROUPS:
        raise CelebflowError(
            f"val has too few people for a learning curve: {count} people or groups of near-duplicates, and three are "
            "needed. Add photographs of others, or raise prepare.val_fraction."
        )
