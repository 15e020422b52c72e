"""Metrics of attributes agree with scikit-learn, blanks never count, and resamples are those made one by one."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from celebflow.data.attributes import BLANK, NO, YES
from celebflow.data.tables import load_rows, save_rows
from celebflow.evaluation import attribute_answers
from celebflow.evaluation.attribute_answers import (
    AttributeAnswers,
    find_intervals,
    resample_metrics,
    weigh_metrics,
)
from celebflow.evaluation.attribute_metrics import (
    MEAN_METRICS,
    AttributeMetrics,
    compute_attribute_metrics,
    compute_mean_intervals,
    compute_mean_metrics,
    trace_attribute_curves,
)
from celebflow.evaluation.significance import compute_percentiles, draw_weights
from tests.answers import draw_answers

SEEDS = st.integers(0, 2**32 - 1)
NO_RESAMPLES: dict[str, np.ndarray] = {}


def _measure(answers: AttributeAnswers, attribute: int) -> dict[str, float | None]:
    """Return what scikit-learn says about one attribute."""
    known = answers.labels[:, attribute] != BLANK
    labels, scores = answers.labels[known, attribute] == YES, answers.probabilities[known, attribute]
    if len(labels) == 0:
        return dict.fromkeys(
            ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "auc", "average_precision")
        )
    positive = scores >= answers.thresholds[attribute]
    both = labels.any() and not labels.all()
    return {
        "accuracy": accuracy_score(labels, positive),
        "balanced_accuracy": balanced_accuracy_score(labels, positive) if both else None,
        "precision": precision_score(labels, positive) if positive.any() else None,
        "recall": recall_score(labels, positive) if labels.any() else None,
        "specificity": recall_score(~labels, ~positive) if not labels.all() else None,
        "f1": f1_score(labels, positive, zero_division=0) if labels.any() else None,
        "auc": roc_auc_score(labels, scores) if both else None,
        "average_precision": average_precision_score(labels, scores) if both else None,
    }


def _repeat(answers: AttributeAnswers, times: np.ndarray) -> AttributeAnswers:
    rows = np.repeat(np.arange(len(times)), times.astype(int))
    return replace(
        answers, probabilities=answers.probabilities[rows], labels=answers.labels[rows], groups=answers.groups[rows]
    )


def _expect(answers: AttributeAnswers) -> dict[str, list[float]]:
    rows = [_measure(answers, attribute) for attribute in range(len(answers.names))]
    return {name: [math.nan if row[name] is None else float(row[name] or 0) for row in rows] for name in rows[0]}


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS, count=st.integers(1, 40), blanks=st.sampled_from([0.0, 0.2, 0.8]))
def test_metrics_are_those_of_scikit_learn_with_blanks_ties_and_one_valued_attributes(
    seed: int, count: int, blanks: float
) -> None:
    answers = draw_answers(seed, count, blanks=blanks)
    frequent = np.array([YES, NO, YES, NO, YES], np.int8)
    rows = compute_attribute_metrics(answers, frequent, NO_RESAMPLES)
    assert [row.attribute for row in rows] == list(answers.names)
    for attribute, row in enumerate(rows):
        labels = answers.labels[:, attribute]
        assert (row.support, row.yes) == (int((labels != BLANK).sum()), int((labels == YES).sum()))
        for name, expected in _measure(answers, attribute).items():
            assert getattr(row, name) == (None if expected is None else pytest.approx(expected, abs=1e-12)), name
        if row.support:
            assert row.trivial_accuracy == pytest.approx((labels[labels != BLANK] == frequent[attribute]).mean())
            assert row.trivial_average_precision == row.yes / row.support
        else:
            assert row.trivial_accuracy is row.trivial_average_precision is row.calibration_error is None


@settings(deadline=None, max_examples=10)
@given(seed=SEEDS, count=st.integers(1, 40))
def test_means_are_over_the_attributes_that_are_defined(seed: int, count: int) -> None:
    answers = draw_answers(seed, count)
    frequent = np.zeros(5, bool)
    rows = compute_attribute_metrics(answers, frequent, NO_RESAMPLES)
    metrics = compute_mean_metrics(answers, frequent)
    for name in (*MEAN_METRICS, "trivial_accuracy", "calibration_error"):
        values = [getattr(row, name) for row in rows if getattr(row, name) is not None]
        assert (name in metrics) == bool(values)
        if values:
            assert metrics[name] == pytest.approx(np.mean(values))
    known = answers.labels != BLANK
    assert ("loss" in metrics) == known.any()
    if known.any():
        expected = log_loss(answers.labels[known], answers.probabilities[known], labels=[NO, YES])
        assert metrics["loss"] == pytest.approx(expected)


def test_loss_of_a_certain_wrong_answer_is_finite() -> None:
    answers = replace(draw_answers(0, 20), probabilities=np.zeros((20, 5)))
    yes_fraction = (answers.labels == YES).sum() / (answers.labels != BLANK).sum()
    loss = compute_mean_metrics(answers, np.zeros(5, bool))["loss"]
    assert loss == pytest.approx(-np.log(np.finfo(np.float64).tiny) * yes_fraction)


def test_calibration_error_is_the_mean_gap_between_probability_and_fraction_of_yes() -> None:
    probabilities = np.array([0.05, 0.105, 0.91, 0.95, 0.99, 1.0, 0.5])[:, None]
    labels = np.array([NO, YES, YES, YES, NO, YES, BLANK], np.int8)[:, None]
    answers = AttributeAnswers(("a",), probabilities, labels, np.array([0.5]), np.arange(7))
    (row,) = compute_attribute_metrics(answers, np.array([True]), NO_RESAMPLES)
    low, high = (0.05 - 0) + (1 - 0.105), 4 * abs((0.91 + 0.95 + 0.99 + 1.0) / 4 - 0.75)
    assert row.calibration_error == pytest.approx((low + high) / 6)


def test_the_answer_at_the_threshold_is_yes() -> None:
    answers = AttributeAnswers(
        ("a",), np.array([[0.3], [0.29]]), np.array([[YES], [NO]], np.int8), np.array([0.3]), np.arange(2)
    )
    (row,) = compute_attribute_metrics(answers, np.array([True]), NO_RESAMPLES)
    assert row.accuracy == row.recall == row.specificity == 1


@pytest.mark.parametrize("seed", range(3))
def test_blanks_never_count(seed: int) -> None:
    answers = draw_answers(seed, 30)
    blank = answers.labels == BLANK
    others = np.random.default_rng(seed + 1).random(blank.shape)
    changed = replace(answers, probabilities=np.where(blank, others, answers.probabilities))
    frequent = np.ones(5, bool)
    resampled, resampled_changed = resample_metrics(answers, 0), resample_metrics(changed, 0)
    expected = compute_attribute_metrics(answers, frequent, resampled)
    assert compute_attribute_metrics(changed, frequent, resampled_changed) == expected
    assert compute_mean_metrics(changed, frequent) == compute_mean_metrics(answers, frequent)
    for attribute, row in enumerate(expected):  # nor do their photographs
        kept = ~blank[:, attribute]
        alone = replace(
            answers,
            names=(row.attribute,),
            probabilities=answers.probabilities[kept, attribute, None],
            labels=answers.labels[kept, attribute, None],
            thresholds=answers.thresholds[[attribute]],
            groups=answers.groups[kept],
        )
        (actual,) = compute_attribute_metrics(alone, frequent[:1], NO_RESAMPLES)
        expected_values = {name: value for name, value in asdict(row).items() if not name.endswith(("low", "high"))}
        assert {name: getattr(actual, name) for name in expected_values} == expected_values


@settings(deadline=None, max_examples=6)
@given(seed=SEEDS, count=st.integers(2, 30))
def test_weights_count_photographs_as_often_as_they_say(seed: int, count: int) -> None:
    answers = draw_answers(seed, count)
    weights = np.random.default_rng(seed).integers(0, 4, (2, count)).astype(float)
    weights[:, 0] += 1  # no resample is empty
    weighed = weigh_metrics(answers, weights)
    for row, times in enumerate(weights):
        expected = _expect(_repeat(answers, times))
        assert weighed.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(weighed[name][row], values, atol=1e-12, err_msg=name)


def _count_people(answers: AttributeAnswers, attribute: int, metric: str) -> int:
    """Return how many people a metric of an attribute is made of."""
    labels = answers.labels[:, attribute]
    positive = answers.probabilities[:, attribute] >= answers.thresholds[attribute]
    yes, no = (len(set(answers.groups[labels == value].tolist())) for value in (YES, NO))
    if metric == "accuracy":
        return len(set(answers.groups[labels != BLANK].tolist()))
    if metric == "precision":
        return len(set(answers.groups[(labels != BLANK) & positive].tolist()))
    return yes if metric in ("recall", "f1") else min(yes, no)


@pytest.mark.parametrize("rare", [YES, NO])
def test_what_few_people_decide_has_no_interval_among_however_many_others(rare: int) -> None:
    answers = draw_answers(0, 300, blanks=0, group_count=100)
    of_all = {"accuracy", "precision"} | (set() if rare == YES else {"recall", "f1"})
    for people, has_interval in ((2, False), (3, True)):
        labels = np.where(answers.groups < people, rare, YES + NO - rare).astype(np.int8)
        some = replace(answers, labels=np.tile(labels[:, None], (1, 5)))
        row = compute_attribute_metrics(some, np.zeros(5, bool), _lack_nothing(resample_metrics(some, 0)))[0]
        for name in (*MEAN_METRICS, "recall", "precision"):
            assert (getattr(row, f"{name}_low") is not None) == (has_interval or name in of_all), name


def _lack_nothing(resampled: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the resamples in which every metric is defined, so that not their number decides about intervals."""
    defined = np.isfinite(np.stack([*resampled.values()])).all(axis=(0, 2))
    return {name: values[defined] for name, values in resampled.items()}


