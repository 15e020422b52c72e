"""The workspace's learning curve of attributes → a table, a figure and a forecast in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from celebflow import paths
from celebflow.classifier.attribute_calibration import fit_attribute_calibration
from celebflow.classifier.attribute_subset_training import choose_attribute_fractions, train_attributes_on_subsets
from celebflow.classifier.attribute_training import select_attributes
from celebflow.classifier.fits import open_fits
from celebflow.data.attributes import YES, load_attributes
from celebflow.data.tables import save_rows
from celebflow.evaluation.attribute_answers import AttributeAnswers
from celebflow.evaluation.attribute_learning_curve import (
    AttributeLearningCurve,
    AttributeLearningPoint,
    build_attribute_learning_curve,
    require_groups,
)
from celebflow.experiments.learning import FRACTIONS, MAX_GAINS
from celebflow.experiments.lookup import require
from celebflow.features.store import load_features
from celebflow.params import load_params
from celebflow.report.attribute_figures import draw_attribute_learning_curve
from celebflow.report.figures import save_figure


@dataclass(frozen=True)
class AttributeLearningReport:
    """A learning curve of attributes; `counts` are how many labels of yes train has of each."""

    curve: AttributeLearningCurve
    counts: Mapping[str, int]


def measure_attribute_learning_curve(repetitions: int, figure: Path) -> AttributeLearningReport:
    """Train the workspace's recipe on parts of train; write reports/learning_curve.csv and a PNG file.

    Raises CelebflowError when there are no features, or too few photographs or people.
    """
    require(paths.FEATURES, paths.ATTRIBUTES)
    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    paths.require_writable(paths.LEARNING_CURVE, figure)
    table = load_attributes(paths.ATTRIBUTES)
    train, val = (select_attributes(features, table, split) for split in ("train", "val"))
    photos = [features.photos[row] for row in val.rows]
    groups = np.unique([photo.person or photo.group for photo in photos], return_inverse=True)[1]
    require_groups(groups)
    fractions = choose_attribute_fractions(features, FRACTIONS)
    results = train_attributes_on_subsets(
        features, table, params.train, params.compute, open_fits(features), fractions, repetitions
    )
    answers = [_answer(table.names, result.logits, val.labels, groups) for result in results]
    of_repetition = [answers[start : start + len(fractions)] for start in range(0, len(answers), len(fractions))]
    sizes = np.array([result.count for result in results]).reshape(repetitions, -1).mean(axis=0)
    curve = build_attribute_learning_curve(of_repetition, sizes.tolist())
    save_rows(AttributeLearningPoint, curve.points, paths.LEARNING_CURVE)
    warning = features.origin.backbone.warning()
    with paths.write_whole(figure) as part:
        save_figure(draw_attribute_learning_curve(curve, warning), params.plot.resolution_dpi, part)
    yes_counts = (train.labels == YES).sum(axis=0).tolist()
    return AttributeLearningReport(curve, dict(zip(table.names, yes_counts, strict=True)))


def _answer(
    names: tuple[str, ...], logits: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> AttributeAnswers:
    """Return the answers of val, calibrated on it as in training, at the thresholds for balanced accuracy."""
    calibration = fit_attribute_calibration(logits, labels, "balanced_accuracy")
    probabilities = calibration.compute_probabilities(logits)
    return AttributeAnswers(names, probabilities, labels.astype(np.int8), calibration.thresholds, groups)


def format_attribute_learning(report: AttributeLearningReport) -> str:
    """Return the curve as text: a table, what more photographs would bring, and which attributes they helped most."""
    parts = [_format_points(report.curve), _format_forecast(report.curve), _format_gains(report)]
    return "\n\n".join(part for part in parts if part)


def _format_points(curve: AttributeLearningCurve) -> str:
    rows = [
        [
            f"{point.photographs:.0f}",
            f"{point.average_precision:.3f} ({point.average_precision_low:.3f} to {point.average_precision_high:.3f})",
            f"{point.balanced_accuracy:.3f} ({point.balanced_accuracy_low:.3f} to {point.balanced_accuracy_high:.3f})",
        ]
        for point in curve.points
    ]
    headers = ["photographs", "average precision on val (95% interval)", "balanced accuracy at its thresholds"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def _format_forecast(curve: AttributeLearningCurve) -> str:
    forecast = curve.forecast
    interval = forecast.gain_interval
    gain, low, high = (f"{100 * each:+.1f}" for each in (forecast.gain, interval.low, interval.high))
    growth = forecast.photographs / curve.points[-1].photographs
    return (
        f"With {growth:g} times as many photographs ({forecast.photographs:.0f}), average precision on val would "
        f"change by about {gain} points ({low} to {high}), to {forecast.average_precision:.3f} "
        f"({forecast.interval.low:.3f} to {forecast.interval.high:.3f})."
    )


def _format_gains(report: AttributeLearningReport) -> str:
    """Return a table of the attributes whose average precision rose most from half of the photographs to all."""
    gains = sorted(report.curve.gains.items(), key=lambda each: (-each[1], each[0]))[:MAX_GAINS]
    rows = [[name, report.counts[name], f"{100 * gain:+.1f}"] for name, gain in gains if gain > 0]
    headers = ["gained most by the second half", "labels of yes in train", "average precision, in points"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=[0, 2])) if rows else ""
