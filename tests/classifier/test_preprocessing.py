"""Features are transformed as numpy transforms them densely, and stay sparse."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from celebflow.classifier.preprocessing import UNCHANGED, FeatureTransform
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.params import FeatureTransformParams

COUNT = 300


def _draw_features() -> NDArray[np.float32]:
    """Draw five rows, the third of them empty, one with tiny and one with huge values."""
    random = np.random.default_rng(0)
    features = random.random((5, COUNT), np.float32) * (random.random((5, COUNT)) < 0.1)
    features[2] = 0
    features[3] *= 1e-15
    features[4] *= 1e25  # whose squares float32 could not hold
    return features.astype(np.float32)


def _batch(features: NDArray[np.float32]) -> SparseBatch:
    return SparseBatch.from_rows([SparseRow.from_dense(row) for row in features], features.shape[1])


def test_square_roots_l2_normalizes_and_scales_are_those_of_dense_rows() -> None:
    features = _draw_features()
    np.testing.assert_allclose(_batch(features).square_root().to_dense(), np.sqrt(features), rtol=1e-6)
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    lengths[2] = 1
    unit = _batch(features).l2_normalize().to_dense()
    np.testing.assert_allclose(unit, features / lengths, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), [1, 1, 0, 1, 1], rtol=1e-6)
    factors = np.random.default_rng(1).random(COUNT, np.float32)
    np.testing.assert_array_equal(_batch(features).scale(factors).to_dense(), features * factors)


def test_the_last_row_may_be_empty_too() -> None:
    features = _draw_features()[:3]
    assert not _batch(features).l2_normalize().to_dense()[2].any()
    assert not _batch(features[2:]).square_root().l2_normalize().to_dense().any()


def test_a_transform_leaves_the_features_it_was_given_as_they_were() -> None:
    features = _draw_features()
    batch = _batch(features)
    FeatureTransform(True, True, True, None).apply(batch, np.full(COUNT, 2, np.float32))
    np.testing.assert_array_equal(batch.to_dense(), features)


@pytest.mark.parametrize("name", ["square_root", "l2_normalize", "standardize"])
def test_each_step_of_a_transform_is_taken_alone(name: str) -> None:
    features = _draw_features()
    factors = np.linspace(0.5, 2, COUNT, dtype=np.float32)
    expected = {
        "square_root": _batch(features).square_root(),
        "l2_normalize": _batch(features).l2_normalize(),
        "standardize": _batch(features).scale(factors),
    }[name]
    transform = replace(UNCHANGED, **{name: True})
    found = transform.make_inputs(_batch(features), factors if transform.standardize else None)
    np.testing.assert_array_equal(found.to_dense(), expected.to_dense())


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    batch = _batch(_draw_features())
    assert UNCHANGED.apply(batch, None) is batch


def test_steps_are_taken_in_the_order_of_params() -> None:
    features = _draw_features()[:2]
    factors = np.linspace(0.5, 2, COUNT, dtype=np.float32)
    roots = np.sqrt(features)
    expected = roots / np.linalg.norm(roots, axis=1, keepdims=True) * factors
    found = FeatureTransform(True, True, True, 7).apply(_batch(features), factors)
    np.testing.assert_allclose(found.to_dense(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("wanted", "examples", "kept"), [(600, 1000, 600), (600, 600, 599), (600, 30, 29), (600, 1, 1), (None, 30, None)]
)
def test_there_are_no_more_components_than_examples_have(wanted: int | None, examples: int, kept: int | None) -> None:
    params = FeatureTransformParams(square_root=True, l2_normalize=False, standardize=True, pca_components=wanted)
    assert FeatureTransform.from_params(params, examples) == FeatureTransform(True, False, True, kept)