def test_resamples_and_intervals_are_those_of_slow_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribute_answers, "draw_weights", lambda groups, seed, _: draw_weights(groups, seed, 12))
    answers = draw_answers(3, 60, group_count=25)
    resampled = resample_metrics(answers, 5)
    weights = np.concatenate(list(draw_weights(answers.groups, 5, 12)))
    slow = [_expect(_repeat(answers, times)) for times in weights]
    rows = compute_attribute_metrics(answers, np.ones(5, bool), resampled)
    means = compute_mean_intervals(resampled, 25)
    for name in slow[0]:
        table = np.array([each[name] for each in slow])  # (resamples, A)
        np.testing.assert_allclose(resampled[name], table, atol=1e-12, err_msg=name)
        if name == "specificity":
            continue
        for attribute, row in enumerate(rows):
            values = table[:, attribute][~np.isnan(table[:, attribute])]
            ends = (getattr(row, f"{name}_low"), getattr(row, f"{name}_high"))
            if len(values) < 0.9 * len(table) or values.min() == values.max():
                assert ends == (None, None)
                continue
            people = _count_people(answers, attribute, name)
            if people < 3:
                assert ends == (None, None)
                continue
            interval = compute_percentiles({name: values}, people)[name]
            assert ends == pytest.approx((interval.low, interval.high))
    for name in MEAN_METRICS:
        values = np.array([np.nanmean(each[name]) for each in slow])
        interval = compute_percentiles({name: values}, 25)[name]
        assert (means[name].low, means[name].high) == pytest.approx((interval.low, interval.high))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = draw_answers(0, 40)
    at_once = resample_metrics(answers, 0)
    sizes = []

    def weigh(answers: AttributeAnswers, weights: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(weights.size)
        return weigh_metrics(answers, weights)

    monkeypatch.setattr(attribute_answers, "weigh_metrics", weigh)
    monkeypatch.setattr(attribute_answers, "_BLOCK_CELLS", 12_345)
    in_blocks = resample_metrics(answers, 0)
    assert max(sizes) <= 12_345
    for name, values in at_once.items():
        np.testing.assert_array_equal(in_blocks[name], values)


def test_intervals_hold_the_metric_and_are_wider_where_people_have_many_photographs() -> None:
    answers = draw_answers(1, 150, blanks=0.1, group_count=150)
    copies = _repeat(answers, np.full(150, 3))
    narrow, wide = (
        compute_mean_intervals(resample_metrics(each, 0), int(each.groups.max()) + 1)["accuracy"]
        for each in (replace(copies, groups=np.arange(450)), copies)
    )
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    for row in compute_attribute_metrics(answers, np.ones(5, bool), resample_metrics(answers, 0)):
        for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "average_precision"):
            value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
            assert low is None or low <= value <= high


