"""Classifiers that scikit-learn fits to sparse features equal its own pipelines, fitted to dense arrays."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier import classifier_training, discriminants
from celebflow.classifier.calibration import softmax
from celebflow.classifier.checkpoints import DivergedError
from celebflow.classifier.classifier_training import CrossEntropy
from celebflow.classifier.model import Classifier, load_classifier, save_classifier
from celebflow.classifier.training import compute_logits, validate
from celebflow.errors import CelebflowError
from celebflow.features import sparse
from celebflow.features.store import Features, select_split
from celebflow.params import FaceParams, PreprocessingParams, TrainParams, View
from tests.conftest import draw_features
from tests.training import PEOPLE, gather_dense, make_train_params, train

ALL_STEPS = ("square_root", "l2_normalize", "standardize")
TWO_VIEWS: tuple[View, ...] = ("original", "mirrored")


def _make_params(classifier: str, *steps: str, pca_components: int | None = 12, **changes: object) -> TrainParams:
    sharp = {"logistic_c": 0.01}  # a clear optimum, which every solver finds
    return make_train_params(*steps, pca_components=pca_components, classifier=classifier, **{**sharp, **changes})


def _fit_pipeline(features: Features, params: TrainParams) -> Any:
    """Return scikit-learn's own pipeline, fitted to all views."""
    preprocessing = params.preprocessing
    steps: list[Any] = []
    if preprocessing.square_root:
        steps.append(FunctionTransformer(np.sqrt))
    if preprocessing.l2_normalize:
        steps.append(Normalizer())
    if preprocessing.standardize:
        steps.append(StandardScaler(with_mean=False))
    if preprocessing.pca_components is not None:
        steps.append(PCA(preprocessing.pca_components, svd_solver="full"))
    if params.classifier == "lda":
        steps.append(LinearDiscriminantAnalysis(solver="lsqr", shrinkage=params.lda_shrinkage))
    else:
        steps.append(LogisticRegression(C=params.logistic_c, max_iter=1000))
    return make_pipeline(*steps).fit(*gather_dense(features, "train"))


def _assert_equals_pipeline(classifier: Classifier, features: Features, params: TrainParams) -> None:
    dense, dense_labels = gather_dense(features, "val")
    expected = _fit_pipeline(features, params).decision_function(dense)
    if expected.ndim == 1:  # for two people, by how much the second one leads
        expected = np.stack([0 * expected, expected], axis=1)
    expected = expected.reshape(features.view_count, -1, expected.shape[1]).mean(axis=0)
    val = select_split(features, classifier.card.class_names, "val")
    logits, labels = compute_logits(classifier, val, 8)
    np.testing.assert_array_equal(labels, dense_labels[: len(val)])
    centered = logits - logits.mean(axis=1, keepdims=True)
    expected_centered = expected - expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(centered, expected_centered, rtol=1e-3, atol=1e-3 * np.abs(expected_centered).max())
    np.testing.assert_allclose(softmax(logits), softmax(expected), atol=2e-3)


@pytest.mark.parametrize(
    ("kind", "people", "steps"),
    [
        ("lda", PEOPLE, ()),
        ("lda", PEOPLE, ("square_root",)),
        ("lda", PEOPLE, ("l2_normalize",)),
        ("lda", PEOPLE, ("standardize",)),
        *product(("lda", "logistic"), (PEOPLE, PEOPLE[:2]), [ALL_STEPS]),
    ],
)
def test_predictions_equal_those_of_scikit_learns_pipeline(
    kind: str, people: tuple[str, ...], steps: tuple[str, ...]
) -> None:
    features = draw_features(40, people=people)
    params = _make_params(kind, *steps)
    classifier, (result,) = train(features, params)
    _assert_equals_pipeline(classifier, features, params)
    assert result.epoch == 1
    for split, accuracy in (("train", result.train_accuracy), ("val", result.val_accuracy)):
        assert validate(classifier, select_split(features, people, split), CrossEntropy(), 8)[1] == accuracy


@pytest.mark.parametrize("kind", ["lda", "logistic"])
def test_all_views_are_fitted(kind: str) -> None:
    features = draw_features(40, TWO_VIEWS)
    params = _make_params(kind, *ALL_STEPS)
    _assert_equals_pipeline(train(features, params)[0], features, params)


def test_more_people_than_components_keep_the_projection_and_the_same_predictions(tmp_path: Path) -> None:
    people = tuple("ABCDEFGH")
    features = draw_features(16 * len(people), TWO_VIEWS, people)
    params = _make_params("lda", *ALL_STEPS, pca_components=6)
    classifier, (result,) = train(features, params)
    _assert_equals_pipeline(classifier, features, params)
    save_classifier(classifier, tmp_path / "a")
    shapes = {name: [*tensor.shape] for name, tensor in load_file(tmp_path / "a").items() if "gallery" not in name}
    assert shapes["preprocessor.projection.weight"] == [FEATURE_COUNT, 6] and shapes["head.0.weight"] == [8, 6]
    loaded = load_classifier(tmp_path / "a")
    assert validate(loaded, select_split(features, people, "val"), CrossEntropy(), 8)[1] == result.val_accuracy


def test_logits_of_train_are_measured_in_blocks_of_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    features = draw_features(40, TWO_VIEWS)
    params = _make_params("lda", *ALL_STEPS)
    _, (whole,) = train(features, params)
    monkeypatch.setattr(sparse, "_BLOCK_VALUES", 4 * len(PEOPLE))
    _, (in_blocks,) = train(features, params)
    assert in_blocks.train_accuracy == pytest.approx(whole.train_accuracy)
    assert in_blocks.train_loss == pytest.approx(whole.train_loss, rel=1e-5)
    assert in_blocks.val_loss == whole.val_loss


