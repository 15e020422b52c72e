"""Preprocessing sparse features gives what NumPy and scikit-learn give for dense ones; it is fitted on train alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier.cards import UNCHANGED
from celebflow.classifier.model import load_classifier, save_classifier
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.projection import fit_preprocessor
from celebflow.classifier.training import compute_logits
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.store import select_split
from celebflow.params import PreprocessingParams, View
from tests.conftest import draw_features
from tests.training import ALL_STEPS, PEOPLE, MemoryCheckpoints, gather_dense, make_train_params, train

COUNT = 300
TWO_VIEWS: tuple[View, ...] = ("original", "mirrored")


def _draw_dense() -> NDArray[np.float32]:
    """Draw five rows, the third of them empty, one with tiny and one with huge values."""
    random = np.random.default_rng(0)
    features = random.random((5, COUNT), np.float32) * (random.random((5, COUNT)) < 0.1)
    features[2] = 0
    features[3] *= 1e-15
    features[4] *= 1e25  # whose squares float32 could not hold
    return features.astype(np.float32)


def _make_batch(features: NDArray[np.float32]) -> SparseBatch:
    return SparseBatch.from_rows([SparseRow.from_dense(row) for row in features], features.shape[1])


def _make_preprocessor(*steps: str) -> Preprocessor:
    """Return a preprocessor whose scale, if it has one, rises from 0.5 to 2."""
    preprocessor = Preprocessor(PreprocessingParams(**dict.fromkeys(steps, True)), COUNT)
    if "standardize" in steps:
        preprocessor.scale.copy_(torch.linspace(0.5, 2, COUNT))
    return preprocessor


def test_square_root_l2_norm_and_scale_equal_those_of_dense_rows() -> None:
    features = _draw_dense()
    np.testing.assert_allclose(_make_batch(features).square_root().to_dense(), np.sqrt(features), rtol=1e-6)
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    lengths[2] = 1
    unit = _make_batch(features).l2_normalize().to_dense()
    np.testing.assert_allclose(unit, features / lengths, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), [1, 1, 0, 1, 1], rtol=1e-6)
    factors = np.random.default_rng(1).random(COUNT, np.float32)
    np.testing.assert_array_equal(_make_batch(features).scale(factors).to_dense(), features * factors)


def test_the_last_row_may_be_empty() -> None:
    features = _draw_dense()[:3]
    assert not _make_batch(features).l2_normalize().to_dense()[2].any()
    assert not _make_batch(features[2:]).square_root().l2_normalize().to_dense().any()


def test_preprocessing_does_not_change_its_input() -> None:
    features = _draw_dense()
    batch = _make_batch(features)
    _make_preprocessor(*ALL_STEPS).normalize(batch)
    np.testing.assert_array_equal(batch.to_dense(), features)


@pytest.mark.parametrize("step", ALL_STEPS)
def test_each_step_can_be_taken_alone(step: str) -> None:
    batch = _make_batch(_draw_dense())
    expected = {
        "square_root": batch.square_root(),
        "l2_normalize": batch.l2_normalize(),
        "standardize": batch.scale(np.linspace(0.5, 2, COUNT, dtype=np.float32)),
    }[step]
    found = _make_preprocessor(step)(batch)
    np.testing.assert_allclose(found.to_dense(), expected.to_dense(), rtol=1e-6)


def test_without_steps_features_stay_unchanged() -> None:
    batch = _make_batch(_draw_dense())
    assert Preprocessor(UNCHANGED, COUNT)(batch) is batch


def test_steps_are_taken_in_the_order_of_params() -> None:
    features = _draw_dense()[:2]
    roots = np.sqrt(features)
    expected = roots / np.linalg.norm(roots, axis=1, keepdims=True) * np.linspace(0.5, 2, COUNT)
    found = _make_preprocessor(*ALL_STEPS)(_make_batch(features))
    np.testing.assert_allclose(found.to_dense(), expected, rtol=1e-5)


def test_standardized_features_have_variance_one_and_constant_ones_stay() -> None:
    features = draw_features(40, TWO_VIEWS)
    constant = 24_000  # beyond all others
    row_count = len(features.offsets) - 1
    indices = np.insert(features.indices, features.offsets[1:], constant)
    values = np.insert(features.values, features.offsets[1:], 0.3)
    features = replace(features, offsets=np.arange(row_count + 1) * 101, indices=indices, values=values)
    train_features = select_split(features, PEOPLE, "train")
    preprocessor = fit_preprocessor(train_features, PreprocessingParams(standardize=True), seed=0)
    dense, _ = gather_dense(features, "train")
    found = np.concatenate(
        [preprocessor.normalize(features.gather(train_features.rows, view)).to_dense() for view in range(2)]
    )
    variances = dense.var(axis=0)
    varying = variances > 1e-9
    assert varying.sum() > 3000
    np.testing.assert_allclose(found.var(axis=0)[varying], 1, rtol=1e-4)
    assert not varying[constant] and not varying[-1]
    np.testing.assert_array_equal(found[:, ~varying], dense[:, ~varying].astype(np.float32))
    scale = preprocessor.scale.numpy()
    assert np.isfinite(scale).all()
    np.testing.assert_allclose(found, dense * scale, rtol=1e-5)  # nothing is centered


@pytest.mark.parametrize("value", [1e-40, 1e-12, 5.0])
def test_features_that_hardly_vary_are_not_divided_by_almost_nothing(value: float) -> None:
    features = draw_features(40)
    # In one photograph, one more feature that is tiny; or in all, one whose values differ by rounding alone.
    count = 40 if value > 1 else 1
    noise = np.random.default_rng(0).normal(0, 1e-6, count)
    at, odd = features.offsets[1 : count + 1], 24_000
    features = replace(
        features,
        offsets=features.offsets + np.minimum(np.arange(41), count),
        indices=np.insert(features.indices, at, odd),
        values=np.insert(features.values, at, value * (1 + noise)),
    )
    train_features = select_split(features, PEOPLE, "train")
    scale = fit_preprocessor(train_features, PreprocessingParams(standardize=True), seed=0).scale
    assert scale[odd] == 1
    assert torch.isfinite(scale).all() and (scale[:6000] > 1).sum() > 1000
    params = make_train_params("standardize", learning_rate=0.01, epochs=8, dropout=0.1)
    assert train(features, params)[1][-1].train_loss < 1


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_training_changes_the_head_and_not_the_preprocessor(kind: str) -> None:
    features = draw_features(60, TWO_VIEWS)
    checkpoints = MemoryCheckpoints()
    params = make_train_params(
        *ALL_STEPS, pca_components=12, classifier=kind, learning_rate=0.01, epochs=40, dropout=0.1
    )
    classifier, history = train(features, params, checkpoints)
    expected = fit_preprocessor(select_split(features, PEOPLE, "train"), params.preprocessing, params.seed)
    weights = classifier.preprocessor.state_dict()
    assert {name: tensor.shape for name, tensor in weights.items()} == {
        "scale": (FEATURE_COUNT,),
        "projection.weight": (FEATURE_COUNT, 12),
        "projection.bias": (12,),
    }
    for name, tensor in expected.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert not any("preprocessor" in name for name in checkpoints.last), "checkpoints need not hold it"
    short, _ = train(features, params.model_copy(update={"epochs": 1}))
    for name, parameter in classifier.head.named_parameters():
        assert not torch.equal(parameter, short.head.state_dict()[name]), name
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].val_accuracy > 0.9


def test_a_classifier_with_a_projection_resumes_from_a_checkpoint_and_is_saved_whole(tmp_path: Path) -> None:
    features = draw_features(60, TWO_VIEWS)
    params = make_train_params(*ALL_STEPS, pca_components=12)
    uninterrupted, _ = train(features, params)
    checkpoints = MemoryCheckpoints()
    train(features, params, checkpoints)
    assert len(checkpoints.history) == 2, "all epochs but the last"
    resumed, history = train(features, params, checkpoints)
    assert len(history) == 3
    save_classifier(uninterrupted, tmp_path / "uninterrupted")
    save_classifier(resumed, tmp_path / "resumed")
    assert (tmp_path / "uninterrupted").read_bytes() == (tmp_path / "resumed").read_bytes()
    loaded = load_classifier(tmp_path / "resumed")
    val = select_split(features, PEOPLE, "val")
    ours, theirs = (compute_logits(each, val, 8)[0] for each in (uninterrupted, loaded))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
