"""Results of attributes → figures: how good each attribute is, its curves, groups, and sheets of errors."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from math import ceil
from textwrap import fill
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from celebflow.classifier.calibration import format_confidence
from celebflow.data.attributes import BLANK
from celebflow.evaluation.attribute_answers import AttributeAnswers
from celebflow.evaluation.attribute_groups import (
    MIN_GROUP_SIZE,
    GroupAccuracy,
    compute_co_occurrence,
    list_worst_groups,
)
from celebflow.evaluation.attribute_learning_curve import AttributeLearningCurve
from celebflow.evaluation.attribute_metrics import AttributeMetrics, trace_attribute_curves
from celebflow.evaluation.attribute_results import AttributePrediction, AttributeReport
from celebflow.evaluation.curves import Curve
from celebflow.report.contact_sheets import TextStyle, Tile, draw_contact_sheet, shorten
from celebflow.report.figures import draw_continued_curve, draw_history, draw_reliability
from celebflow.report.style import BLUE, GRAY, ORANGE, SKY, new_blank_figure, new_figure, spell

# Of more attributes than these, figures show the worst.
_MAX_ATTRIBUTES = 80
_MAX_PANELS = 60
_MAX_NAMES = 60  # of a matrix
_ROWS_PER_COLUMN = 40
_PANELS_PER_ROW = 8
_PANEL_INCHES = 1.55
_LABEL, _PANEL_TITLE, _MATRIX_NAME = TextStyle(7), TextStyle(7), TextStyle(6.5)
_MAX_LABEL_INCHES = 1.9
_MAX_GROUPS = 30
_ATTRIBUTES_PER_SHEET = 20
_MAX_SHEETS = 4
_TILES_PER_ATTRIBUTE = 5  # two attributes fit side by side
SHEET = "attribute_errors_"  # stands between the split and the number of a sheet

Ranked = Literal["average_precision", "accuracy"]
Grouped = Literal["accuracy", "balanced_accuracy"]


def draw_attribute_charts(report: AttributeReport, warning: str) -> dict[str, Figure]:
    """Draw every figure of a result that shows numbers; the keys are the names of their files.

    There are no curves where no attribute has both answers, and no groups where none is certainly at a disadvantage.
    """
    figures = {
        "accuracy": draw_history(report.history, "accuracy", "Accuracy", 1.03, warning),
        "loss": draw_history(report.history, "loss", "Loss (binary cross-entropy)", None, warning),
    }
    for name, split in report.splits.items():
        figures |= {
            f"{name}_average_precision": draw_average_precisions(split.attributes, name, warning),
            f"{name}_accuracy_by_attribute": draw_accuracies(split.attributes, name, warning),
            f"{name}_reliability": draw_reliability({"calibrated": split.reliability}, name, warning, "Answers"),
            f"{name}_co_occurrence": draw_co_occurrence(split.answers, name, warning),
        }
        curves = trace_attribute_curves(split.answers)
        if curves["roc"]:
            figures[f"{name}_roc"] = draw_rocs(curves["roc"], split.attributes, name, warning)
            figures[f"{name}_precision_recall"] = draw_precision_recalls(
                curves["precision_recall"], split.attributes, name, warning
            )
        if rows := list_worst_groups(split.groups, _MAX_GROUPS, MIN_GROUP_SIZE):
            figures[f"{name}_groups"] = draw_groups(rows, "accuracy", name, warning)
        if rows := list_worst_groups(split.groups, _MAX_GROUPS, MIN_GROUP_SIZE, "balanced_accuracy"):
            figures[f"{name}_balanced_groups"] = draw_groups(rows, "balanced_accuracy", name, warning)
    return figures


def draw_average_precisions(attributes: Sequence[AttributeMetrics], split: str, warning: str) -> Figure:
    """Draw each attribute's average precision with its interval, beside that of probabilities that are all equal."""
    return _draw_by_attribute(attributes, "average_precision", "Average precision", split, warning)


def draw_accuracies(attributes: Sequence[AttributeMetrics], split: str, warning: str) -> Figure:
    """Draw each attribute's accuracy with its interval, beside that of the answer that is more frequent in train."""
    return _draw_by_attribute(attributes, "accuracy", "Accuracy", split, warning)


