"""The figures show a result at any number of people, and say what they must."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from PIL import Image

from celebflow.backbone.source import UNTRAINED_WARNING
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.history import EpochResult
from celebflow.evaluation.curves import Curve, Curves
from celebflow.evaluation.metrics import PersonMetrics
from celebflow.evaluation.open_set import OpenSetRates
from celebflow.evaluation.results import Prediction, Report
from celebflow.report.figures import (
    draw_charts,
    draw_confusion_matrix,
    draw_history,
    draw_open_set,
    draw_precision_recall,
    draw_recall_by_person,
    draw_roc,
    save_figure,
    save_figures,
)
from celebflow.report.style import GREEN, PURPLE, SKY
from tests.pipes import read_what_is_written
from tests.results import draw_logits, find_overlaps, make_card, write_result

KINDS = ["confusion_matrix", "open_set", "precision_recall", "recall_by_person", "reliability", "roc"]
# With two people, unknown people cannot be simulated; with one in the split, there is no rest to compare with.
NEEDS_MORE_PEOPLE = ["open_set", "precision_recall", "roc"]
MAX_INCHES = 27.0  # about 4,000 pixels in the default resolution


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, ClassifierCard]:
    """Return a result of five people whose logits are too large."""
    logits, labels = draw_logits(5, 20)
    card = make_card([f"P{number}" for number in range(5)])
    return write_result(tmp_path_factory.mktemp("result"), card, logits * 4, labels)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5, 31, 200])
def test_every_figure_is_drawn_and_legible_at_any_number_of_people(tmp_path: Path, count: int) -> None:
    names = [f"Person_{number} Papadopoulos_the_Younger $x^2$" for number in range(count)]
    report, card = write_result(tmp_path, make_card(names), *draw_logits(count, absent=1))
    figures = draw_charts(report, card)
    kinds = [kind for kind in KINDS if kind not in (NEEDS_MORE_PEOPLE if count == 2 else ())]
    assert sorted(figures) == sorted(
        ["accuracy", "loss", *(f"{split}_{kind}" for split in ("val", "test") for kind in kinds)]
    )
    for name, figure in figures.items():
        if name.startswith("test_"):
            continue  # the same as that of val
        assert find_overlaps(figure) == [], name
        assert max(figure.get_size_inches()) <= MAX_INCHES, name
        canvas = figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        assert len(np.unique(np.asarray(canvas.buffer_rgba()))) > 10, name  # type: ignore[no-untyped-call]


def test_figures_are_saved_in_their_resolution(tmp_path: Path) -> None:
    rates = [OpenSetRates(0.01, 0.5, 0.5), OpenSetRates(1.0, 1.0, 1.0)]
    figures = {"one": draw_open_set(rates, 0.5, "val", ""), "other": draw_open_set(rates, 0.25, "val", "")}
    save_figures(figures, 40, tmp_path / "figures")
    for name, figure in figures.items():
        with Image.open(tmp_path / "figures" / f"{name}.png") as image:
            assert image.size == pytest.approx(40 * figure.get_size_inches(), abs=1)
            assert image.info["dpi"] == pytest.approx((40, 40), abs=0.1)
            assert len(np.unique(np.asarray(image.convert("L")))) > 10


def test_a_figure_goes_through_a_pipe(tmp_path: Path) -> None:
    rates = [OpenSetRates(0.01, 0.5, 0.5), OpenSetRates(1.0, 1.0, 1.0)]
    figure = draw_open_set(rates, 0.5, "val", "")
    save_figure(figure, 40, tmp_path / "figure.png")
    arrived = read_what_is_written(tmp_path / "pipe", lambda pipe: save_figure(figure, 40, pipe))
    assert arrived == (tmp_path / "figure.png").read_bytes()


@pytest.mark.slow
def test_every_figure_warns_of_an_untrained_backbone(result: tuple[Report, ClassifierCard]) -> None:
    report, card = result
    for trained in (False, True):
        backbone = replace(card.backbone, trained=trained)
        figures = draw_charts(report, replace(card, backbone=backbone))
        titles = [figure.get_suptitle().replace("\n", " ") for figure in figures.values()]
        assert titles == [("" if trained else UNTRAINED_WARNING)] * (2 + 2 * len(KINDS))


def test_people_are_drawn_by_recall_and_those_without_photographs_are_counted() -> None:
    def person(name: str, support: int, recall: float | None) -> PersonMetrics:
        low, high = (None, None) if recall is None else (recall - 0.2, recall + 0.1)
        return PersonMetrics(name, support, None, recall, low, high, None, None, None)

    people = [person("Ann", 10, 0.9), person("Bo_$", 4, 0.25), person("Cy", 0, None)]
    figure = draw_recall_by_person(people, "val", "")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [r"Bo \$  4", "Ann  10"]
    assert np.array_equal(axes.lines[0].get_xdata(), [0.25, 0.9])
    (intervals,) = axes.collections
    ends = [np.asarray(path.vertices) for path in intervals.get_paths()]
    assert np.allclose(ends, [[(0.05, 0), (0.35, 0)], [(0.7, 1), (1.0, 1)]])
    assert axes.yaxis_inverted(), "the lowest recall stands above"
    assert "1 of 3 people have no photographs in val" in figure.get_supxlabel().replace("\n", " ")


def test_two_hundred_people_are_all_in_columns_of_forty() -> None:
    recalls = {f"Person {number}": recall for number, recall in enumerate(np.random.default_rng(0).random(200))}
    people = [
        PersonMetrics(name, 4, None, recall, recall, recall, None, None, None) for name, recall in recalls.items()
    ]
    columns = draw_recall_by_person(people, "val", "").axes
    labels = [label.get_text().split("  ")[0] for axes in columns for label in axes.get_yticklabels()]
    assert [len(axes.get_yticklabels()) for axes in columns] == [40] * 5
    assert labels == sorted(recalls, key=recalls.__getitem__)


@pytest.mark.slow
def test_of_a_thousand_people_the_worst_are_shown_and_the_others_counted() -> None:
    names = [f"Person {number}" for number in range(1000)]
    people = [PersonMetrics(name, 4, None, n / 1000, 0, 1, None, None, None) for n, name in enumerate(names)]
    recalls = draw_recall_by_person(people, "val", "")
    labels = [label.get_text().split("  ")[0] for axes in recalls.axes for label in axes.get_yticklabels()]
    assert len(labels) == 200 and labels[0] == "Person 0" and labels[-1] == "Person 199"
    assert "mean 0.499" in recalls.axes[0].get_title("left"), "of all people"
    note = recalls.get_supxlabel().replace("\n", " ")
    assert "200 of 1000 people" in note and "the 800 others is 0.200 or more" in note and "people.csv" in note

    line = np.array([0.0, 1.0])
    curves = Curves(
        [Curve(name, line, line, n / 1000) for n, name in enumerate(names)], [Curve("macro", line, line, 1)]
    )
    for draw in (draw_roc, draw_precision_recall):
        figure = draw(curves, "val", "")
        entries = _legend(figure.axes[0])
        assert len(entries) == 200
        assert entries[0] == "0.000  Person 0" and entries[-1] == "0.199  Person 199"
        legend = figure.axes[0].get_legend()
        assert legend and "200 of 1000" in legend.get_title().get_text()
        assert "people.csv" in legend.get_title().get_text()
        assert max(figure.get_size_inches()) <= MAX_INCHES

    # Persons 500 to 529 are taken for 530 to 559, as many times as their numbers say; all others are recognized.
    predictions = [Prediction(f"{name}.jpg", "", name, name, 1.0, 1.0) for name in names]
    for number in range(500, 530):
        predictions += [Prediction("x.jpg", "", names[number], names[number + 30], 1.0, 0.0)] * (number - 499)
    matrix = draw_confusion_matrix(predictions, names, "val", "")
    axes = matrix.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 120 and labels[-1] == "881 others"
    assert {f"Person {number}" for number in range(500, 560)} <= set(labels)
    fractions = np.asarray(axes.images[0].get_array())
    row = labels.index("Person 529")
    assert fractions[row, row + 30] == pytest.approx(30 / 31)
    assert fractions[-1, -1] == 1
    assert "1000 of 1465 correct" in axes.get_title()
    assert "119 of 1000 people" in matrix.get_supxlabel() and "predictions.csv" in matrix.get_supxlabel()
    for figure in (recalls, matrix):
        assert max(figure.get_size_inches()) <= MAX_INCHES


def test_a_training_without_epochs_has_bars_in_the_place_of_curves() -> None:
    cases: list[tuple[Literal["accuracy", "loss"], list[float]]] = [("accuracy", [1.0, 0.875]), ("loss", [0.0, 0.25])]
    for measure, values in cases:
        figure = draw_history([EpochResult(1, 0.0, 1.0, 0.25, 0.875)], measure, "Name", None, "")
        (axes,) = figure.axes
        bars = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
        assert bars == values and not axes.lines
        assert [label.get_text() for label in axes.get_yticklabels()] == ["train", "val"]
        assert [text.get_text() for text in axes.texts] == [f"{value:.3f}" for value in values]
        assert find_overlaps(figure) == []


def test_curves_need_more_than_one_person(tmp_path: Path) -> None:
    logits, labels = draw_logits(3)
    only = labels == 0
    figures = draw_charts(*write_result(tmp_path, make_card(["Ann", "Bo", "Cy"]), logits[only], labels[only]))
    assert not {"val_roc", "val_precision_recall"} & set(figures)


def test_curves_are_those_of_the_report_and_the_worst_have_colors(result: tuple[Report, ClassifierCard]) -> None:
    report, card = result
    figures, split = draw_charts(report, card), report.splits["val"]
    for kind, curves, style in (
        ("roc", split.rocs, "default"),
        ("precision_recall", split.precision_recalls, "steps-pre"),
    ):
        (axes,) = figures[f"val_{kind}"].axes
        lines = {str(line.get_label()).split("  ")[-1]: line for line in axes.lines}
        assert {curve.name for curve in curves.people + curves.means} <= set(lines)
        for curve in curves.people + curves.means:
            assert np.array_equal(np.transpose([curve.x, curve.y]), lines[curve.name].get_xydata())
            assert lines[curve.name].get_drawstyle() == style
            assert str(lines[curve.name].get_label()).startswith(f"{curve.area:.3f}")
        worst = sorted(curves.people, key=lambda curve: (curve.area, curve.name))[:3]
        assert [lines[curve.name].get_color() for curve in worst] == [GREEN, PURPLE, SKY]


def test_reliability_has_both_calibration_errors_and_counts_every_photograph(
    result: tuple[Report, ClassifierCard],
) -> None:
    report, card = result
    axes, counts = draw_charts(report, card)["val_reliability"].axes
    metrics = report.metrics["val"]
    assert _legend(axes)[1:] == [
        f"uncalibrated: expected calibration error {metrics['uncalibrated_calibration_error']:.3f}",
        f"calibrated: expected calibration error {metrics['calibration_error']:.3f}",
    ]
    assert metrics["uncalibrated_calibration_error"] > metrics["calibration_error"] + 0.05
    heights: dict[object, float] = {}
    for bar in counts.patches:
        assert isinstance(bar, Rectangle)
        heights[bar.get_facecolor()] = heights.get(bar.get_facecolor(), 0) + bar.get_height()
    assert list(heights.values()) == [100, 100]
    assert set(heights) == {to_rgba(line.get_color()) for line in axes.lines[1:]}


def test_there_is_no_open_set_figure_where_nobody_is_unknown(tmp_path: Path) -> None:
    report, card = write_result(tmp_path, make_card(["Ann", "Bo", "Cy"]), *draw_logits(3))
    assert {"val_open_set", "test_open_set"} <= set(draw_charts(report, card))
    splits = {name: replace(split, open_set=[]) for name, split in report.splits.items()}
    assert not [name for name in draw_charts(replace(report, splits=splits), card) if "open_set" in name]


def test_open_set_figure_marks_the_fractions_at_the_classifiers_rate() -> None:
    rates = [OpenSetRates(0.001, 0.2, 0.1), OpenSetRates(0.05, 0.8, 0.7), OpenSetRates(1.0, 1.0, 0.9)]
    (axes,) = draw_open_set(rates, 0.05, "val", "").axes
    assert _legend(axes) == ["accepted: 80.0%", "named correctly: 70.0%", "the classifier's rate: 5.0%"]
    marks = [tuple(np.asarray(line.get_xydata())[0]) for line in axes.lines if len(np.asarray(line.get_xydata())) == 1]
    assert marks == [(0.05, 0.8), (0.05, 0.7)]
