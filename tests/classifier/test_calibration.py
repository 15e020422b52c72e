"""Calibrated confidence matches accuracy, and claims no more than val shows."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from celebflow.classifier.attribute_calibration import AttributeCalibration, fit_attribute_calibration
from celebflow.classifier.calibration import (
    bin_reliability,
    compute_calibration_error,
    fit_probabilities,
    format_confidence,
    softmax,
)
from celebflow.classifier.pair_calibration import PairCalibration
from celebflow.data.attributes import YES
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
    calibration = fit_probabilities(logits * factor, labels)
    assert calibration.temperature == pytest.approx(factor, rel=0.12)
    before = log_loss(labels, softmax(logits * factor))
    assert log_loss(labels, calibration.compute_probabilities(logits * factor)) <= before + 1e-3
    assert (calibration.threshold, calibration.false_acceptance_rate) == (None, 1.0)


@pytest.mark.parametrize("count", [6, 60, 600])
@pytest.mark.parametrize("margin", [9, 30, 3000])
def test_without_an_error_no_confidence_exceeds_what_the_photographs_show(count: int, margin: float) -> None:
    labels = np.arange(count) % 3
    logits = np.random.default_rng(0).normal(size=(count, 3))
    logits[np.arange(count), labels] += margin
    calibration = fit_probabilities(logits, labels)
    probabilities = calibration.compute_probabilities(np.concatenate([logits, 100 * logits]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.max() <= (count + 1) / (count + 2) + 1e-12
    of_val = probabilities[:count].max(axis=1)
    assert of_val.mean() == pytest.approx((count + 1) / (count + 2), abs=1.5 / (count + 2))
    assert len(np.unique(of_val)) > count / 2, "confidences still differ"


def test_a_photograph_of_many_people_is_still_predicted() -> None:
    logits = np.eye(5)[:1] * 3
    probabilities = fit_probabilities(logits, np.array([0])).compute_probabilities(logits)
    assert 1 / 5 < probabilities.max() <= 2 / 3


@pytest.mark.parametrize(("confidence", "text"), [(0.5, "50.0%"), (0.9996, "99.96%"), (1.0, "more than 99.9999%")])
def test_confidences_have_as_many_digits_as_tell_them_apart_from_certainty(confidence: float, text: str) -> None:
    assert format_confidence(confidence) == text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "use",
    [
        softmax,
        AttributeCalibration(*((0.5,) * 4,) * 5, used="accuracy").compute_probabilities,
        lambda logits: fit_attribute_calibration(logits, np.full(logits.shape, YES), "accuracy"),
        lambda logits: PairCalibration(1.0, 0.0, 0.9, 0.0, 0.0).compute_log_odds(logits[:, 2]),
    ],
    ids=["people", "attributes", "fitted to attributes", "pairs"],
)
def test_scores_that_are_not_finite_become_no_probabilities(
    use: Callable[[NDArray[np.float32]], object], value: float
) -> None:
    scores = np.zeros((3, 4), np.float32)
    scores[1, 2] = value
    with pytest.raises(CelebflowError, match=r"not finite.*train\.learning_rate.*dvc repro"):
        use(scores)
