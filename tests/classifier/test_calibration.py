"""Probabilities become as sure as they are right, and strangers are kept out at the rate that was asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from celebflow.classifier.calibration import (
    bin_reliability,
    choose_threshold,
    compute_calibration_error,
    fit_calibration,
    fit_temperature,
    score_unknown,
    softmax,
    trace_acceptance,
)

SEEDS = st.integers(0, 2**32 - 1)


def test_calibration_error_of_what_is_sure_and_half_wrong_is_a_half() -> None:
    probabilities = np.array([[1.0, 0.0]] * 10 + [[0.2, 0.8]] * 10)
    labels = np.array([0, 1] * 5 + [1] * 8 + [0] * 2)
    bins = bin_reliability(probabilities, labels)
    assert [(each.count, each.accuracy) for each in bins] == [(10, 0.8), (10, 0.5)]
    assert compute_calibration_error(bins) == pytest.approx(0.25)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, factor=st.floats(0.2, 8))
def test_temperature_undoes_a_factor_and_lowers_the_loss(seed: int, factor: float) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(4000, 5)) * 2
    labels = np.array([random.choice(5, p=row) for row in softmax(logits)])
    temperature = fit_temperature(logits * factor, labels)
    assert temperature == pytest.approx(factor, rel=0.12)
    before = log_loss(labels, softmax(logits * factor))
    assert log_loss(labels, softmax(logits * factor / temperature)) <= before + 1e-9


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, people=st.integers(3, 9), count=st.integers(1, 60))
def test_a_stranger_scores_as_if_the_classifier_lacked_the_person(seed: int, people: int, count: int) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(count, people)) * 4, random.integers(0, people, count)
    expected = [softmax(np.delete(row, label)[None]).max() for row, label in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(score_unknown(logits, labels), expected)


@settings(deadline=None, max_examples=100)
@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=60),
    rate=st.floats(0.01, 0.99),
)
def test_the_threshold_lets_in_as_many_strangers_as_asked_and_is_the_least(scores: list[float], rate: float) -> None:
    values = np.array(scores)
    threshold = choose_threshold(values, rate)
    assert (values >= threshold).mean() <= rate or threshold == 1
    lower = np.nextafter(threshold, -np.inf)
    assert threshold in (0, 1) or (values >= lower).mean() > rate


def test_calibration_is_fitted_to_temperature_first() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(3000, 5)) * 2
    labels = np.array([random.choice(5, p=row) for row in softmax(logits)])
    calibration = fit_calibration(logits * 3, labels, 0.1)
    assert calibration.temperature == pytest.approx(3, rel=0.1)
    accepted = score_unknown(logits * 3 / calibration.temperature, labels) >= calibration.threshold
    assert accepted.mean() == pytest.approx(0.1, abs=0.001)


def test_a_perfect_classifier_names_those_whom_it_knows() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(12) % 3
    logits = random.normal(size=(12, 3))
    logits[np.arange(12), labels] += 6
    calibration = fit_calibration(logits, labels, 0.05)
    assert calibration.temperature == 1
    assert (softmax(logits).max(axis=1) >= calibration.threshold).mean() > 0.5
    assert choose_threshold(np.ones(20), 0.05) == 1


def test_the_shares_at_the_threshold_are_exact() -> None:
    known, strangers = np.array([0.9981, 0.9989]), np.array([0.9982, 0.5])
    (found,) = (each for each in trace_acceptance(known, strangers, 0.9985) if each.threshold == 0.9985)
    assert (found.known, found.strangers) == (0.5, 0.0)


def test_with_two_people_nobody_is_kept_out() -> None:
    logits, labels = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    calibration = fit_calibration(logits, labels, 0.05)
    assert (calibration.threshold, calibration.false_acceptance_rate) == (0.0, 1.0)


def test_acceptance_falls_from_all_to_none() -> None:
    acceptance = trace_acceptance(np.array([0.9, 0.6]), np.array([0.3, 0.4, 0.8, 0.2]), 0.5)
    assert (acceptance[0].known, acceptance[0].strangers) == (1.0, 1.0)
    assert (acceptance[-1].known, acceptance[-1].strangers) == (0.0, 0.0)
    at_half = acceptance[100]
    assert (at_half.threshold, at_half.known, at_half.strangers) == (0.5, 1.0, 0.25)
