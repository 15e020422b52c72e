"""Results → matplotlib figures, in one style."""

import io
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from PIL import Image

from celebflow.classifier.calibration import ReliabilityBin, compute_calibration_error
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.history import EpochResult
from celebflow.evaluation.confusion import count_confusions
from celebflow.evaluation.curves import Curves
from celebflow.evaluation.learning_curve import LearningCurve
from celebflow.evaluation.metrics import PersonMetrics
from celebflow.evaluation.open_set import OpenSetRates
from celebflow.evaluation.results import Prediction, Report
from celebflow.report.fonts import ignore_missing_glyphs
from celebflow.report.forks import share_out
from celebflow.report.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, new_blank_figure, new_figure, plain

_PEOPLE_PER_COLUMN = 40
_CURVES_PER_COLUMN = 36
# With more people than this, figures name those who are recognized worst.
_MAX_PEOPLE = 200
_MAX_MATRIX_NAMES = 120  # of a confusion matrix: what fits beside its rows
_MAX_MATRIX_INCHES = 26.0
_MAX_NAME_LENGTH = 30
_Point = tuple[float, float, float, float]  # a size, a value there, and the ends of its interval
_COMPRESS_LEVEL = 2  # of 9: takes less than half of the default level's time, for 8% more bytes


def draw_charts(report: Report, card: ClassifierCard) -> dict[str, Figure]:
    """Draw every figure of a result that shows numbers; the keys are the names of their files.

    There is no figure of what a split lacks: curves when it has photographs of only one person, and the rates of
    unknown people when the classifier has only two people.
    """
    warning = card.backbone.warning()
    figures = {
        "accuracy": draw_history(report.history, "accuracy", "Accuracy", 1.03, warning),
        "loss": draw_history(report.history, "loss", "Loss (cross-entropy)", None, warning),
    }
    for name, split in report.splits.items():
        figures |= {
            f"{name}_confusion_matrix": draw_confusion_matrix(split.predictions, card.class_names, name, warning),
            f"{name}_recall_by_person": draw_recall_by_person(split.people, name, warning),
            f"{name}_reliability": draw_reliability(split.reliability, name, warning),
        }
        if split.rocs.people:
            figures[f"{name}_roc"] = draw_roc(split.rocs, name, warning)
            figures[f"{name}_precision_recall"] = draw_precision_recall(split.precision_recalls, name, warning)
        if split.open_set:
            figures[f"{name}_open_set"] = draw_open_set(
                split.open_set, card.calibration.false_acceptance_rate, name, warning
            )
    return figures


