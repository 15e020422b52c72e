"""Accuracies in groups are those of a slow loop, and only certain disadvantages are listed."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score

from celebflow.data.attributes import BLANK, NO, YES
from celebflow.data.tables import load_rows, save_rows
from celebflow.evaluation.attribute_answers import AttributeAnswers
from celebflow.evaluation.attribute_groups import (
    GroupAccuracy,
    compute_co_occurrence,
    compute_group_accuracies,
    list_worst_groups,
)
from celebflow.evaluation.metrics import DEVIATIONS, compute_wilson_intervals
from tests.answers import draw_answers

SEEDS = st.integers(0, 2**32 - 1)


def _find(rows: list[GroupAccuracy], attribute: str, given: str, value: str) -> GroupAccuracy:
    (row,) = [row for row in rows if (row.attribute, row.given, row.value) == (attribute, given, value)]
    return row


@settings(deadline=None, max_examples=10)
@given(seed=SEEDS, count=st.integers(1, 50))
def test_groups_are_those_of_a_slow_loop(seed: int, count: int) -> None:
    answers = draw_answers(seed, count)
    rows = compute_group_accuracies(answers)
    assert len(rows) == 5 * 4 * 2
    assert len({(row.attribute, row.given, row.value) for row in rows}) == len(rows)
    for row in rows:
        assert row.attribute != row.given
        attribute, given_attribute = answers.names.index(row.attribute), answers.names.index(row.given)
        labels = answers.labels[:, attribute]
        positive = answers.probabilities[:, attribute] >= answers.thresholds[attribute]
        wanted = {"yes": YES, "no": NO}[row.value]
        groups = [
            (labels != BLANK) & (answers.labels[:, given_attribute] == value) for value in (wanted, YES + NO - wanted)
        ]
        assert row.count == groups[0].sum()
        assert row.people == len(set(answers.groups[groups[0]].tolist()))
        accuracies = [((labels == YES) == positive)[group].mean() if group.any() else None for group in groups]
        balanced = [
            balanced_accuracy_score(labels[group], positive[group]) if len(set(labels[group].tolist())) == 2 else None
            for group in groups
        ]
        assert [row.accuracy, row.other_accuracy] == pytest.approx(accuracies)
        assert [row.balanced_accuracy, row.other_balanced_accuracy] == pytest.approx(balanced)
        for (first, second), prefix in ((accuracies, ""), (balanced, "balanced_")):
            difference, low, high = (getattr(row, f"{prefix}difference{end}") for end in ("", "_low", "_high"))
            if first is None or second is None:
                assert difference is low is high is None
            else:
                assert difference == pytest.approx(first - second)
                assert low < difference + 1e-12 and difference - 1e-12 < high


def test_interval_of_independent_photographs_is_wilsons() -> None:
    answers = draw_answers(0, 60, group_count=60)
    for row in compute_group_accuracies(answers):
        if row.accuracy is None:
            assert row.accuracy_low is row.accuracy_high is None
        else:
            ends = binomtest(round(row.accuracy * row.count), row.count).proportion_ci(method="wilson")
            assert (row.accuracy_low, row.accuracy_high) == pytest.approx((ends.low, ends.high))


def test_interval_of_a_difference_is_newcombes_at_the_level_of_all_comparisons() -> None:
    answers = draw_answers(0, 60, group_count=60)
    row = _find(compute_group_accuracies(answers), "a", "b", "yes")
    other = _find(compute_group_accuracies(answers), "a", "b", "no")
    ends = []
    for each in (row, other):
        assert each.accuracy is not None
        test = binomtest(round(each.accuracy * each.count), each.count)
        interval = test.proportion_ci(confidence_level=1 - 0.05 / 20, method="wilson")
        ends.append((each.accuracy, interval.low, interval.high))
    (own, low, high), (others, other_low, other_high) = ends
    assert row.difference_low == pytest.approx(own - others - np.hypot(own - low, other_high - others))
    assert row.difference_high == pytest.approx(own - others + np.hypot(high - own, others - other_low))


def test_interval_of_a_balanced_difference_combines_those_of_yes_and_no() -> None:
    answers = draw_answers(0, 200, blanks=0, group_count=200)
    row = _find(compute_group_accuracies(answers), "a", "b", "yes")
    hits = (answers.probabilities[:, 0] >= answers.thresholds[0]) == (answers.labels[:, 0] == YES)
    estimates = []  # of the group, then of the others: value, and the squares of the distances to both ends
    for value in (YES, NO):
        values, below, above = [], [], []
        for kind in (YES, NO):
            own = hits[(answers.labels[:, 1] == value) & (answers.labels[:, 0] == kind)]
            test = binomtest(int(own.sum()), len(own))
            interval = test.proportion_ci(confidence_level=1 - 0.05 / 20, method="wilson")
            values.append(own.mean())
            below.append(((own.mean() - interval.low) / 2) ** 2)
            above.append(((interval.high - own.mean()) / 2) ** 2)
        estimates.append((np.mean(values), sum(below), sum(above)))
    (own, own_below, own_above), (others, others_below, others_above) = estimates
    assert row.balanced_difference == pytest.approx(own - others)
    assert row.balanced_difference_low == pytest.approx(own - others - np.sqrt(own_below + others_above))
    assert row.balanced_difference_high == pytest.approx(own - others + np.sqrt(own_above + others_below))


def test_photographs_of_one_person_count_by_how_alike_their_answers_are() -> None:
    random = np.random.default_rng(3)
    people = np.sort(np.unique(random.integers(0, 25, 120), return_inverse=True)[1])  # of different numbers
    labels = random.integers(0, 2, (120, 2)).astype(np.int8)
    hits = random.random(120) < random.beta(1, 1, 25)[people]
    probabilities = np.stack([np.where(hits, labels[:, 0], 1 - labels[:, 0]), labels[:, 1]], axis=1).astype(float)
    answers = AttributeAnswers(("a", "b"), probabilities, labels, np.array([0.5, 0.5]), people)
    row = _find(compute_group_accuracies(answers), "a", "b", "yes")
    sizes = np.bincount(people)
    rates = np.bincount(people, hits) / sizes
    between = (sizes * (rates - hits.mean()) ** 2).sum() / (len(sizes) - 1)
    within = (sizes * rates * (1 - rates)).sum() / (120 - len(sizes))
    size = (120 - (sizes**2).sum() / 120) / (len(sizes) - 1)
    correlation = (between - within) / (between + (size - 1) * within)
    assert 0.1 < correlation < 0.9
    in_group = np.bincount(people[labels[:, 1] == YES])
    effective = row.count / (1 + correlation * ((in_group**2).sum() / row.count - 1))
    low, high = compute_wilson_intervals(np.array(row.accuracy), np.array(effective), DEVIATIONS)
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx((float(low), float(high)))


def test_copies_of_a_photograph_make_nothing_more_certain() -> None:
    alone = draw_answers(0, 60, group_count=60)
    copies = replace(
        alone,
        probabilities=np.repeat(alone.probabilities, 3, axis=0),
        labels=np.repeat(alone.labels, 3, axis=0),
        groups=np.repeat(alone.groups, 3),
    )
    for expected, row in zip(compute_group_accuracies(alone), compute_group_accuracies(copies), strict=True):
        assert row.count == 3 * expected.count and row.people == expected.people
        for name in ("accuracy_low", "accuracy_high", "difference_high", "balanced_difference_low"):
            assert getattr(row, name) == (
                None if getattr(expected, name) is None else pytest.approx(getattr(expected, name))
            )


def test_photographs_whose_answers_differ_within_people_count_nearly_in_full() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (600, 2)).astype(np.int8)
    probabilities = np.where(random.random(labels.shape) < 0.8, labels, 1 - labels).astype(float)
    people = np.arange(600) % 60  # ten photographs of each, whose errors are independent
    thresholds = np.array([0.5, 0.5])
    widths = [
        row.accuracy_high - row.accuracy_low
        for groups in (people, np.arange(600))
        for row in compute_group_accuracies(AttributeAnswers(("a", "b"), probabilities, labels, thresholds, groups))[:1]
        if row.accuracy_high is not None and row.accuracy_low is not None
    ]
    assert widths[0] == pytest.approx(widths[1], rel=0.15)


def _draw_unfair(seed: int, accuracy_given_no: float) -> AttributeAnswers:
    """Draw ten independent attributes; of "smiling", 90 % of the answers are right, or fewer without "male"."""
    random = np.random.default_rng(seed)
    labels = (random.random((1000, 10)) < 0.4).astype(np.int8)
    accuracy = np.full(labels.shape, 0.9)
    accuracy[labels[:, 1] == NO, 0] = accuracy_given_no
    probabilities = np.where(random.random(labels.shape) < accuracy, labels, 1 - labels).astype(float)
    names = ("smiling", "male", *"abcdefgh")
    return AttributeAnswers(names, probabilities, labels, np.full(10, 0.5), np.arange(1000) // 2)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_group_for_which_an_attribute_works_badly_is_listed_alone(
    metric: Literal["accuracy", "balanced_accuracy"],
) -> None:
    rows = compute_group_accuracies(_draw_unfair(0, 0.6))
    (worst,) = list_worst_groups(rows, 10, 30, metric)
    assert (worst.attribute, worst.given, worst.value) == ("smiling", "male", "no")
    assert list_worst_groups(rows, 0, 30) == []
    assert list_worst_groups(rows, 10, worst.count, metric) == [worst]
    assert list_worst_groups(rows, 10, worst.count + 1) == []


def test_nothing_is_listed_by_chance_alone() -> None:
    listed = [list_worst_groups(compute_group_accuracies(_draw_unfair(seed, 0.9)), 10, 1) for seed in range(20)]
    assert sum(map(bool, listed)) <= 2  # of 20 tables, one is expected to have any


def test_a_small_group_without_an_error_does_not_make_the_other_one_bad() -> None:
    labels = np.zeros((500, 2), np.int8)
    labels[:8, 1] = YES
    probabilities = np.zeros((500, 2))
    probabilities[100:150, 0] = 1  # a tenth of the answers are wrong, none among the eight
    answers = AttributeAnswers(("a", "b"), probabilities, labels, np.full(2, 0.5), np.arange(500))
    rows = compute_group_accuracies(answers)
    assert _find(rows, "a", "b", "yes").accuracy == 1
    assert list_worst_groups(rows, 10, 1) == []


def test_worst_groups_are_ranked_by_the_least_disadvantage_that_is_certain() -> None:
    (row, *_) = compute_group_accuracies(_draw_unfair(0, 0.6))
    rows = [
        replace(row, given=given, count=count, difference=difference, difference_high=high)
        for given, count, difference, high in [
            ("large difference, uncertain", 40, -0.5, 0.1),
            ("certain", 400, -0.2, -0.15),
            ("less certain", 100, -0.3, -0.05),
            ("few photographs", 5, -0.9, -0.5),
            ("undefined", 50, None, None),
        ]
    ]
    assert [each.given for each in list_worst_groups(rows, 10, 30)] == ["certain", "less certain"]
    assert [each.given for each in list_worst_groups(rows, 1, 30)] == ["certain"]


def test_accuracy_that_comes_from_rarity_is_no_disadvantage_in_balanced_accuracy() -> None:
    random = np.random.default_rng(0)
    male = random.random(2000) < 0.5
    beard = random.random(2000) < np.where(male, 0.5, 0.02)
    positive = np.where(beard, random.random(2000) < 0.7, random.random(2000) < 0.02)
    labels = np.stack([beard, male], axis=1).astype(np.int8)
    answers = AttributeAnswers(
        ("beard", "male"), np.stack([positive, male], axis=1).astype(float), labels, np.full(2, 0.5), np.arange(2000)
    )
    rows = compute_group_accuracies(answers)
    assert [(row.attribute, row.value) for row in list_worst_groups(rows, 10, 30)] == [("beard", "yes")]
    assert list_worst_groups(rows, 10, 30, "balanced_accuracy") == []


def test_rows_survive_their_file(tmp_path: Path) -> None:
    rows = compute_group_accuracies(draw_answers(0, 30))
    assert any(row.accuracy is None for row in rows)
    save_rows(GroupAccuracy, rows, tmp_path / "groups.csv")
    assert load_rows(GroupAccuracy, tmp_path / "groups.csv") == rows


def test_one_attribute_has_no_groups() -> None:
    answers = AttributeAnswers(("a",), np.ones((3, 1)), np.ones((3, 1), np.int8), np.array([0.5]), np.arange(3))
    assert compute_group_accuracies(answers) == []


def test_co_occurrence_is_the_fraction_of_yes_among_those_with_yes() -> None:
    labels = np.array([[YES, YES, NO], [YES, BLANK, NO], [YES, NO, NO], [NO, YES, NO], [BLANK, YES, BLANK]], np.int8)
    expected = [[1, 1 / 2, 0], [1 / 2, 1, 0], [np.nan, np.nan, np.nan]]
    np.testing.assert_allclose(compute_co_occurrence(labels), expected)
