"""The learning curve of attributes as text, and which tasks have one."""

from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_learning_curve import (
    AttributeForecast,
    AttributeLearningCurve,
    AttributeLearningPoint,
)
from celebflow.evaluation.significance import Interval
from celebflow.experiments.attribute_learning import AttributeLearningReport
from celebflow.experiments.learning_curves import format_workspace_curve, measure_workspace_curve
from celebflow.params import Params
from celebflow.report.attribute_figures import draw_attribute_learning_curve

POINTS = [AttributeLearningPoint(size, 0.6, 0.55, 0.65, 0.8, 0.7, 0.9) for size in (100.0, 200.0, 400.0)]
FORECAST = AttributeForecast(800.0, 0.62, Interval(0.58, 0.66), -0.012, Interval(-0.021, 0.003))
CURVE = AttributeLearningCurve(POINTS, [FORECAST], FORECAST, {"007": 0.125, "Bald": -0.1, "Hat": 0.5})


def test_the_text_says_what_more_photographs_bring_and_to_which_attributes() -> None:
    text = format_workspace_curve(AttributeLearningReport(CURVE, {"007": 9, "Bald": 20, "Hat": 31}))
    assert text.splitlines()[1].split()[:2] == ["100", "0.600"]
    assert "With 2 times as many photographs (800), average precision" in text
    assert "by about -1.2 points (-2.1 to +0.3), to 0.620 (0.580 to 0.660)" in text
    assert [line.split() for line in text.splitlines()[-2:]] == [["Hat", "31", "+50.0"], ["007", "9", "+12.5"]]
    assert "Bald" not in text


def test_the_figure_holds_all_intervals() -> None:
    (axes,) = draw_attribute_learning_curve(CURVE, "").axes
    low, high = axes.get_ylim()
    assert low == pytest.approx(0.5) and high == pytest.approx(0.71)
    assert "Average precision" in axes.get_title() and axes.get_xlabel() == "Photographs"


def test_a_task_without_a_curve_is_told(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    verification = params.model_copy(update={"task": "verification"})
    monkeypatch.setattr("celebflow.experiments.learning_curves.load_params", lambda _: verification)
    with pytest.raises(CelebflowError, match="recognition and attributes, and params.yaml has verification"):
        measure_workspace_curve(1, Path("curve.png"))
