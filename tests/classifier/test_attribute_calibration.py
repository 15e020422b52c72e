"""Probabilities of attributes match the labels of val, and thresholds make the chosen metric highest."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from celebflow.classifier.attribute_calibration import (
    THRESHOLD_KINDS,
    AttributeCalibration,
    ThresholdKind,
    choose_threshold,
    fit_attribute_calibration,
)
from celebflow.data.attributes import BLANK, NO, YES

CALIBRATION = AttributeCalibration((2.0, 1.0), (0.5, 0.0), (0.9, 1.0), (0.5, 0.4), (0.3, 0.2), "accuracy")


def test_calibrated_probabilities_match_the_fractions_of_yes() -> None:
    random = np.random.default_rng(2)
    logits = random.normal(size=(4000, 2)) * 3
    truth = 1 / (1 + np.exp(-np.stack([0.5 * logits[:, 0] - 1, 2 * logits[:, 1] + 1], axis=1)))
    labels = np.where(random.random(truth.shape) < truth, YES, NO)
    labels[random.random(labels.shape) < 0.1] = BLANK
    fitted = fit_attribute_calibration(logits, labels, "accuracy")
    np.testing.assert_allclose(fitted.slopes, [0.5, 2], rtol=0.15)
    np.testing.assert_allclose(fitted.offsets, [-1, 1], atol=0.15)
    np.testing.assert_allclose(fitted.compute_probabilities(logits), truth, atol=0.03)
    changed = np.where(labels == BLANK, 50, logits)
    assert fit_attribute_calibration(changed, labels, "accuracy") == fitted, "blanks never count"


@pytest.mark.parametrize("labels", [[YES] * 5, [NO] * 5, [BLANK] * 5, [YES, BLANK, BLANK, BLANK, BLANK]])
def test_labels_of_one_kind_give_bounded_probabilities(labels: list[int]) -> None:
    fitted = fit_attribute_calibration(np.linspace(-9, 9, 5)[:, None], np.array(labels)[:, None], "accuracy")
    known = sum(label != BLANK for label in labels)
    probabilities = fitted.compute_probabilities(np.array([[-1e6], [0], [1e6]]))
    assert 1 / (known + 2) - 1e-12 <= probabilities.min() and probabilities.max() <= (known + 1) / (known + 2) + 1e-12


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.05, 0.2, 0.3, 0.5, 0.7, 0.95]), st.booleans()), min_size=1, max_size=30),
    st.sampled_from(THRESHOLD_KINDS),
)
def test_no_threshold_is_better_than_the_chosen_one(cases: list[tuple[float, bool]], kind: ThresholdKind) -> None:
    probabilities, actual = np.array([each for each, _ in cases]), np.array([each for _, each in cases])

    def score(threshold: float) -> float:
        answers = probabilities >= threshold
        if kind == "accuracy" or len(set(actual.tolist())) < 2:
            return float((answers == actual).mean())
        return float(balanced_accuracy_score(actual, answers))

    chosen = choose_threshold(probabilities, actual, kind)
    assert 0 < chosen < 1
    assert score(chosen) == pytest.approx(max(score(each) for each in (0.01, 0.1, 0.25, 0.4, 0.6, 0.8, 0.99)))


def test_without_evidence_thresholds_are_what_calibrated_probabilities_call_for() -> None:
    assert choose_threshold(np.array([]), np.array([], bool), "accuracy") == 0.5
    assert choose_threshold(np.array([0.1, 0.9]), np.array([False, True]), "accuracy") == 0.5
    actual = np.array([False, False, False, True])
    assert choose_threshold(np.array([0.1, 0.1, 0.2, 0.9]), actual, "balanced_accuracy") == 0.25


def test_answers_near_the_threshold_are_uncertain() -> None:
    probabilities = np.array([[0.29, 0.21], [0.31, 0.23], [0.69, 0.6], [0.71, 0.62]])
    np.testing.assert_array_equal(
        CALIBRATION.find_uncertain(probabilities), [[False, False], [True, True], [True, True], [False, False]]
    )
    other = replace(CALIBRATION, used="balanced_accuracy")
    np.testing.assert_array_equal(other.thresholds, [0.3, 0.2])
    assert other.find_uncertain(np.array([[0.3, 0.2]])).all()


@pytest.mark.parametrize(
    "change",
    [
        {"slopes": (0.0, 1.0)},
        {"offsets": (float("nan"), 1.0)},
        {"max_probabilities": (0.4, 1.0)},
        {"accuracy_thresholds": (0.0, 0.5)},
        {"balanced_thresholds": (0.5,)},
        {"used": "f1"},
    ],
)
def test_numbers_that_no_fit_gives_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a valid calibration"):
        replace(CALIBRATION, **change)  # type: ignore[arg-type]