def save_figures(figures: Mapping[str, Figure], resolution_dpi: int, folder: Path) -> None:
    """Write figures as PNG files to `folder`, and make the folder if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{name}.png": figure for name, figure in figures.items()}
    share_out(lambda file: save_figure(files[file], resolution_dpi, file), list(files))


def save_figure(figure: Figure, resolution_dpi: int, file: Path) -> None:
    """Write a figure as a PNG file, whatever its name."""
    figure.set_dpi(resolution_dpi)
    canvas = FigureCanvasAgg(figure)
    with ignore_missing_glyphs():
        canvas.draw()  # type: ignore[no-untyped-call] # once; savefig would draw it twice to lay it out
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels).convert("RGB")
    content = io.BytesIO()  # Pillow itself opens a file to read it, too, which a pipe cannot
    image.save(content, "PNG", dpi=(resolution_dpi, resolution_dpi), compress_level=_COMPRESS_LEVEL)
    file.write_bytes(content.getvalue())


def draw_history(
    history: Sequence[EpochResult], measure: Literal["accuracy", "loss"], name: str, top: float | None, warning: str
) -> Figure:
    """Draw a measure of training and validation by epoch, from 0 to `top`; a single epoch as bars.

    LDA and logistic regression have one epoch, because they are fitted at once.
    """
    if len(history) == 1:
        return _draw_only_epoch(history[0], measure, name, top, warning)
    figure, axes = new_figure(6.4, 4.2, warning)
    epochs = [result.epoch for result in history]
    for split, color, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
        values = [getattr(result, f"{split}_{measure}") for result in history]
        label = f"{split}: {values[-1]:.3f} in the last epoch"
        axes.plot(epochs, values, color=color, marker=marker, markersize=4, label=label)
    axes.set(title=f"{name} by epoch", xlabel="Epoch", ylabel=name)
    axes.set(xlim=(0.5, epochs[-1] + 0.5), ylim=(0, top))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _draw_only_epoch(
    result: EpochResult, measure: Literal["accuracy", "loss"], name: str, top: float | None, warning: str
) -> Figure:
    figure, axes = new_figure(6.4, 2.4, warning)
    values = [getattr(result, f"{split}_{measure}") for split in ("train", "val")]
    bars = axes.barh(["train", "val"], values, color=[BLUE, ORANGE])
    axes.bar_label(bars, fmt="%.3f", padding=4)
    axes.set(title=f"{name} after training", xlabel=name)
    axes.set_xlim(0, 1.15 * (top or max(*values, 1e-3)))  # leaves room for the numbers
    axes.invert_yaxis()  # train above val
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_confusion_matrix(
    predictions: Sequence[Prediction], class_names: Sequence[str], split: str, warning: str
) -> Figure:
    """Draw who is predicted as whom: rows are the actual people, and cells are shaded by their fraction of the row.

    Of many people, only those with the most errors have a row and a column of their own.
    """
    correct = sum(prediction.is_hit for prediction in predictions)
    pairs = [(prediction.actual, prediction.predicted) for prediction in predictions]
    confusion = count_confusions(pairs, class_names, _MAX_PEOPLE, _MAX_MATRIX_NAMES - 1)
    counts, names = confusion.counts, confusion.names
    note = ""
    if confusion.merged_count:
        note = (
            f"The {len(names) - 1} of {len(class_names)} people with the most errors, as the actual or the predicted "
            "person. The others are one row and one column; predictions.csv lists everybody."
        )
    size = min(_MAX_MATRIX_INCHES, 4.6 + 0.27 * len(names))
    figure, axes = new_figure(size + 1, size, warning)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    every = ceil(len(names) / _MAX_MATRIX_NAMES)  # names thin out rather than overlap
    ticks = range(0, len(names), every)
    labels = [_label(name) for name in names[::every]]
    axes.set_xticks(ticks, labels, rotation=90, fontsize=7)
    axes.set_yticks(ticks, labels, fontsize=7)
    if len(names) <= 60:
        for row, column in zip(*np.nonzero(counts), strict=True):
            shade = "white" if fractions[row, column] > 0.55 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=6.5, color=shade)
    accuracy = correct / max(len(predictions), 1)
    title = f"Confusion matrix, {split}: {correct} of {len(predictions)} correct ({accuracy:.1%})"
    axes.set(title=title, xlabel="Predicted", ylabel="Actual")
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="Fraction of the person's photographs")
    if note:
        figure.supxlabel(note, fontsize=9)
    return figure


def draw_recall_by_person(
    people: Sequence[PersonMetrics], split: str, warning: str, counted: str = "photographs"
) -> Figure:
    """Draw each person's recall with its interval and the number of what is `counted`, lowest recall first.

    Of many people, only those with the lowest recall have a line.
    """
    present = [person for person in people if person.recall is not None]
    in_order = sorted(present, key=lambda person: (person.recall, -person.support, person.person))
    ranked = in_order[:_MAX_PEOPLE]
    column_count = ceil(len(ranked) / _PEOPLE_PER_COLUMN)
    row_count = ceil(len(ranked) / column_count)
    figure = new_blank_figure(max(6.4, 3.4 * column_count), 1.6 + 0.18 * max(row_count, 5), warning)
    values = np.array([(row.recall, row.recall_low, row.recall_high) for row in ranked], np.float64)  # (P, 3)
    mean = np.array([person.recall for person in present], np.float64).mean()
    columns = figure.subplots(1, column_count, sharex=True, squeeze=False)[0]
    for column, axes in enumerate(columns):
        rows = slice(column * row_count, (column + 1) * row_count)
        recalls, lows, highs = values[rows].T
        places = range(len(recalls))
        axes.hlines(places, lows, highs, color=SKY, linewidth=2.5)
        axes.plot(recalls, places, color=BLUE, marker="o", markersize=4.5, linestyle="")
        axes.axvline(mean, color=ORANGE, linewidth=1, linestyle="--")
        labels = [f"{_label(person.person)}  {person.support}" for person in ranked[rows]]
        axes.set_yticks(places, labels, fontsize=7)
        axes.set(xlim=(-0.03, 1.03), ylim=(row_count - 0.5, -0.5), xlabel="Recall")
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    columns[0].set_title(f"Recall by person, {split}, lowest first; mean {mean:.3f}", loc="left")
    details = f"After each name: number of {counted}. Lines: 95% intervals (Wilson). Dashed: mean."
    hidden = in_order[_MAX_PEOPLE:]
    if hidden:
        details += (
            f" Shown are {len(ranked)} of {len(present)} people; the recall of the {len(hidden)} others is "
            f"{hidden[0].recall:.3f} or more, and people.csv lists it."
        )
    absent = len(people) - len(present)
    if absent:
        details += f" {absent} of {len(people)} people have no photographs in {split}."
    figure.supxlabel(fill(details, int(figure.get_figwidth() * 16)), fontsize=7.5)
    return figure


def _label(name: str) -> str:
    return plain(name if len(name) <= _MAX_NAME_LENGTH else name[: _MAX_NAME_LENGTH - 1] + "…")


def draw_roc(rocs: Curves, split: str, warning: str) -> Figure:
    """Draw the macro and micro ROC curves over each person's own; the legend lists the areas under them.

    Of many people, only those with the smallest areas have a curve.
    """
    figure, axes = _draw_curves(rocs, "AUC", "lower right", warning)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    axes.set(title=f"ROC, one person vs. the rest, {split}")
    axes.set(xlabel="False positive rate", ylabel="True positive rate")
    return figure


def draw_precision_recall(curves: Curves, split: str, warning: str) -> Figure:
    """Draw the macro and micro curves of precision and recall over each person's own, as draw_roc does."""
    figure, axes = _draw_curves(curves, "Average precision", "lower left", warning)
    for line in axes.lines:
        line.set_drawstyle("steps-pre")  # a precision holds from its recall down to the one before
    axes.set(title=f"Precision and recall, one person vs. the rest, {split}", xlabel="Recall", ylabel="Precision")
    return figure


