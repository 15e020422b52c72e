"""Scores of pairs are the log-likelihood ratios of the two-covariance model."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.plda import FittedCovariances, fit_two_covariances


def _draw_people(person_count: int, photo_count: int, dimensions: int = 4) -> tuple[FloatArray, np.ndarray]:
    """Draw vectors from a two-covariance model, and number their people."""
    random = np.random.default_rng(0)
    between, within = random.normal(size=(2, dimensions, dimensions)) + 2 * np.eye(dimensions)
    people = np.repeat(np.arange(person_count), photo_count)
    vectors = random.normal(size=(person_count, dimensions)) @ between.T
    return vectors[people] + random.normal(size=(len(people), dimensions)) @ within.T + 5, people


def _evaluate_directly(
    fitted: FittedCovariances, between: FloatArray, within: FloatArray, pair: tuple[FloatArray, FloatArray]
) -> float:
    """Return the log-likelihood ratio from the densities of both photographs together."""
    mean = np.concatenate([fitted.mean, fitted.mean])
    nothing = np.zeros_like(between)
    same = np.block([[between + within, between], [between, between + within]])
    different = np.block([[between + within, nothing], [nothing, between + within]])
    joined = np.concatenate(pair)
    return float(multivariate_normal(mean, same).logpdf(joined) - multivariate_normal(mean, different).logpdf(joined))


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_scores_are_log_likelihood_ratios(shrinkage: float) -> None:
    vectors, people = _draw_people(30, 5)
    fitted = fit_two_covariances(vectors, people, shrinkage, 0.7)
    model = fitted.model
    inverse = np.linalg.inv(fitted.basis)
    within = inverse.T @ inverse
    between = inverse.T @ np.diag(model.between) @ inverse
    coordinates = fitted.project(vectors)
    np.testing.assert_allclose((coordinates**2 / (1 + model.between)).mean(axis=1), 1)
    vectors = coordinates @ inverse + fitted.mean  # of the length that the model expects
    first, second = coordinates[:20], coordinates[3:23]
    expected = [_evaluate_directly(fitted, between, within, (vectors[row], vectors[row + 3])) for row in range(20)]
    np.testing.assert_allclose(model.score(first, second), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.score(second, first), expected, rtol=1e-8, atol=1e-8)


def test_the_covariances_that_made_the_vectors_are_found() -> None:
    vectors, people = _draw_people(4000, 4)
    fitted = fit_two_covariances(vectors, people, 0, 1)
    random = np.random.default_rng(0)
    true_between, true_within = random.normal(size=(2, 4, 4)) + 2 * np.eye(4)
    inverse = np.linalg.inv(fitted.basis)
    np.testing.assert_allclose(inverse.T @ inverse, true_within @ true_within.T, rtol=0.1, atol=0.3)
    between = inverse.T @ np.diag(fitted.model.between) @ inverse
    np.testing.assert_allclose(between, true_between @ true_between.T, rtol=0.1, atol=0.4)


def test_a_person_with_many_photographs_does_not_shape_the_model_alone() -> None:
    vectors, people = _draw_people(40, 5)
    once = fit_two_covariances(vectors, people, 0.1, 1)
    crowd = np.tile(vectors[:1], (2000, 1)) + np.random.default_rng(1).normal(0, 20, (2000, 4))
    crowded = fit_two_covariances(np.concatenate([vectors, crowd]), np.concatenate([people, [40] * 2000]), 0.1, 1)
    uncapped = np.concatenate([vectors, crowd]).mean(axis=0)
    assert np.linalg.norm(crowded.mean - once.mean) < 0.2 * np.linalg.norm(uncapped - once.mean)


def test_coordinates_that_do_not_tell_people_apart_are_left_out() -> None:
    vectors, people = _draw_people(200, 5)
    noise = np.random.default_rng(1).normal(size=(len(vectors), 3))
    fitted = fit_two_covariances(np.concatenate([vectors, noise], axis=1), people, 0, 1)
    assert fitted.basis.shape[1] == len(fitted.model.between) < 7
    with pytest.raises(ValueError, match="do not differ"):
        fit_two_covariances(np.tile(vectors[:5], (200, 1)), people, 0.1, 1)


def test_people_with_one_photograph_leave_the_covariance_within_as_it_is() -> None:
    vectors, people = _draw_people(30, 5)
    alone, _ = _draw_people(50, 1)
    with_them = fit_two_covariances(np.concatenate([vectors, alone]), np.concatenate([people, np.arange(30, 80)]), 0, 1)
    without = fit_two_covariances(vectors, people, 0, 1)
    one, other = (np.linalg.inv(each.basis).T @ np.linalg.inv(each.basis) for each in (with_them, without))
    np.testing.assert_allclose(one, other, rtol=1e-8)


def test_a_person_s_photographs_together_are_weighed_as_their_densities_say() -> None:
    vectors, people = _draw_people(30, 5)
    fitted = fit_two_covariances(vectors, people, 0.1, 0.7)
    model, dimensions = fitted.model, len(fitted.model.between)
    coordinates = fitted.project(vectors)
    counts = np.array([1, 3, 5])
    groups = [coordinates[5 * person : 5 * person + count] for person, count in enumerate(counts)]
    photographs = coordinates[40:44]
    scores = model.describe_people(np.array([group.mean(axis=0) for group in groups]), counts).score(photographs)
    between, within = np.diag(model.between), np.eye(dimensions)
    for person, group in enumerate(groups):
        size = len(group)
        of_person = multivariate_normal(cov=np.kron(np.ones((size, size)), between) + np.kron(np.eye(size), within))
        both = np.kron(np.ones((size + 1, size + 1)), between) + np.kron(np.eye(size + 1), within)
        of_both, of_anybody = multivariate_normal(cov=both), multivariate_normal(cov=between + within)
        for number, photograph in enumerate(photographs):
            together = of_both.logpdf(np.concatenate([group.ravel(), photograph]))
            expected = together - of_person.logpdf(group.ravel()) - of_anybody.logpdf(photograph)
            assert scores[number, person] == pytest.approx(expected, abs=1e-8)
    alone = model.describe_people(coordinates[:4], np.ones(4, int)).score(photographs)
    np.testing.assert_allclose(np.diagonal(alone), model.score(photographs, coordinates[:4]), atol=1e-8)


def test_a_singular_covariance_is_an_error_with_the_remedy() -> None:
    vectors, people = _draw_people(3, 2)  # 3 degrees of freedom within a person, and 4 dimensions
    with pytest.raises(ValueError, match=r"4 components.*raise train\.lda_shrinkage"):
        fit_two_covariances(vectors, people, 0, 1)
    assert len(fit_two_covariances(vectors, people, 0.1, 1).model.between)
