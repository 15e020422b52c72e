"""The figures of attributes show any number of them, whatever they are called, and what evaluate measured."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from celebflow.backbone.source import UNTRAINED_WARNING
from celebflow.data.attributes import BLANK, NO, YES
from celebflow.evaluation.attribute_answers import AttributeAnswers
from celebflow.evaluation.attribute_evaluation import choose_errors
from celebflow.evaluation.attribute_metrics import trace_attribute_curves
from celebflow.report import attribute_figures
from celebflow.report.attribute_figures import (
    SHEET,
    draw_accuracies,
    draw_attribute_charts,
    draw_average_precisions,
    draw_co_occurrence,
    draw_error_sheets,
    draw_groups,
    draw_precision_recalls,
    draw_rocs,
)
from celebflow.report.attribute_publication import AttributePage
from tests.report.attributes import CELEBA, make_attribute_page
from tests.report.pages import HOSTILE_NAMES
from tests.results import find_overlaps

MAX_INCHES = 29.0
KINDS = ["average_precision", "accuracy_by_attribute", "reliability", "co_occurrence", "roc", "precision_recall"]
NAMES = (*HOSTILE_NAMES, "cost in $ and $x^2$", "نظارة", "W" * 60, "../../etc/passwd", "a")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> AttributePage:
    """Return a result of eight attributes; of those in val, one has no labels, and two have only no."""
    return make_attribute_page(tmp_path_factory.mktemp("result"), NAMES, one_valued=2, without_labels=1)


def _draw_sheets(page: AttributePage, warning: str = "") -> dict[str, Figure]:
    chosen = {name: choose_errors(split) for name, split in page.report.splits.items()}
    return draw_error_sheets(page.report, chosen, lambda path: np.zeros((8, 8, 3), np.uint8), warning)


def _list_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.slow
@pytest.mark.parametrize("names", [["Smiling"], ["Smiling", "Hat", "Beard"], CELEBA, None], ids=["1", "3", "40", "82"])
def test_every_figure_is_legible_at_any_number_of_attributes(tmp_path: Path, names: list[str] | None) -> None:
    names = names or [f"Attribute_{number}_with_a_long_name_{'x' * 20}" for number in range(82)]
    page = make_attribute_page(tmp_path, names, photograph_count=200)
    figures = draw_attribute_charts(page.report, UNTRAINED_WARNING) | _draw_sheets(page, UNTRAINED_WARNING)
    expected = {"accuracy", "loss", *(f"{split}_{kind}" for split in ("val", "test") for kind in KINDS)}
    assert expected <= set(figures)
    for name, figure in figures.items():
        if not name.startswith("test_"):
            assert find_overlaps(figure) == [], name
            assert max(figure.get_size_inches()) <= MAX_INCHES, name


@pytest.mark.slow
def test_names_of_attributes_are_drawn_verbatim_and_never_name_a_file(page: AttributePage) -> None:
    figures = draw_attribute_charts(page.report, "") | _draw_sheets(page)
    kinds = "|".join([*KINDS, "groups", "balanced_groups", f"{SHEET}1"])
    assert all(re.fullmatch(rf"accuracy|loss|(val|test)_({kinds})", name) for name in figures)
    for name in ("test_average_precision", "test_roc", "test_co_occurrence", f"test_{SHEET}1"):
        texts = " ".join(_list_texts(figures[name])).replace(r"\$", "$")
        assert "cost in $ and $x^2$" in texts, name
        assert "نظارة" in texts, name
        figures[name].canvas.draw()


@pytest.mark.slow
def test_every_figure_warns_of_an_untrained_backbone(page: AttributePage) -> None:
    figures = draw_attribute_charts(page.report, UNTRAINED_WARNING) | _draw_sheets(page, UNTRAINED_WARNING)
    assert len(figures) >= 2 + 2 * (len(KINDS) + 1)
    for name, figure in figures.items():
        assert figure.get_suptitle().replace("\n", " ") == UNTRAINED_WARNING, name


def test_attributes_are_drawn_by_their_metric_beside_the_trivial_answer(page: AttributePage) -> None:
    attributes = page.report.splits["val"].attributes
    for draw, metric, count in ((draw_average_precisions, "average_precision", 5), (draw_accuracies, "accuracy", 7)):
        defined = [each for each in attributes if getattr(each, metric) is not None]
        ranked = sorted(defined, key=lambda each: (getattr(each, metric), each.attribute))
        assert len(ranked) == count
        figure = draw(attributes, "val", "")
        (axes,) = figure.axes
        dots, marks = (np.asarray(line.get_xdata()) for line in axes.lines)
        trivial = [getattr(each, f"trivial_{metric}") for each in ranked]
        assert dots.tolist() == [getattr(each, metric) for each in ranked]
        assert marks.tolist() == trivial
        bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
        assert np.allclose([bar.get_x() for bar in bars], trivial)
        assert np.allclose([bar.get_width() for bar in bars], dots - marks)
        ends = [np.asarray(path.vertices)[:, 0].tolist() for path in axes.collections[0].get_paths()]
        lows, highs = ([getattr(each, f"{metric}_{end}") for each in ranked] for end in ("low", "high"))
        for (low, high), *expected in zip(ends, lows, highs, strict=True):
            assert np.allclose([low, high], np.array(expected, float), equal_nan=True)
        labels = [label.get_text() for label in axes.get_yticklabels()]
        for label, each in zip(labels, ranked, strict=True):
            assert label.endswith(f"  {each.yes} of {each.support}")
        assert axes.yaxis_inverted(), "the lowest stands above"
        drawn = [
            *dots,
            *marks,
            *(low for low in lows if low is not None),
            *(high for high in highs if high is not None),
        ]
        assert axes.get_xlim()[0] < min(drawn) and max(drawn) < axes.get_xlim()[1]
        assert f"lowest first; mean {dots.mean():.3f}" in axes.get_title("left")
        assert f"{8 - count} of 8 attributes" in figure.get_supxlabel().replace("\n", " ")


def test_of_many_attributes_the_lowest_are_shown_and_the_others_counted(page: AttributePage) -> None:
    some = page.report.splits["test"].attributes[0]
    attributes = [replace(some, attribute=f"a{n}", accuracy=n / 100, average_precision=n / 100) for n in range(100)]
    for draw in (draw_accuracies, draw_average_precisions):
        figure = draw(attributes, "val", "")
        labels = [label.get_text().split()[0] for axes in figure.axes for label in axes.get_yticklabels()]
        assert labels == [f"a{number}" for number in range(80)]
        assert [len(axes.get_yticklabels()) for axes in figure.axes] == [40, 40]
        note = figure.get_supxlabel().replace("\n", " ")
        assert "80 of 100 attributes" in note and "attributes.csv" in note


@pytest.mark.slow
def test_an_attribute_without_labels_has_no_row_and_no_curve(tmp_path: Path) -> None:
    page = make_attribute_page(tmp_path, ["Only"], one_valued=1)
    figures = draw_attribute_charts(page.report, "") | _draw_sheets(page)
    assert "val_average_precision" in figures, "it describes the result in MLflow"
    assert not {"val_roc", "val_precision_recall"} & set(figures)
    assert {"test_roc", "test_precision_recall"} <= set(figures)
    for figure in figures.values():
        figure.canvas.draw()


def test_panels_show_the_smallest_area_first_with_the_point_of_the_threshold(page: AttributePage) -> None:
    split = page.report.splits["test"]
    curves = trace_attribute_curves(split.answers)["roc"]
    figure = draw_rocs(curves, split.attributes, "test", "")
    ranked = sorted(curves, key=lambda curve: curve.area)
    metrics = {each.attribute: each for each in split.attributes}
    for axes, curve in zip(figure.axes[: len(ranked)], ranked, strict=True):
        line, baseline, point = (np.asarray(each.get_xydata()) for each in axes.lines)
        assert np.array_equal(line, np.transpose([curve.x, curve.y]))
        assert baseline.tolist() == [[0, 0], [1, 1]]
        own = metrics[curve.name]
        assert own.specificity is not None
        assert point.tolist() == [[1 - own.specificity, own.recall]]
        assert axes.get_title().endswith(f"AUC {curve.area:.3f}")


def test_panels_of_precision_and_recall_have_steps_and_the_fraction_of_yes(page: AttributePage) -> None:
    split = page.report.splits["test"]
    curves = trace_attribute_curves(split.answers)["precision_recall"]
    figure = draw_precision_recalls(curves, split.attributes, "test", "")
    ranked = sorted(curves, key=lambda curve: curve.area)
    metrics = {each.attribute: each for each in split.attributes}
    for axes, curve in zip(figure.axes[: len(ranked)], ranked, strict=True):
        line, baseline, *points = axes.lines
        assert np.array_equal(line.get_xydata(), np.transpose([curve.x, curve.y]))
        assert line.get_drawstyle() == "steps-pre", "a precision holds from its recall down to the one before"
        own = metrics[curve.name]
        assert np.asarray(baseline.get_xydata()).tolist() == [[0, own.yes / own.support], [1, own.yes / own.support]]
        expected = [] if own.precision is None else [[[own.recall, own.precision]]]
        assert [np.asarray(point.get_xydata()).tolist() for point in points] == expected


def test_co_occurrence_compares_answers_with_labels_where_both_are_known() -> None:
    labels = np.array([[YES, YES], [YES, NO], [YES, BLANK], [NO, YES], [BLANK, YES]], np.int8)
    probabilities = np.array([[0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [0.1, 0.9], [0.9, 0.1]])
    answers = AttributeAnswers(("a", "b"), probabilities, labels, np.array([0.5, 0.5]), np.arange(5))
    figure = draw_co_occurrence(answers, "val", "")
    actual, excess = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[:2])
    assert np.allclose(actual, [[1, 1 / 2], [1 / 2, 1]])
    assert np.allclose(excess, [[0, 1 / 2], [2 / 3 - 1 / 2, 0]])
    assert [axes.images[0].get_clim() for axes in figure.axes[:2]] == [(0, 1), (-0.5, 0.5)]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_co_occurrence_of_many_attributes_shows_those_that_differ_most(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.tile(np.array([[YES], [NO]], np.int8), (1, 4))
    probabilities = np.array([[0.9, 0.9, 0.9, 0.9], [0.1, 0.9, 0.1, 0.1]])
    answers = AttributeAnswers(tuple("abcd"), probabilities, labels, np.full(4, 0.5), np.arange(2))
    monkeypatch.setattr(attribute_figures, "_MAX_NAMES", 1)
    figure = draw_co_occurrence(answers, "val", "")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b"]
    assert "1 of 4 attributes" in figure.get_supxlabel()


def test_groups_stand_beside_the_others_with_the_interval_of_the_difference(page: AttributePage) -> None:
    rows = [row for row in page.report.splits["test"].groups if row.balanced_difference_low is not None][:3]
    values, differences = draw_groups(rows, "balanced_accuracy", "test", "").axes
    other, own = (np.asarray(line.get_xdata()).tolist() for line in values.lines)
    assert [line.get_label() for line in values.lines] == ["the others", "the group"]
    assert own == [row.balanced_accuracy for row in rows]
    assert other == [row.other_balanced_accuracy for row in rows]
    ends = [np.asarray(path.vertices)[:, 0].tolist() for path in differences.collections[0].get_paths()]
    assert ends == [[row.balanced_difference_low, row.balanced_difference_high] for row in rows]
    labels = [label.get_text() for label in values.get_yticklabels()]
    for label, row in zip(labels, rows, strict=True):
        assert label.endswith(f"= {row.value}  {row.count}")


def test_sheets_have_a_row_of_the_most_confident_errors_of_each_attribute(
    page: AttributePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribute_figures, "_ATTRIBUTES_PER_SHEET", 5)
    figures = _draw_sheets(page)
    assert [name for name in figures if name.startswith("test_")] == [f"test_{SHEET}1", f"test_{SHEET}2"]
    texts = " ".join(text for name in figures if name.startswith("test_") for text in _list_texts(figures[name]))
    split = page.report.splits["test"]
    for attribute in ("a", "cost in $ and $x^2$"):
        errors = split.list_errors(attribute)
        assert len(errors) >= 5
        assert f"{attribute}: 5 of {len(errors)} errors" in texts
        assert f"predicted: {errors[0].predicted}, {errors[0].confidence:.1%}" in texts