def _draw_curves(
    curves: Curves, area: str, corner: Literal["lower left", "lower right"], warning: str
) -> tuple[Figure, Axes]:
    ranked = sorted(curves.people, key=lambda curve: (curve.area, curve.name))[:_MAX_PEOPLE]
    columns = ceil(len(ranked) / _CURVES_PER_COLUMN)
    figure, axes = new_figure(6.6 + 2.6 * columns, 6.4, warning)
    # The people that the classifier knows worst have colors of their own, so that the eye goes to them.
    worst = dict(zip([curve.name for curve in ranked[:3]], [GREEN, PURPLE, SKY], strict=False))
    for curve in reversed(ranked):
        color, width = worst.get(curve.name, GRAY), 1.4 if curve.name in worst else 0.6
        label = f"{curve.area:.3f}  {_label(curve.name)}"
        axes.plot(curve.x, curve.y, color=color, linewidth=width, label=label)
    people, _ = axes.get_legend_handles_labels()
    for curve, color, style in zip(curves.means, (BLUE, ORANGE), ("-", "--"), strict=False):
        label = f"{curve.area:.3f}  {curve.name}"
        axes.plot(curve.x, curve.y, color=color, linewidth=2.4, linestyle=style, label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="W")
    axes.grid(alpha=0.3)
    means = axes.get_legend_handles_labels()[0][len(people) :]
    axes.add_artist(axes.legend(handles=means, title=area, loc=corner))
    total = len(curves.people)
    of_all = f" ({len(people)} of {total};\npeople.csv lists all)" if len(people) < total else ""
    axes.legend(
        handles=people[::-1],
        title=f"{area} by person,\nlowest first{of_all}",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.01),
        fontsize=6.5,
        ncols=columns,
        frameon=False,
        alignment="left",
    )
    return figure, axes


