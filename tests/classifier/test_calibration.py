"""Calibrated confidence matches accuracy, and unknown people reach the threshold at the rate that params set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from celebflow.classifier.calibration import (
    bin_reliability,
    choose_threshold,
    compute_calibration_error,
    fit_calibration,
    fit_temperature,
    score_unknown,
    softmax,
    trace_open_set,
)
from celebflow.errors import CelebflowError

SEEDS = st.integers(0, 2**32 - 1)


def _draw_labels(probabilities: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = (random.random((len(probabilities), 1)) < probabilities.cumsum(axis=1)).argmax(axis=1)
    return labels


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy() -> None:
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
    labels = _draw_labels(softmax(logits), random)
    temperature = fit_temperature(logits * factor, labels)
    assert temperature == pytest.approx(factor, rel=0.12)
    before = log_loss(labels, softmax(logits * factor))
    assert log_loss(labels, softmax(logits * factor / temperature)) <= before + 1e-9


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, people=st.integers(3, 9), count=st.integers(1, 60))
def test_unknown_people_score_as_if_the_classifier_had_no_output_for_them(seed: int, people: int, count: int) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(count, people)) * 4, random.integers(0, people, count)
    expected = [softmax(np.delete(row, label)[None]).max() for row, label in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(score_unknown(logits, labels), expected)


@settings(deadline=None, max_examples=100)
@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=60),
    rate=st.floats(0.01, 0.99),
)
def test_the_threshold_is_the_lowest_that_keeps_the_false_acceptance_rate(scores: list[float], rate: float) -> None:
    values = np.array(scores)
    threshold = choose_threshold(values, rate)
    assert (values >= threshold).mean() <= rate or threshold == 1
    lower = np.nextafter(threshold, -np.inf)
    assert threshold in (0, 1) or (values >= lower).mean() > rate


def test_the_threshold_is_fitted_to_logits_divided_by_the_temperature() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(3000, 5)) * 2
    labels = _draw_labels(softmax(logits), random)
    calibration = fit_calibration(logits * 3, labels, 0.1)
    assert calibration.temperature == pytest.approx(3, rel=0.1)
    reached = score_unknown(logits * 3 / calibration.temperature, labels) >= calibration.threshold
    assert reached.mean() == pytest.approx(0.1, abs=0.001)


def test_a_classifier_without_errors_recognizes_most_of_the_people_it_knows() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(12) % 3
    logits = random.normal(size=(12, 3))
    logits[np.arange(12), labels] += 6
    calibration = fit_calibration(logits, labels, 0.05)
    assert calibration.temperature == 1
    assert (softmax(logits).max(axis=1) >= calibration.threshold).mean() > 0.5
    assert choose_threshold(np.ones(20), 0.05) == 1


def test_open_set_rates_at_the_classifiers_threshold_are_exact() -> None:
    rates = trace_open_set(np.array([0.9981, 0.9989]), np.array([0.9982, 0.5]), 0.9985)
    (found,) = (each for each in rates if each.threshold == 0.9985)
    assert (found.known, found.unknown) == (0.5, 0.0)


def test_a_classifier_of_two_people_takes_nobody_as_unknown() -> None:
    logits, labels = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    calibration = fit_calibration(logits, labels, 0.05)
    assert (calibration.threshold, calibration.false_acceptance_rate) == (0.0, 1.0)


def test_open_set_rates_fall_from_one_to_zero() -> None:
    rates = trace_open_set(np.array([0.9, 0.6]), np.array([0.3, 0.4, 0.8, 0.2]), 0.5)
    assert (rates[0].known, rates[0].unknown) == (1.0, 1.0)
    assert (rates[-1].known, rates[-1].unknown) == (0.0, 0.0)
    assert (rates[100].threshold, rates[100].known, rates[100].unknown) == (0.5, 1.0, 0.25)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_become_no_probabilities(value: float) -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2] = value
    with pytest.raises(CelebflowError, match=r"not finite.*train\.learning_rate.*dvc repro"):
        softmax(logits)