@pytest.mark.parametrize("people", [PEOPLE, PEOPLE[:2]])
def test_logistic_regression_needs_no_projection(people: tuple[str, ...]) -> None:
    features = draw_features(40, TWO_VIEWS, people)
    params = _make_params("logistic", *ALL_STEPS, pca_components=None)
    _assert_equals_pipeline(train(features, params)[0], features, params)


@pytest.mark.parametrize(("kind", "name", "value"), [("lda", "lda_shrinkage", 0.9), ("logistic", "logistic_c", 0.1)])
def test_regularization_follows_the_params(kind: str, name: str, value: float) -> None:
    features = draw_features(40)
    params = _make_params(kind, "square_root", pca_components=12, **{name: value})
    classifier, _ = train(features, params)
    _assert_equals_pipeline(classifier, features, params)
    other, _ = train(features, params.model_copy(update={name: value / 2}))
    weights = [each.state_dict()["head.0.weight"] for each in (classifier, other)]
    assert not torch.allclose(weights[0], weights[1], rtol=0.01)


@pytest.mark.parametrize(
    ("kind", "pca_components", "steps"),
    [("lda", 12, ALL_STEPS), ("logistic", 12, ALL_STEPS), ("logistic", None, ALL_STEPS), ("lda", 12, ())],
)
def test_a_fitted_classifier_is_one_layer_and_predicts_alike_once_saved(
    tmp_path: Path, kind: str, pca_components: int | None, steps: tuple[str, ...]
) -> None:
    features = draw_features(40, TWO_VIEWS)
    params = _make_params(kind, *steps, pca_components=pca_components)
    classifier, _ = train(features, params)
    save_classifier(classifier, tmp_path / "a")
    save_classifier(train(features, params)[0], tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    expected = {"head.0.weight": [FEATURE_COUNT, 3], "head.0.bias": [3]}
    if steps:
        expected["preprocessor.scale"] = [FEATURE_COUNT]
    saved = load_file(tmp_path / "a")
    assert {name: [*tensor.shape] for name, tensor in saved.items() if "gallery" not in name} == expected
    loaded = load_classifier(tmp_path / "a")
    assert loaded.card == classifier.card
    assert loaded.card.preprocessing == PreprocessingParams(**dict.fromkeys(steps, True))
    assert loaded.card.transform.views == TWO_VIEWS
    val = select_split(features, classifier.card.class_names, "val")
    ours, theirs = (compute_logits(each, val, 8)[0] for each in (classifier, loaded))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("context", ["none", "photograph"])
def test_a_classifier_takes_the_features_of_two_layers_and_of_a_context(context: str) -> None:
    features = draw_features(40)
    face = FaceParams.model_validate({"crop": "detect", "context": context})
    transform = replace(features.origin.transform, layers=("pool4", "pool5"), face=face)
    blocks = 2 if context == "none" else 4  # the features of one layer follow those of another
    indices = features.indices.astype(np.int64)
    indices += np.arange(len(indices)) % blocks * FEATURE_COUNT
    order = np.lexsort((indices, np.repeat(np.arange(40), 100)))
    features = replace(
        features,
        origin=replace(features.origin, transform=transform),
        indices=indices[order].astype(np.uint16 if blocks == 2 else np.uint32),
        values=features.values[order],
    )
    assert features.indices[:100].max() > (blocks - 1) * FEATURE_COUNT
    params = _make_params("lda", *ALL_STEPS)
    fitted, _ = train(features, params)
    _assert_equals_pipeline(fitted, features, params)
    trained, _ = train(features, params.model_copy(update={"classifier": "mlp"}))
    for classifier in (fitted, trained):
        first, _ = classifier.split_at_first_product()
        assert first.weight.shape[0] == blocks * FEATURE_COUNT


def test_logistic_regression_that_does_not_converge_is_reported_and_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(discriminants, "_MAX_ITERATIONS", 2)
    _, (result,) = train(draw_features(40), _make_params("logistic", "square_root"))
    assert math.isfinite(result.val_loss)
    output = capsys.readouterr().err
    for part in ("not converged after 2 iterations", "train.logistic_c (0.01)", "l2_normalize"):
        assert part in output
    assert "lbfgs" not in output, "scikit-learn's own warning"


def test_too_few_photographs_for_a_discriminant_are_told_with_the_remedy() -> None:
    inputs, params = np.eye(3), _make_params("lda")
    with pytest.raises(CelebflowError, match="train has 3 views of 3 people.*train.classifier to logistic"):
        discriminants.fit_people(inputs, np.arange(3), params)
    weight, _ = discriminants.fit_people(np.eye(4), np.array([0, 0, 1, 1]), params)
    assert weight.shape == (4, 2)


@pytest.mark.parametrize(
    ("kind", "cause"), [("lda", "train.lda_shrinkage (0.05) is too low"), ("logistic", "train.logistic_c (0.01)")]
)
def test_a_discriminant_that_is_not_finite_is_an_error_with_the_likely_params(
    kind: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = discriminants.fit_discriminant

    def overflow(*arguments: Any) -> Any:
        fitted = fit(*arguments)
        return replace(fitted, weight=fitted.weight * 1e300)

    monkeypatch.setattr(classifier_training, "fit_discriminant", overflow)
    with pytest.raises(DivergedError, match="loss is nan") as caught:
        train(draw_features(40), _make_params(kind))
    for part in (cause, "l2_normalize", "dvc repro"):
        assert part in str(caught.value)