def draw_reliability(
    reliability: Mapping[str, Sequence[ReliabilityBin]], split: str, warning: str, counted: str = "Photographs"
) -> Figure:
    """Draw accuracy by confidence, before and after calibration, above the number of photographs in each bin.

    `reliability` may lack the bins before calibration.
    """
    figure = new_blank_figure(6.0, 6.8, warning)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":", label="perfect calibration")
    for name, color, marker, side in (("uncalibrated", ORANGE, "s", 0), ("calibrated", BLUE, "o", 1)):
        if name not in reliability:
            continue
        bins = reliability[name]
        label = f"{name}: expected calibration error {compute_calibration_error(bins):.3f}"
        confidences, accuracies = [b.mean_probability for b in bins], [b.accuracy for b in bins]
        axes.plot(confidences, accuracies, color=color, marker=marker, markersize=5, label=label)
        halves = [(b.high - b.low) / 2 for b in bins]
        lefts = [b.low + side * half for b, half in zip(bins, halves, strict=True)]
        counts.bar(lefts, [b.count for b in bins], [0.9 * half for half in halves], align="edge", color=color)
    axes.set(title=f"Reliability, {split}", ylabel="Accuracy", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02))  # between the axes, where it hides no point
    counts.set(xlabel="Confidence (mean of each bin)", ylabel=counted)
    counts.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for each in (axes, counts):
        each.grid(alpha=0.3)
        each.set_axisbelow(True)
    return figure


def draw_open_set(rates: Sequence[OpenSetRates], false_acceptance_rate: float, split: str, warning: str) -> Figure:
    """Draw what becomes of known people's photographs, by the rate at which unknown people are given a name."""
    figure, axes = new_figure(6.4, 4.6, warning)
    axes.set(title=f"Known and unknown people, {split}")
    x = [point.false_acceptance_rate for point in rates]
    covered, identified = [point.coverage for point in rates], [point.identified for point in rates]
    for name, fractions, color, style in (
        ("accepted", covered, ORANGE, "--"),
        ("named correctly", identified, BLUE, "-"),
    ):
        at_rate = float(np.interp(false_acceptance_rate, x, fractions))
        axes.step(x, fractions, where="post", color=color, linestyle=style, label=f"{name}: {at_rate:.1%}")
        axes.plot([false_acceptance_rate], [at_rate], color=color, marker="o", clip_on=False)
    label = f"the classifier's rate: {false_acceptance_rate:.1%}"
    axes.axvline(false_acceptance_rate, color="black", linewidth=0.8, linestyle=":", label=label)
    axes.set(xscale="log", xlim=(x[0], 1), ylim=(-0.01, 1.01))
    axes.set(xlabel="Fraction of unknown people's photographs that are given a name (FAR)")
    axes.set(ylabel="Fraction of known people's photographs")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.supxlabel(
        "Unknown people are those of train, each left out of a model that then compares them.", fontsize=7.5
    )
    return figure


def draw_learning_curve(curve: LearningCurve, warning: str) -> Figure:
    """Draw the accuracy on val by the number of photographs to train on, and the fitted curve, continued."""
    figure, axes = new_figure(6.4, 4.2, warning)
    measured = [
        (each.photographs_per_person, each.accuracy, each.accuracy_low, each.accuracy_high) for each in curve.points
    ]
    fitted = [
        (each.photographs_per_person, each.accuracy, each.interval.low, each.interval.high) for each in curve.line
    ]
    draw_continued_curve(axes, measured, fitted)
    axes.set(title="Accuracy on val by photographs to train on", xlabel="Photographs per person", ylabel="Accuracy")
    axes.set_ylim(max(0, min(low for _, _, low, _ in measured) - 0.05), 1.02)
    axes.legend(loc="lower right")
    return figure


def draw_continued_curve(axes: Axes, measured: Sequence[_Point], fitted: Sequence[_Point]) -> None:
    """Draw measured values by size, ascending, and a line that is fitted to them and ends at a forecast."""
    sizes, values, lows, highs = np.array(measured).T
    line_sizes, line, *_ = np.array(fitted).T
    axes.plot(line_sizes, line, color=BLUE, label="fitted curve")
    beyond_sizes, _, *band = np.array([each for each in fitted if each[0] >= sizes[-1]]).T
    axes.fill_between(beyond_sizes, *band, color=SKY, alpha=0.35, linewidth=0, label="95% interval of its forecast")
    errors = [np.maximum(values - lows, 0), np.maximum(highs - values, 0)]
    axes.errorbar(sizes, values, errors, color=ORANGE, fmt="o", markersize=4, label="measured, with 95% intervals")
    axes.axvline(sizes[-1], color=GRAY, linestyle=":", label="all photographs of train")
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([*sizes, line_sizes[-1]])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:.1f}"))
    axes.grid(alpha=0.3)
