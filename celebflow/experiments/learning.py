"""The workspace's learning curve → a table, a figure and a forecast in words."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from celebflow import paths
from celebflow.classifier.fits import open_fits
from celebflow.classifier.subset_training import choose_fractions, train_on_subsets
from celebflow.data.photos import list_people, number_groups
from celebflow.data.tables import save_rows
from celebflow.evaluation.learning_curve import LearningCurve, LearningPoint, build_learning_curve, find_gains
from celebflow.experiments.lookup import load_for_recognition
from celebflow.features.store import select_split
from celebflow.report.figures import draw_learning_curve, save_figure

FRACTIONS = (1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0)
MAX_GAINS = 5  # that are listed


@dataclass(frozen=True)
class LearningReport:
    """A learning curve; `gains` say by how much each person's recall rose from half of the photographs to all.

    `counts` are how many photographs of each person train has.
    """

    curve: LearningCurve
    gains: Mapping[str, float]
    counts: Mapping[str, int]


def measure_learning_curve(repetitions: int, figure: Path) -> LearningReport:
    """Train the workspace's recipe on parts of train; write reports/learning_curve.csv and a PNG file.

    Raises CelebflowError when there are no features or too few photographs, or the task does not recognize people.
    """
    params, features = load_for_recognition("Learning curves are")
    paths.require_writable(paths.LEARNING_CURVE, figure)
    names = list_people(features.photos)
    val = select_split(features, names, "val")
    fractions = choose_fractions(features, FRACTIONS)
    results = train_on_subsets(features, params.train, params.compute, open_fits(features), fractions, repetitions)
    shape = repetitions, len(fractions), -1
    hits = np.array([result.logits.argmax(axis=1) == val.labels for result in results]).reshape(shape)
    sizes = np.array([result.count for result in results]).reshape(shape[:2]).mean(axis=0) / len(names)
    groups = number_groups(features.photos[row] for row in val.rows)
    curve = build_learning_curve(hits, val.labels, groups, sizes.tolist())
    save_rows(LearningPoint, curve.points, paths.LEARNING_CURVE)
    warning = features.origin.backbone.warning()
    with paths.write_whole(figure) as part:
        save_figure(draw_learning_curve(curve, warning), params.plot.resolution_dpi, part)
    counts = dict(Counter(photo.person for photo in features.photos if photo.split == "train"))
    return LearningReport(curve, find_gains(hits, val.labels, sizes.tolist(), names), counts)


def format_learning(report: LearningReport) -> str:
    """Return the curve as text: a table, what more photographs would bring, and whom they helped most."""
    parts = [_format_points(report.curve), _format_forecast(report.curve), _format_gains(report)]
    return "\n\n".join(part for part in parts if part)


def _format_points(curve: LearningCurve) -> str:
    rows = [
        [
            f"{point.photographs_per_person:.1f}",
            f"{point.accuracy:.3f} ({point.accuracy_low:.3f} to {point.accuracy_high:.3f})",
            f"{point.balanced_accuracy:.3f} ({point.balanced_accuracy_low:.3f} to {point.balanced_accuracy_high:.3f})",
        ]
        for point in curve.points
    ]
    headers = ["photographs per person", "accuracy on val (95% interval)", "balanced accuracy (95% interval)"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def _format_forecast(curve: LearningCurve) -> str:
    forecast = curve.forecast
    interval = forecast.gain_interval
    gain, low, high = (f"{100 * each:+.1f}" for each in (forecast.gain, interval.low, interval.high))
    growth = forecast.photographs_per_person / curve.points[-1].photographs_per_person
    return (
        f"With {growth:g} times as many photographs ({forecast.photographs_per_person:.0f} per person), accuracy on "
        f"val would change by about {gain} points ({low} to {high}), to {forecast.accuracy:.3f} "
        f"({forecast.interval.low:.3f} to {forecast.interval.high:.3f})."
    )


def _format_gains(report: LearningReport) -> str:
    """Return a table of the people whose recall rose most from half of the photographs to all."""
    gains = sorted(report.gains.items(), key=lambda each: (-each[1], each[0]))[:MAX_GAINS]
    rows = [[person, report.counts[person], f"{100 * gain:+.1f}"] for person, gain in gains if gain > 0]
    headers = ["gained most by the second half", "photographs in train", "recall, in points"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=[0, 2])) if rows else ""