def _draw_by_attribute(
    attributes: Sequence[AttributeMetrics], metric: Ranked, name: str, split: str, warning: str
) -> Figure:
    """Draw a metric of each attribute for which it is defined, the lowest first.

    A bar reaches from the trivial answer's value to the model's, so that its length does not depend on where the axis
    begins.
    """
    defined = [each for each in attributes if getattr(each, metric) is not None]
    in_order = sorted(defined, key=lambda each: (getattr(each, metric), each.attribute))
    ranked = in_order[:_MAX_ATTRIBUTES]
    column_count = max(1, ceil(len(ranked) / _ROWS_PER_COLUMN))
    row_count = ceil(len(ranked) / column_count)
    figure = new_blank_figure(max(6.8, 5.4 * column_count), 1.9 + 0.19 * max(row_count, 3), warning)
    columns = figure.subplots(1, column_count, sharex=True, squeeze=False)[0]
    ends = ("", "_low", "_high")
    values = np.array([[getattr(each, metric + end) for end in ends] for each in ranked], np.float64).reshape(-1, 3)
    trivial = np.array([getattr(each, f"trivial_{metric}") for each in ranked], np.float64)
    lowest = min([*values[:, :2].ravel(), *trivial, 1.0], key=lambda value: np.inf if np.isnan(value) else value)
    start = 0.0 if metric == "average_precision" else min(np.floor(10 * lowest) / 10, 0.9)
    for column, axes in enumerate(columns):
        rows = slice(column * row_count, (column + 1) * row_count)
        own, lows, highs = values[rows].T
        places = np.arange(len(own))
        bars = axes.barh(places, own - trivial[rows], left=trivial[rows], height=0.62, color=SKY, alpha=0.5)
        lines = axes.hlines(places, lows, highs, color=BLUE, linewidth=1.4)
        (dots,) = axes.plot(own, places, color=BLUE, marker="o", markersize=4, linestyle="")
        (marks,) = axes.plot(
            trivial[rows], places, color=ORANGE, marker="|", markersize=8, markeredgewidth=2, linestyle=""
        )
        labels = [f"{_label(each.attribute)}  {each.yes:,} of {each.support:,}" for each in ranked[rows]]
        axes.set_yticks(places, labels, fontsize=_LABEL.size)
        axes.set(xlim=(start - 0.02 * (1 - start), 1 + 0.02 * (1 - start)), ylim=(max(row_count, 3) - 0.5, -0.5))
        axes.set_xlabel(name)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    columns[0].legend(
        [dots, lines, marks, bars],
        ["model", "95% interval", "trivial answer", "difference"],
        loc="lower left",
        bbox_to_anchor=(-0.01, 1),
        ncols=4,
        fontsize=7.5,
        frameon=False,
        borderpad=0.2,
    )
    mean = f"; mean {values[:, 0].mean():.3f}" if len(in_order) == len(ranked) > 0 else ""
    columns[0].set_title(f"{name} by attribute, {split}, lowest first{mean}", loc="left", fontsize=11, pad=20)
    trivials = {
        "average_precision": "probabilities that are all equal, the fraction of yes",
        "accuracy": "always the answer that is more frequent in train",
    }
    details = f"After each name: labels of yes, of all. Trivial answer: {trivials[metric]}."
    if len(in_order) > len(ranked):
        details += f" Shown are the lowest {len(ranked)} of {len(in_order)} attributes; attributes.csv lists all."
    if absent := len(attributes) - len(defined):
        lacks = "labels of both answers" if metric == "average_precision" else "labels"
        details += f" Without {lacks} in {split}: {absent} of {len(attributes)} attributes."
    figure.supxlabel(fill(details, int(figure.get_figwidth() * 16)), fontsize=7.5)
    return figure


def draw_rocs(curves: Sequence[Curve], attributes: Sequence[AttributeMetrics], split: str, warning: str) -> Figure:
    """Draw the ROC curve of each attribute in a panel of its own, and where the threshold is on it."""
    points = {
        each.attribute: (1 - each.specificity, each.recall)
        for each in attributes
        if each.specificity is not None and each.recall is not None
    }
    baselines = {curve.name: (0.0, 1.0) for curve in curves}
    figure = _draw_panels(curves, "AUC", "default", points, baselines, f"ROC by attribute, {split}", warning)
    figure.supxlabel("False positive rate. Dot: at the threshold. Dotted: guessing", fontsize=9)
    figure.supylabel("True positive rate", fontsize=9)
    return figure


def draw_precision_recalls(
    curves: Sequence[Curve], attributes: Sequence[AttributeMetrics], split: str, warning: str
) -> Figure:
    """Draw the curve of precision and recall of each attribute in a panel, and where the threshold is on it."""
    points = {
        each.attribute: (each.recall, each.precision)
        for each in attributes
        if each.recall is not None and each.precision is not None
    }
    fractions = {each.attribute: each.yes / each.support for each in attributes if each.support}
    baselines = {curve.name: (fractions[curve.name], fractions[curve.name]) for curve in curves}
    title = f"Precision and recall by attribute, {split}"
    # A precision holds from its recall down to the one before.
    figure = _draw_panels(curves, "AP", "steps-pre", points, baselines, title, warning)
    figure.supxlabel("Recall. Dot: at the threshold. Dotted: fraction of yes", fontsize=9)
    figure.supylabel("Precision", fontsize=9)
    return figure


