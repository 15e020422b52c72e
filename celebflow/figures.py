"""Results → matplotlib figures, in one style."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from celebflow.classifier import ClassifierCard
from celebflow.evaluation import RocCurve
from celebflow.reports import Report
from celebflow.training import EpochResult

# Okabe and Ito's palette (2008), which people with colour-blindness can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
_PERSONS_A_COLUMN = 40


def draw_all(report: Report, card: ClassifierCard) -> dict[str, Figure]:
    """Draw every figure of a result; the keys are the names of their files."""
    warning = card.backbone.warning()
    figures = {
        "accuracy": draw_accuracy(report.history, warning),
        "loss": draw_loss(report.history, warning),
    }
    for name, split in report.splits.items():
        figures[f"{name}_confusion_matrix"] = draw_confusion_matrix(
            split.actual, split.predicted, card.class_names, name, warning
        )
        figures[f"{name}_roc"] = draw_roc(split.mean_rocs, split.person_rocs, name, warning)
    return figures


def save_figures(figures: Mapping[str, Figure], resolution_dpi: int, folder: Path) -> None:
    """Write figures as PNG files to `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=resolution_dpi)


def draw_accuracy(history: Sequence[EpochResult], warning: str) -> Figure:
    """Draw training and validation accuracy over the epochs."""
    train, val = [r.train_accuracy for r in history], [r.val_accuracy for r in history]
    figure, axes = _draw_history(history, train, val, "Accuracy", warning)
    axes.set_ylim(0, 1)
    return figure


def draw_loss(history: Sequence[EpochResult], warning: str) -> Figure:
    """Draw training and validation loss over the epochs."""
    train, val = [r.train_loss for r in history], [r.val_loss for r in history]
    figure, axes = _draw_history(history, train, val, "Loss (cross-entropy)", warning)
    axes.set_ylim(bottom=0)
    return figure


def _draw_history(
    history: Sequence[EpochResult], train: list[float], val: list[float], quantity: str, warning: str
) -> tuple[Figure, Axes]:
    figure, axes = _new_figure(6.4, 4.2, warning)
    epochs = [result.epoch for result in history]
    axes.plot(epochs, train, color=BLUE, marker="o", markersize=4, label=f"train: {train[-1]:.3f} at the end")
    axes.plot(epochs, val, color=ORANGE, marker="s", markersize=4, label=f"val: {val[-1]:.3f} at the end")
    axes.set(title=f"{quantity} over the epochs", xlabel="Epoch", ylabel=quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure, axes


def draw_confusion_matrix(
    actual: Sequence[str], predicted: Sequence[str], class_names: Sequence[str], split: str, warning: str
) -> Figure:
    """Draw who is taken for whom: rows are the persons in the photographs, shaded by their share of the row."""
    index = {name: position for position, name in enumerate(class_names)}
    counts = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(counts, ([index[name] for name in actual], [index[name] for name in predicted]), 1)
    size = min(40.0, 4 + 0.27 * len(class_names))
    figure, axes = _new_figure(size + 1, size, warning)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    every = ceil(len(class_names) / 120)  # names thin out rather than overlap
    ticks = range(0, len(class_names), every)
    axes.set_xticks(ticks, [_plain(class_names[t]) for t in ticks], rotation=90, fontsize=7)
    axes.set_yticks(ticks, [_plain(class_names[t]) for t in ticks], fontsize=7)
    if len(class_names) <= 60:
        for row, column in zip(*np.nonzero(counts), strict=True):
            shade = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=6.5, color=shade)
    correct = int(np.trace(counts))
    title = f"Confusion matrix, {split}: {correct} of {len(actual)} right ({correct / max(len(actual), 1):.1%})"
    axes.set(title=title, xlabel="Predicted", ylabel="Actual")
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="Share of the person's photographs")
    return figure


def draw_roc(mean_rocs: Sequence[RocCurve], person_rocs: Sequence[RocCurve], split: str, warning: str) -> Figure:
    """Draw the macro and micro ROC curves over those of each person, who are named by the area below."""
    columns = ceil(len(person_rocs) / _PERSONS_A_COLUMN)
    figure, axes = _new_figure(6.6 + 2.6 * columns, 6.4, warning)
    ranked = sorted(person_rocs, key=lambda curve: (curve.area, curve.name))
    # The eye goes to whom the classifier knows worst: these few have colours of their own.
    worst = dict(zip([curve.name for curve in ranked[:3]], [GREEN, "#CC79A7", "#56B4E9"], strict=False))
    for curve in reversed(ranked):
        colour, width = worst.get(curve.name, GREY), 1.4 if curve.name in worst else 0.6
        label = f"{curve.area:.3f}  {_plain(curve.name)}"
        axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=colour, linewidth=width, label=label)
    persons, _ = axes.get_legend_handles_labels()
    for curve, colour, style in zip(mean_rocs, (BLUE, ORANGE), ("-", "--"), strict=False):
        x, y = curve.false_positive_rate, curve.true_positive_rate
        label = f"{curve.area:.3f}  {curve.name}"
        axes.plot(x, y, color=colour, linewidth=2.4, linestyle=style, label=label)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    axes.set(title=f"ROC, one person against the rest, {split}", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set(xlabel="False positive rate", ylabel="True positive rate", aspect="equal")
    axes.grid(alpha=0.3)
    means = axes.get_legend_handles_labels()[0][len(persons) :]
    if means:
        axes.add_artist(axes.legend(handles=means, title="AUC", loc="lower right"))
    if persons:
        axes.legend(
            handles=persons[::-1],
            title="AUC by person, lowest first",
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            fontsize=6.5,
            ncols=columns,
            frameon=False,
        )
    return figure


def _new_figure(width_inches: float, height_inches: float, warning: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    if warning:
        figure.suptitle(fill(warning, int(width_inches * 13)), color="#B00000", fontsize=8, fontweight="bold")
    return figure, figure.add_subplot()


def _plain(name: str) -> str:
    """Return a person's name as a label: underscores become spaces, and a dollar sign starts no formula."""
    return name.replace("_", " ").replace("$", r"\$")
