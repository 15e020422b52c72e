"""Ridge regression from inner products is scikit-learn's, and its log odds come from scores that leave one out."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import LinAlgError
from sklearn.linear_model import Ridge

from celebflow.classifier.calibration import fit_logistic
from celebflow.classifier.ridge import fit_ridge

PENALTY = 0.3


def _draw(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw vectors far from 0, answers to two questions, and counts, some of them 0."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(count, 9)) + 3
    answers = np.sign((vectors - 3) @ random.normal(size=(9, 2)) + random.normal(size=(count, 2)))
    return vectors, answers, random.integers(0, 3, count).astype(np.float64)


def _make_ridge(vectors: NDArray[np.float64], counts: NDArray[np.float64]) -> Ridge:
    mean = np.average(vectors, axis=0, weights=counts)
    return Ridge(alpha=PENALTY * ((vectors - mean) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("count", [60, 8])
def test_log_odds_are_those_of_scikit_learn_s_scores(count: int) -> None:
    vectors, answers, counts = _draw(count)
    fitted = fit_ridge(vectors @ vectors.T, answers, counts, PENALTY)
    assert (fitted.weights[counts == 0] == 0).all()
    known = np.flatnonzero(counts)
    own, targets, weights = vectors[known], answers[known], counts[known]
    ridge = _make_ridge(own, weights)
    found = vectors @ (vectors.T @ fitted.weights) + fitted.bias
    for question in range(2):
        scores = ridge.fit(own, targets[:, question], weights).predict(vectors)
        left_out = np.empty(len(known))
        for row in range(len(known)):
            others = np.arange(len(known)) != row
            ridge.fit(own[others], targets[others, question], weights[others])
            left_out[row] = ridge.predict(own[[row]])[0]
        slope, offset = fit_logistic(left_out, targets[:, question] > 0, weights / weights.sum())
        np.testing.assert_allclose(found[:, question], slope * scores + offset, rtol=1e-3, atol=1e-3)


def test_photographs_that_do_not_count_change_nothing() -> None:
    vectors, answers, counts = _draw(40)
    answers[counts == 0] = np.nan
    first = fit_ridge(vectors @ vectors.T, answers, counts, PENALTY)
    vectors[counts == 0] *= 7
    again = fit_ridge(vectors @ vectors.T, answers, counts, PENALTY)
    np.testing.assert_array_equal(first.weights, again.weights)
    np.testing.assert_array_equal(first.bias, again.bias)


def test_copies_of_one_photograph_have_equal_log_odds() -> None:
    vectors = np.ones((6, 4))
    answers = np.array([[1.0], [1], [1], [1], [-1], [-1]])
    fitted = fit_ridge(vectors @ vectors.T, answers, np.ones(6), PENALTY)
    assert np.isfinite(fitted.bias).all() and fitted.bias[0] > 0
    np.testing.assert_allclose(vectors @ (vectors.T @ fitted.weights), 0, atol=1e-5)


def test_what_are_no_inner_products_is_refused() -> None:
    with pytest.raises(LinAlgError, match="inner products"):
        fit_ridge(-np.eye(5) * 3 + np.ones((5, 5)), np.array([[1.0], [1], [-1], [-1], [1]]), np.ones(5), PENALTY)
