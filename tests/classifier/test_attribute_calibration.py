"""Probabilities of attributes match the labels of val, and thresholds make the chosen metric highest."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from celebflow.classifier.attribute_calibration import (
    AttributeCalibration,
    ThresholdKind,
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


@pytest.mark.parametrize("constant", [3.3, -4.7, 0.1])
def test_equal_logits_give_the_fraction_of_yes_however_they_are_rounded(constant: float) -> None:
    on_val = np.full((50, 1), constant, np.float32)
    on_val[2] = np.nextafter(np.float32(constant), np.float32(9))
    labels = np.where(np.arange(50) < 5, YES, NO)[:, None]
    fitted = fit_attribute_calibration(on_val, labels, "accuracy")
    others = (constant + np.array([[-1e-7], [0], [1e-7]])).astype(np.float32)
    np.testing.assert_allclose(fitted.compute_probabilities(others), 6 / 52, atol=0.02)


def test_thresholds_are_what_calibrated_probabilities_call_for() -> None:
    random = np.random.default_rng(4)
    logits = random.normal(size=(20_000, 1)) - 2
    labels = np.where(random.random(logits.shape) < 1 / (1 + np.exp(-logits)), YES, NO)
    fitted = fit_attribute_calibration(logits, labels, "accuracy")
    probabilities, actual = fitted.compute_probabilities(logits)[:, 0], labels[:, 0] == YES
    scores: dict[ThresholdKind, Callable[[float], float]] = {
        "accuracy": lambda threshold: float(((probabilities >= threshold) == actual).mean()),
        "balanced_accuracy": lambda threshold: float(balanced_accuracy_score(actual, probabilities >= threshold)),
    }
    for kind, score in scores.items():
        (threshold,) = fitted.select_thresholds(kind).tolist()
        assert score(threshold) >= max(map(score, np.linspace(0.02, 0.98, 49))) - 0.003
    assert fitted.accuracy_thresholds == (0.5,)
    assert fitted.balanced_thresholds == pytest.approx(((actual.sum() + 1) / (len(actual) + 2),))


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
    with pytest.raises(ValueError, match="not a valid calibration") as caught:
        replace(CALIBRATION, **change)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 80, "the numbers of forty attributes would hide the message"
