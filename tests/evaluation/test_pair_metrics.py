"""Rates of pairs agree with scikit-learn, and intervals with resamples made one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from celebflow.evaluation import pair_metrics, significance
from celebflow.evaluation.pair_metrics import (
    FALSE_MATCH_RATES,
    Rates,
    compute_pair_intervals,
    compute_pair_metrics,
    trace_rates,
)

Pairs = tuple[np.ndarray, np.ndarray]


def _draw_pairs(count: int, seed: int, distance: float = 1.5) -> Pairs:
    random = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    return random.normal(size=count) + distance * np.where(same, 1, -1), same


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60))
def test_rates_and_area_are_those_of_scikit_learn_even_with_equal_scores(pairs: list[tuple[int, bool]]) -> None:
    scores, same = np.array([score for score, _ in pairs], float), np.array([each for _, each in pairs])
    if same.all() or not same.any():
        return
    metrics = compute_pair_metrics(scores, same)
    false_rates, true_rates, thresholds = roc_curve(same, scores, drop_intermediate=False)
    rates = trace_rates(scores, same)
    np.testing.assert_allclose(rates.false_matches[0], false_rates, atol=1e-12)
    np.testing.assert_allclose(rates.true_matches[0], true_rates, atol=1e-12)
    assert metrics["auc"] == pytest.approx(roc_auc_score(same, scores))
    for name, rate in FALSE_MATCH_RATES.items():
        assert metrics[name] == true_rates[false_rates <= rate].max()
    zero = np.flatnonzero(thresholds >= 0)[-1]  # the lowest threshold that is not below zero
    if (scores == 0).any():
        assert metrics["false_match_rate"] == pytest.approx(false_rates[zero])


@pytest.mark.parametrize("seed", range(5))
def test_at_the_equal_error_rate_both_errors_are_alike(seed: int) -> None:
    scores, same = _draw_pairs(4001, seed)
    rate = compute_pair_metrics(scores, same)["equal_error_rate"]
    threshold = np.quantile(scores[~same], 1 - rate)
    assert (scores[~same] >= threshold).mean() == pytest.approx(rate, abs=1e-3)
    assert (scores[same] < threshold).mean() == pytest.approx(rate, abs=2e-3)


def test_pairs_that_are_told_apart_have_no_errors() -> None:
    scores, same = np.array([3.0, 2.0, -1.0, -2.0]), np.array([True, True, False, False])
    metrics = compute_pair_metrics(scores, same)
    assert {metrics[name] for name in ("accuracy", "auc", *FALSE_MATCH_RATES)} == {1.0}
    assert {metrics[name] for name in ("equal_error_rate", "false_match_rate", "false_non_match_rate")} == {0.0}


def test_weights_count_pairs_as_often_as_they_say() -> None:
    scores, same = _draw_pairs(60, 0)
    counts = np.random.default_rng(1).integers(0, 4, (3, 60)).astype(float)
    weighted = trace_rates(scores, same, counts)
    for row, times in enumerate(counts.astype(int)):
        repeated = trace_rates(np.repeat(scores, times), np.repeat(same, times))
        assert weighted.compute_auc()[row] == pytest.approx(repeated.compute_auc()[0])
        assert weighted.compute_equal_error_rate()[row] == pytest.approx(repeated.compute_equal_error_rate()[0])
        for rate in (0.0, 0.1, 0.5):
            assert weighted.find_true_match_rate(rate)[row] == pytest.approx(repeated.find_true_match_rate(rate)[0])


def test_intervals_hold_the_metric_and_are_wider_where_pairs_share_people() -> None:
    scores, same = _draw_pairs(400, 0)
    metrics = compute_pair_metrics(scores, same)
    alone = np.arange(800).reshape(400, 2)
    alone[same, 1] = alone[same, 0]
    few = alone % 40
    few[same, 1] = few[same, 0]
    wide, narrow = (compute_pair_intervals(scores, same, people, 0) for people in (few, alone))
    for name, interval in narrow.items():
        assert interval.low <= metrics[name] <= interval.high
    assert wide["accuracy"].high - wide["accuracy"].low > 0
    repeated_scores, repeated_same = np.repeat(scores, 5), np.repeat(same, 5)
    shared = compute_pair_intervals(repeated_scores, repeated_same, np.repeat(alone, 5, axis=0), 0)["accuracy"]
    independent = compute_pair_intervals(repeated_scores, repeated_same, _number_apart(repeated_same), 0)["accuracy"]
    assert shared.high - shared.low > 1.5 * (independent.high - independent.low)


def _number_apart(same: np.ndarray) -> np.ndarray:
    people = np.arange(2 * len(same)).reshape(-1, 2)
    people[same, 1] = people[same, 0]
    return people


def test_many_pairs_of_few_people_are_weighed_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, same = _draw_pairs(300, 0)
    people = np.arange(600).reshape(300, 2) % 7
    people[same, 1] = people[same, 0]
    sizes = []

    def trace(scores: np.ndarray, same: np.ndarray, weights: np.ndarray | None = None) -> Rates:
        sizes.append(0 if weights is None else weights.size)
        return trace_rates(scores, same, weights)

    monkeypatch.setattr(pair_metrics, "trace_rates", trace)
    at_once = compute_pair_intervals(scores, same, people, 0)
    monkeypatch.setattr(significance, "_BLOCK_CELLS", 30_000)
    sizes.clear()
    assert compute_pair_intervals(scores, same, people, 0) == at_once
    assert max(sizes) <= 30_000


def test_two_people_give_no_intervals_since_their_resamples_are_all_alike() -> None:
    people = np.array([[0, 0], [0, 0], [1, 1], [0, 1], [0, 1], [0, 1]])
    scores, same = np.arange(6.0), np.arange(6) < 3
    assert compute_pair_intervals(scores, same, people, 0) == {}
    people[-1, 1] = 2
    assert compute_pair_intervals(scores, same, people, 0)["accuracy"].high > 0
