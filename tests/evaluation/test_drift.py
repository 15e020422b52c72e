"""Scores are those of refits without each photograph, and p values are true: few false alarms, and shifts are found."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge

from celebflow.classifier.calibration import FloatArray
from celebflow.evaluation.drift import SampleComparison, compare_samples, score_left_out
from celebflow.evaluation.metrics import measure_fraction

PENALTY = 0.3


def _center(vectors: FloatArray, strata: NDArray[np.int64]) -> FloatArray:
    centered = vectors.copy()
    for stratum in np.unique(strata):
        centered[strata == stratum] -= vectors[strata == stratum].mean(axis=0)
    return centered


def _refit_without(number: int, vectors: FloatArray, target: FloatArray, strata: NDArray[np.int64]) -> float:
    """Return what a ridge regression with an intercept for each stratum, fitted to the others, says of a photograph."""
    others = np.arange(len(vectors)) != number
    within = _center(vectors, strata)
    penalty = PENALTY * np.square(within).sum() / len(vectors)
    x, y = _center(vectors[others], strata[others]), _center(target[others, None], strata[others])[:, 0]
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    same = others & (strata == strata[number])
    return float((vectors[number] - vectors[same].mean(axis=0)) @ weights)


@pytest.mark.parametrize("stratum_count", [1, 4])
@pytest.mark.parametrize("dimensions", [3, 60])
def test_scores_are_those_of_refits_without_each_photograph(stratum_count: int, dimensions: int) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, dimensions)) + 5
    strata = 7 * random.permutation(np.arange(30) % stratum_count)  # any numbers
    targets = random.normal(size=(30, 2))
    scores = score_left_out(vectors @ vectors.T, targets, strata, PENALTY)
    expected = [[_refit_without(number, vectors, target, strata) for target in targets.T] for number in range(30)]
    np.testing.assert_allclose(scores, expected, rtol=1e-7, atol=1e-9)


def test_scores_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    vectors, target = random.normal(size=(25, 40)), random.permutation(np.arange(25) % 2).astype(np.float64)
    scores = score_left_out(vectors @ vectors.T, target[:, None], np.zeros(25, np.int64), PENALTY)[:, 0]
    alpha = PENALTY * np.square(vectors - vectors.mean(axis=0)).sum() / 25
    for number in range(25):
        others = np.arange(25) != number
        mean = vectors[others].mean(axis=0)
        model = KernelRidge(alpha=alpha).fit(vectors[others] - mean, target[others] - target[others].mean())
        assert scores[number] == pytest.approx(model.predict([vectors[number] - mean])[0], abs=1e-9)


def _draw(
    seed: int, new_of_person: tuple[int, ...], shift: float = 0.0
) -> tuple[FloatArray, NDArray[np.bool_], list[int]]:
    """Draw ten photographs of each person, who are far from one another; some of them are new, and shifted."""
    random = np.random.default_rng(seed)
    people = np.repeat(np.arange(len(new_of_person)), 10)
    vectors = random.normal(size=(len(people), 50)) + 3 * random.normal(size=(len(new_of_person), 50))[people]
    new = np.concatenate([np.arange(10) < count for count in new_of_person])
    vectors[new, 0] += shift
    return vectors @ vectors.T, new, people.tolist()


def _compare(seed: int, new_of_person: tuple[int, ...], shift: float = 0.0, pooled: bool = False) -> SampleComparison:
    products, new, people = _draw(seed, new_of_person, shift)
    return compare_samples(products, new, np.array([0 if pooled else person for person in people]), 99)


ALIKE, UNEVEN = (3, 3, 3, 3), (9, 5, 1, 1)


@pytest.mark.parametrize("new_of_person", [ALIKE, UNEVEN])
def test_false_alarms_within_people_are_as_many_as_promised(new_of_person: tuple[int, ...]) -> None:
    results = [_compare(seed, new_of_person) for seed in range(400)]
    assert 0.03 <= np.mean([result.differs for result in results]) <= 0.07
    assert 0.45 <= np.mean([result.p_value <= 0.5 for result in results]) <= 0.55
    assert np.mean([result.auc for result in results]) == pytest.approx(0.5, abs=0.02), "no score tells the label"


def test_without_people_their_fractions_decide() -> None:
    """The same people alike raise fewer false alarms than promised; others than in train are a difference."""
    alike = [_compare(seed, ALIKE, pooled=True) for seed in range(200)]
    assert np.mean([result.differs for result in alike]) <= 0.05
    uneven = [_compare(seed, UNEVEN, pooled=True) for seed in range(20)]
    assert np.mean([result.differs for result in uneven]) > 0.8


def test_photographs_drawn_from_one_heap_raise_as_many_false_alarms_as_promised() -> None:
    differ = []
    for seed in range(400):
        products, new, _ = _draw(seed, ALIKE)
        drawn = np.random.default_rng(seed).permutation(new)
        differ.append(compare_samples(products, drawn, np.zeros(len(new), np.int64), 99).differs)
    assert 0.03 <= np.mean(differ) <= 0.07


@pytest.mark.parametrize("new_of_person", [ALIKE, UNEVEN])
def test_a_shift_is_found_and_shifted_photographs_score_higher(new_of_person: tuple[int, ...]) -> None:
    results = [_compare(seed, new_of_person, shift=5.0) for seed in range(40)]
    assert np.mean([result.differs for result in results]) > 0.9
    new = _draw(0, new_of_person)[1]
    for result in results:
        ranks = result.scores[new, None] > result.scores[~new]
        assert result.auc == pytest.approx(ranks.mean()), "no ties"
    assert np.mean([result.auc for result in results]) > 0.8


def test_a_few_that_differ_much_are_found_where_most_look_alike() -> None:
    results = []
    for seed in range(20):
        vectors = np.random.default_rng(seed).normal(size=(100, 400))
        vectors[:12, 0] += 20  # a quarter of the new ones
        results.append(compare_samples(vectors @ vectors.T, np.arange(100) < 50, np.zeros(100, np.int64), 99))
    assert np.mean([result.differs for result in results]) > 0.9, "by the AUC alone, it would be a quarter"
    assert np.mean([result.auc for result in results]) < 0.65
    assert np.mean([result.beyond.value for result in results]) == pytest.approx(0.24, abs=0.05)


def test_photographs_that_are_all_the_same_do_not_differ() -> None:
    for products in (np.zeros((20, 20)), np.ones((20, 20), np.float32)):
        result = compare_samples(products, np.arange(20) < 10, np.arange(20) % 2, 99)
        assert (result.auc, result.p_value, result.differs) == (0.5, 1.0, False)


def test_the_p_value_counts_the_order_that_was_found() -> None:
    products, new, people = _draw(0, ALIKE, shift=100.0)
    assert compare_samples(products, new, np.array(people), 99).p_value == 0.01, "never 0"


def test_a_fraction_has_an_interval_even_where_it_is_zero() -> None:
    fraction = measure_fraction(0, 30)
    assert (fraction.value, fraction.interval.low) == (0.0, 0.0)
    assert fraction.interval.high == pytest.approx(0.1135, abs=1e-4)
    assert measure_fraction(3, 12).value == 0.25