def _draw_panels(
    curves: Sequence[Curve],
    area: str,
    style: Literal["default", "steps-pre"],
    points: Mapping[str, tuple[float, float]],
    baselines: Mapping[str, tuple[float, float]],
    title: str,
    warning: str,
) -> Figure:
    """Draw a curve per panel, the smallest area first, with its baseline from left to right and a point on it."""
    in_order = sorted(curves, key=lambda curve: (curve.area, curve.name))
    ranked = in_order[:_MAX_PANELS]
    column_count = min(len(ranked), _PANELS_PER_ROW)
    row_count = ceil(len(ranked) / column_count)
    width = max(4.2, _PANEL_INCHES * column_count + 0.7)
    figure = new_blank_figure(width, 1.15 + (_PANEL_INCHES + 0.3) * row_count, warning)
    parts = figure.add_gridspec(2, 1, height_ratios=(1, 500))
    grid = parts[1].subgridspec(row_count, column_count).subplots(sharex=True, sharey=True, squeeze=False).ravel()
    for axes, curve in zip(grid, ranked, strict=False):
        axes.plot(curve.x, curve.y, color=BLUE, linewidth=1.2, drawstyle=style)
        axes.plot([0, 1], baselines[curve.name], color="black", linewidth=0.7, linestyle=":")
        if curve.name in points:
            axes.plot(*points[curve.name], color=ORANGE, marker="o", markersize=4, clip_on=False)
        name = shorten(spell(curve.name), _PANEL_INCHES - 0.1, _PANEL_TITLE)
        text = f"{name}\n{area} {curve.area:.3f}"
        axes.set_title(text, fontsize=_PANEL_TITLE.size, pad=3, parse_math=False)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=6.5, length=2)
        axes.grid(alpha=0.3)
    grid[0].set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))  # for all panels, which share their axes
    grid[0].set_xticks([0, 0.5, 1], ["0", "", "1"])
    grid[0].set_yticks([0, 0.5, 1], ["0", "", "1"])
    for axes in grid[len(ranked) :]:
        axes.set_axis_off()
    if len(ranked) < len(in_order):
        title += f": the lowest {len(ranked)} of {len(in_order)}"
    header = figure.add_subplot(parts[0])  # a title of the figure itself is its warning
    header.set_axis_off()
    header.set_title(title, fontsize=11)
    return figure


def draw_co_occurrence(answers: AttributeAnswers, split: str, warning: str) -> Figure:
    """Draw how often attributes go together by their labels, and how much more often by the model's answers.

    Both count only where both labels are known. Of many attributes, those are shown whose answers differ most.
    """
    actual = compute_co_occurrence(answers.labels)
    said = np.where(answers.known, answers.positive, BLANK).astype(np.int8)
    excess = compute_co_occurrence(said) - actual
    count = len(answers.names)
    sizes = np.nan_to_num(np.abs(excess))
    kept = np.sort(np.argsort(-(sizes.sum(axis=0) + sizes.sum(axis=1)), kind="stable")[:_MAX_NAMES])
    names = [_label(answers.names[place]) for place in kept]
    side = max(2.2, 0.165 * len(kept))
    figure = new_blank_figure(2 * side + 4.4, side + 3.4, warning)
    grid = figure.subplots(1, 2, sharey=True)
    bound = float(max(sizes[np.ix_(kept, kept)].max(initial=0), 0.05))
    for axes, values, low, high, colors, title in (
        (grid[0], actual, 0.0, 1.0, "Blues", "By the labels"),
        (grid[1], excess, -bound, bound, "RdBu_r", "By the answers, minus by the labels"),
    ):
        shades = colormaps[colors].with_extremes(bad="#DDDDDD")
        image = axes.imshow(values[np.ix_(kept, kept)], cmap=shades, vmin=low, vmax=high)
        axes.set_xticks(range(len(kept)), names, rotation=90, fontsize=_MATRIX_NAME.size)
        axes.set_yticks(range(len(kept)), names, fontsize=_MATRIX_NAME.size)
        axes.set_title(f"{title}, {split}", fontsize=10)
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
        bar.ax.tick_params(labelsize=7)
    details = "Among photographs with yes of the row's attribute: the fraction with yes of the column's. Gray: none."
    if len(kept) < count:
        details += f" The {len(kept)} of {count} attributes with the largest differences."
    figure.supxlabel(fill(details, int(figure.get_figwidth() * 15)), fontsize=7.5)
    return figure


