"""Intervals and tests equal SciPy's, scikit-learn's, and what can be counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from celebflow.classifier.calibration import softmax
from celebflow.evaluation import significance
from celebflow.evaluation.significance import (
    Interval,
    PairedTest,
    _compute_interval,
    compare_hits,
    compute_intervals,
    compute_percentiles,
    draw_weights,
    linearize_macro_auc,
    weigh_accuracy,
    weigh_balanced_accuracy,
    weigh_macro_auc,
)

SEEDS = st.integers(0, 2**32 - 1)


def _draw(seed: int, people: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(people).repeat(2), random.integers(0, people, count)])
    logits = random.normal(size=(len(labels), people)).round(1)  # rounded, so that there are ties
    logits[np.arange(len(labels)), labels] += 1
    return logits, labels


def _compute_intervals(
    logits: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> dict[str, Interval]:
    return compute_intervals(logits.argmax(axis=1), softmax(logits), labels, groups, seed)


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS, people=st.integers(2, 12), count=st.integers(0, 60))
def test_weighted_metrics_equal_scikit_learns(seed: int, people: int, count: int) -> None:
    logits, labels = _draw(seed, people, count)
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(labels))).astype(float)
    weights[:, : 2 * people] += 1  # everybody is in the resample
    probabilities, predicted = softmax(logits), logits.argmax(1)
    accuracies = weigh_accuracy(predicted == labels, weights)
    balanced_accuracies = weigh_balanced_accuracy(predicted == labels, labels, weights)
    areas = weigh_macro_auc(probabilities, labels, weights)
    for number, row in enumerate(weights):
        assert accuracies[number] == pytest.approx(accuracy_score(labels, predicted, sample_weight=row))
        balanced_accuracy = balanced_accuracy_score(labels, predicted, sample_weight=row)
        assert balanced_accuracies[number] == pytest.approx(balanced_accuracy)
        expected = [roc_auc_score(labels == p, probabilities[:, p], sample_weight=row) for p in range(people)]
        assert areas[number] == pytest.approx(np.mean(expected))


def test_a_resample_without_a_person_takes_the_means_over_the_others() -> None:
    logits, labels = _draw(0, 4, 20)
    weights = np.stack([np.ones(len(labels)), labels != 2, labels == 2]).astype(float)
    probabilities, hits = softmax(logits), logits.argmax(1) == labels
    kept = labels != 2
    balanced_accuracies = weigh_balanced_accuracy(hits, labels, weights)
    expected = weigh_balanced_accuracy(hits[kept], labels[kept], np.ones((1, kept.sum())))
    assert balanced_accuracies[1] == pytest.approx(expected[0])
    areas = weigh_macro_auc(probabilities, labels, weights)
    expected = weigh_macro_auc(probabilities[kept], labels[kept], np.ones((1, kept.sum())))
    assert areas[1] == pytest.approx(expected[0])
    assert np.isnan(areas[2]), "one person alone has no ROC"


def test_a_resample_holds_whole_groups_and_as_many_as_there_are() -> None:
    groups = np.array([0, 1, 1, 2, 3, 3, 3])
    (weights,) = draw_weights(groups, seed=0, resamples=500)
    assert (weights[:, 1] == weights[:, 2]).all() and (weights[:, 4] == weights[:, 6]).all()
    assert (weights[:, [0, 1, 3, 4]].sum(axis=1) == 4).all()
    assert weights.mean() == pytest.approx(1, abs=0.1)


def test_a_resample_holds_a_pair_as_often_as_both_people() -> None:
    people = np.array([[0, 1], [1, 2], [0, 0], [2, 0]])
    (weights,) = draw_weights(people, seed=0, resamples=500)
    (of_people,) = draw_weights(np.arange(3), seed=0, resamples=500)
    first, second, third = of_people.T
    np.testing.assert_array_equal(weights.T, [first * second, second * third, first, third * first])


@pytest.mark.slow
@pytest.mark.parametrize(("count", "low", "high"), [(5, 0.87, 0.98), (200, 0.90, 0.98)])
def test_intervals_of_few_groups_hold_the_mean_as_often_as_those_of_many(count: int, low: float, high: float) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        values = random.normal(size=count)
        means = np.concatenate([weights @ values / count for weights in draw_weights(np.arange(count), 1)])
        interval = compute_percentiles({"": means}, count)[""]
        held += interval.low <= 0 <= interval.high
    assert low < held / 400 < high


def test_intervals_of_many_groups_are_percentiles() -> None:
    values = {"": np.random.default_rng(0).normal(size=2000)}
    few, many, plain = (compute_percentiles(values, count)[""] for count in (4, 10**6, None))
    assert many.low == pytest.approx(plain.low, abs=1e-4) and many.high == pytest.approx(plain.high, abs=1e-4)
    assert few.low < plain.low < plain.high < few.high


@settings(deadline=None, max_examples=3)
@given(seed=SEEDS)
def test_intervals_equal_scipys_bootstrap(seed: int) -> None:
    logits, labels = _draw(seed, 4, 150)
    ours = _compute_intervals(logits, labels, np.arange(len(labels)), seed)
    hits = (logits.argmax(1) == labels).astype(float)
    theirs = stats.bootstrap((hits,), np.mean, n_resamples=4000, method="percentile", random_state=seed)
    assert ours["accuracy"].low == pytest.approx(theirs.confidence_interval.low, abs=0.025)
    assert ours["accuracy"].high == pytest.approx(theirs.confidence_interval.high, abs=0.025)

    def area(rows: NDArray[np.int64]) -> float:
        ranks = stats.rankdata(softmax(logits[rows]), axis=0)
        areas = []
        for person in range(4):
            own = labels[rows] == person
            wins = ranks[own, person].sum() - own.sum() * (own.sum() + 1) / 2
            areas.append(wins / (own.sum() * (~own).sum()))
        return float(np.mean(areas))

    theirs = stats.bootstrap(
        (np.arange(len(labels)),), area, n_resamples=300, method="percentile", vectorized=False, random_state=seed
    )
    assert ours["macro_auc"].low == pytest.approx(theirs.confidence_interval.low, abs=0.03)
    assert ours["macro_auc"].high == pytest.approx(theirs.confidence_interval.high, abs=0.03)


def test_the_size_of_blocks_is_bounded_and_does_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = _draw(0, 12, 300)
    groups = np.arange(len(labels)) // 2
    rows = significance.RESAMPLES // 7  # seven blocks and a rest
    monkeypatch.setattr(significance, "_BLOCK_CELLS", rows * len(labels))
    blocks = list(draw_weights(groups, 5))
    assert [len(block) for block in blocks] == [rows] * 7 + [significance.RESAMPLES - 7 * rows]
    count = int(groups.max()) + 1
    drawn = np.random.default_rng(5).multinomial(count, np.full(count, 1 / count), size=significance.RESAMPLES)
    at_once = drawn[:, groups].astype(np.float64)
    assert np.array_equal(np.concatenate(blocks), at_once)
    hits = logits.argmax(axis=1) == labels
    assert _compute_intervals(logits, labels, groups, 5) == {
        "accuracy": _compute_interval(weigh_accuracy(hits, at_once)),
        "balanced_accuracy": _compute_interval(weigh_balanced_accuracy(hits, labels, at_once)),
        "macro_auc": _compute_interval(weigh_macro_auc(softmax(logits), labels, at_once)),
    }
    change = np.roll(hits, 1).astype(np.float64) - hits
    paired = _compute_interval(at_once @ change / at_once.sum(axis=1))
    assert compare_hits(hits, np.roll(hits, 1), groups, 5).interval == paired


def test_near_duplicates_widen_an_interval() -> None:
    logits, labels = _draw(0, 4, 100)
    logits, labels = logits.repeat(4, axis=0), labels.repeat(4)
    apart = _compute_intervals(logits, labels, np.arange(len(labels)), 0)["accuracy"]
    together = _compute_intervals(logits, labels, np.arange(len(labels)) // 4, 0)["accuracy"]
    assert together.high - together.low == pytest.approx(2 * (apart.high - apart.low), rel=0.2)


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, count=st.integers(1, 80))
def test_mcnemars_test_equals_scipys(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.random(count) < 0.6, random.random(count) < 0.7
    found = compare_hits(a, b, np.arange(count), seed)
    n = found.only_a + found.only_b
    expected = stats.binomtest(found.only_b, n).pvalue if n else 1.0
    assert found.p_value == pytest.approx(expected)
    assert found.difference == pytest.approx(b.mean() - a.mean())
    assert found.interval.low - 1e-9 <= found.difference <= found.interval.high + 1e-9 or count < 20


@pytest.mark.parametrize(
    ("p_value", "low", "high", "verdict"),
    [
        (0.049, 0.01, 0.1, "better"),
        (0.049, -0.1, -0.01, "worse"),
        (0.051, 0.01, 0.1, "chance"),
        (0.051, -0.1, -0.01, "chance"),
        (0.001, 0.0, 0.1, "chance"),
        (0.001, -0.1, 0.0, "chance"),
    ],
)
def test_a_verdict_needs_both_test_and_interval(p_value: float, low: float, high: float, verdict: str) -> None:
    assert PairedTest(1, 2, p_value, (low + high) / 2, Interval(low, high)).verdict == verdict


@settings(deadline=None, max_examples=5)
@given(seed=SEEDS, people=st.integers(2, 12))
def test_derivatives_of_the_macro_auc_are_those_of_small_changes_of_weights(seed: int, people: int) -> None:
    logits, labels = _draw(seed, people, 30)
    probabilities = softmax(logits)
    step = 1e-6 * np.eye(len(labels))
    areas = [weigh_macro_auc(probabilities, labels, 1 + sign * step) for sign in (1, -1)]
    linear = linearize_macro_auc(probabilities, labels)
    np.testing.assert_allclose(linear.derivatives, (areas[0] - areas[1]) / 2e-6, atol=1e-8)
    assert linear.value == pytest.approx(weigh_macro_auc(probabilities, labels, np.ones((1, len(labels))))[0])
    assert np.isnan(linearize_macro_auc(probabilities[:2], labels[:2]).value), "one person alone has no ROC"


def test_the_interval_of_many_photographs_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = _draw(3, 8, 1000)
    groups = np.arange(len(labels)) // 2
    exact = _compute_intervals(logits, labels, groups, 5)
    monkeypatch.setattr(significance, "_MAX_COMPARED", 100)
    linear = _compute_intervals(logits, labels, groups, 5)
    width = exact["macro_auc"].high - exact["macro_auc"].low
    assert linear["macro_auc"] != exact["macro_auc"]
    assert linear["macro_auc"].low == pytest.approx(exact["macro_auc"].low, abs=width / 20)
    assert linear["macro_auc"].high == pytest.approx(exact["macro_auc"].high, abs=width / 20)
    assert linear["accuracy"] == exact["accuracy"]