def test_there_is_no_interval_where_resamples_show_nothing() -> None:
    values = np.linspace(0, 1, 100)
    rare, seldom_lacking = values.copy(), values.copy()
    rare[:11] = np.nan
    seldom_lacking[:10] = np.nan
    resampled = {"rare": rare, "seldom_lacking": seldom_lacking, "alike": np.ones(100)}
    assert set(find_intervals(resampled, 3)) == {"seldom_lacking"}
    assert find_intervals(resampled, 2) == {}


def test_rows_survive_their_file(tmp_path: Path) -> None:
    answers = draw_answers(2, 30)
    rows = compute_attribute_metrics(answers, np.ones(5, bool), resample_metrics(answers, 0))
    assert any(row.auc is None for row in rows) and any(row.auc_low is not None for row in rows)
    save_rows(AttributeMetrics, rows, tmp_path / "attributes.csv")
    assert load_rows(AttributeMetrics, tmp_path / "attributes.csv") == rows


def test_curves_are_of_known_labels_and_have_few_points() -> None:
    answers = draw_answers(0, 5000, decimals=6)
    curves = trace_attribute_curves(answers)
    rows = compute_attribute_metrics(answers, np.ones(5, bool), NO_RESAMPLES)
    for kind, area in (("roc", "auc"), ("precision_recall", "average_precision")):
        assert [(each.name, pytest.approx(each.area)) for each in curves[kind]] == [
            (row.attribute, getattr(row, area)) for row in rows if getattr(row, area) is not None
        ]
        for curve in curves[kind]:
            assert len(curve.x) == len(curve.y) <= 500 and (np.diff(curve.x) >= 0).all()
            assert curve.x[0] == 0 and curve.x[-1] == 1
    assert len(curves["precision_recall"][0].x) == 500
    roc = curves["roc"][0]
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(roc.area, abs=1e-3)
