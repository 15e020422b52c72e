"""A learning curve of attributes says what more photographs would bring, as far as val tells."""

from dataclasses import replace

import numpy as np
import pytest

from celebflow.data.attributes import BLANK, NO, YES
from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_answers import AttributeAnswers, weigh_metrics
from celebflow.evaluation.attribute_learning_curve import (
    AttributeForecast,
    AttributeLearningCurve,
    build_attribute_learning_curve,
)
from celebflow.evaluation.learning_curve import continue_curve

SIZES = [50.0, 100.0, 200.0, 400.0, 800.0]
NAMES = ("Hat", "Smiling")


def _answer(size: float, seed: int = 0, count: int = 400, group_size: int = 1) -> AttributeAnswers:
    """Return answers about groups of photographs that show the same; fewer are guesses, the larger the size."""
    random = np.random.default_rng(0)
    labels = np.where(random.random((count, 2)) < (0.2, 0.5), YES, NO).astype(np.int8)
    random = np.random.default_rng([1, seed])  # the same photographs are hard for all sizes
    guessed = random.random(labels.shape) < 3 / size**0.6
    probabilities = np.where(guessed, random.random(labels.shape), np.where(labels == YES, 0.9, 0.1))
    groups = np.arange(count)
    labels, probabilities, groups = (np.repeat(each, group_size, axis=0) for each in (labels, probabilities, groups))
    return AttributeAnswers(NAMES, probabilities, labels, np.full(2, 0.5), groups)


def _build(*, repetitions: int = 2, group_size: int = 1, count: int = 400) -> AttributeLearningCurve:
    rows = [[_answer(size, seed, count, group_size) for size in SIZES] for seed in range(repetitions)]
    return build_attribute_learning_curve(rows, SIZES)


def test_the_points_are_means_over_attributes_and_repetitions_in_their_intervals() -> None:
    curve = _build()
    assert [each.photographs for each in curve.points] == SIZES
    for point, size in zip(curve.points, SIZES, strict=True):
        for metric in ("average_precision", "balanced_accuracy"):
            answers = [_answer(size, seed) for seed in range(2)]
            expected = np.mean([weigh_metrics(each, np.ones((1, 400)))[metric] for each in answers])
            assert getattr(point, metric) == pytest.approx(expected)
            assert getattr(point, f"{metric}_low") < expected < getattr(point, f"{metric}_high")


def test_the_forecast_continues_what_was_measured() -> None:
    curve = _build(repetitions=4, count=1000)
    rows = [_answer(1600, seed, 1000) for seed in range(4)]
    coming = np.mean([weigh_metrics(each, np.ones((1, 1000)))["average_precision"] for each in rows])
    assert curve.forecast.photographs == 1600
    assert curve.forecast.interval.low <= coming <= curve.forecast.interval.high
    assert curve.forecast.average_precision == pytest.approx(coming, abs=0.03)
    at_end = next(each for each in reversed(curve.line) if each.photographs <= 800)
    assert curve.forecast.gain == pytest.approx(curve.forecast.average_precision - at_end.average_precision, abs=0.01)
    assert curve.forecast.gain_interval.low < curve.forecast.gain < curve.forecast.gain_interval.high
    assert curve.line[0].photographs == pytest.approx(50)
    assert curve.line[-1].average_precision == pytest.approx(curve.forecast.average_precision)


def test_people_with_many_photographs_do_not_narrow_the_intervals() -> None:
    alone, together = (_build(group_size=size).points[-1] for size in (1, 4))
    narrow, wide = (each.average_precision_high - each.average_precision_low for each in (alone, together))
    assert wide == pytest.approx(narrow, rel=0.2)


def test_few_people_widen_the_interval_of_the_forecast() -> None:
    values = np.array(SIZES) ** -0.5 * np.random.default_rng(0).normal(3, 0.2, (501, 1))
    few, many = (
        continue_curve(1 - values, SIZES, 2, AttributeForecast, group_count=count)[1].interval for count in (4, 400)
    )
    assert few.high - few.low > 1.2 * (many.high - many.low)


def test_attributes_gain_by_the_second_half_and_those_without_both_answers_do_not_count() -> None:
    rows = [[_answer(300 if size < 800 else 1e9) for size in SIZES]]
    half = weigh_metrics(rows[0][3], np.ones((1, 400)))["average_precision"][0]
    gains = build_attribute_learning_curve(rows, SIZES).gains
    assert gains == {"Hat": pytest.approx(1 - half[0]), "Smiling": pytest.approx(1 - half[1])}
    for label in (NO, BLANK):
        changed = [[_relabel(each, label) for each in row] for row in rows]
        curve = build_attribute_learning_curve(changed, SIZES)
        assert curve.gains.keys() == {"Smiling"}
        assert curve.points[-1].average_precision == pytest.approx(1)


def _relabel(answers: AttributeAnswers, label: int) -> AttributeAnswers:
    """Return the answers with one label for the first attribute of all photographs."""
    labels = answers.labels.copy()
    labels[:, 0] = label
    return replace(answers, labels=labels)


def test_too_few_people_or_labels_give_no_curve() -> None:
    with pytest.raises(CelebflowError, match="val has too few people for a learning curve: 2 people or groups"):
        _build(count=2, group_size=50)
    alike = [[replace(_answer(50), labels=np.zeros((400, 2), np.int8)) for _ in SIZES]]
    with pytest.raises(CelebflowError, match="val has too few labels for a learning curve"):
        build_attribute_learning_curve(alike, SIZES)