def draw_groups(rows: Sequence[GroupAccuracy], metric: Grouped, split: str, warning: str) -> Figure:
    """Draw a metric of groups beside that of the other photographs, and the difference with its interval."""
    name, prefix = {"accuracy": ("accuracy", ""), "balanced_accuracy": ("balanced accuracy", "balanced_")}[metric]
    figure = new_blank_figure(11.6, 2.0 + 0.21 * max(len(rows), 3), warning)
    values, differences = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(rows))
    own = np.array([getattr(row, metric) for row in rows], np.float64)
    other = np.array([getattr(row, f"other_{metric}") for row in rows], np.float64)
    change, low, high = (
        np.array([getattr(row, f"{prefix}difference{end}") for row in rows], np.float64)
        for end in ("", "_low", "_high")
    )
    values.hlines(places, own, other, color=GRAY, linewidth=1)
    values.plot(other, places, color=GRAY, marker="o", markersize=5, linestyle="", label="the others")
    values.plot(own, places, color=BLUE, marker="o", markersize=5, linestyle="", label="the group")
    values.set_xlabel(name.capitalize())
    differences.hlines(places, low, high, color=SKY, linewidth=2.5)
    differences.plot(change, places, color=BLUE, marker="o", markersize=5, linestyle="")
    differences.axvline(0, color="black", linewidth=0.8)
    differences.set_xlabel("The group minus the others")
    labels = [f"{_label(row.attribute)} | {_label(row.given)} = {row.value}  {row.count:,}" for row in rows]
    values.set_yticks(places, labels, fontsize=_LABEL.size)
    values.set_ylim(max(len(rows), 3) - 0.5, -0.5)
    for axes in (values, differences):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    values.set_title(f"Groups with a lower {name}, {split}", loc="left", fontsize=11, pad=20)
    values.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, fontsize=8, frameon=False, borderpad=0.2)
    details = (
        "Attribute | group, and the number of its photographs. The others have the other value. Groups whose "
        f"difference is certain, of {MIN_GROUP_SIZE} photographs or more; the most certain first. "
        "Lines: 95% intervals that hold for all groups at once."
    )
    if metric == "accuracy":
        details += " Accuracy is also lower where an attribute is less one-sided; balanced accuracy is not."
    figure.supxlabel(fill(details, 180), fontsize=7.5)
    return figure


def draw_error_sheets(
    report: AttributeReport,
    chosen: Mapping[str, Sequence[AttributePrediction]],
    load: Callable[[str], NDArray[np.uint8]],
    warning: str,
) -> dict[str, Figure]:
    """Draw a row of the most confident errors of each attribute; `load` returns what the network saw of a photograph.

    `chosen` are errors by split, those of an attribute together. Sheets are numbered: names of attributes are not fit
    for files. There is none of a split without errors.
    """
    figures = {}
    for name, split in report.splits.items():
        rows = []
        for attribute, errors in groupby(chosen[name], key=lambda error: error.attribute):
            shown = list(errors)[:_TILES_PER_ATTRIBUTE]
            tiles = [Tile(load(error.photographs[0]), caption_error(error), ORANGE) for error in shown]
            rows.append((f"{spell(attribute)}: {len(tiles)} of {len(split.errors[attribute]):,} errors", tiles))
        for number in range(min(_MAX_SHEETS, ceil(len(rows) / _ATTRIBUTES_PER_SHEET))):
            own = rows[number * _ATTRIBUTES_PER_SHEET : (number + 1) * _ATTRIBUTES_PER_SHEET]
            title = f"The most confident errors, {name}: {len(own)} of {len(split.attributes)} attributes"
            figures[f"{name}_{SHEET}{number + 1}"] = draw_contact_sheet(title, own, warning)
    return figures


def caption_error(prediction: AttributePrediction) -> str:
    """Return what the model answered, and how confident it was."""
    return f"predicted: {prediction.predicted}, {format_confidence(prediction.confidence)}"


def _label(name: str) -> str:
    return shorten(spell(name), _MAX_LABEL_INCHES, _LABEL).replace("$", r"\$")  # a dollar sign starts no formula


def draw_attribute_learning_curve(curve: AttributeLearningCurve, warning: str) -> Figure:
    """Draw the average precision on val by the number of photographs to train on, and the fitted curve, continued."""
    figure, axes = new_figure(6.4, 4.2, warning)
    measured = [
        (each.photographs, each.average_precision, each.average_precision_low, each.average_precision_high)
        for each in curve.points
    ]
    fitted = [(each.photographs, each.average_precision, each.interval.low, each.interval.high) for each in curve.line]
    draw_continued_curve(axes, measured, fitted)
    title = "Average precision on val by photographs to train on"
    axes.set(title=title, xlabel="Photographs", ylabel="Average precision, mean of the attributes")
    axes.set_ylim(
        max(0, min(low for _, _, low, _ in measured) - 0.05),
        min(1.02, max(high for _, _, _, high in [*measured, *fitted]) + 0.05),
    )
    axes.legend(loc="lower right")
    return figure
