"""What scikit-learn fits to features is what it fits to dense arrays of them, written out plainly."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from celebflow.backbone.vgg19 import FEATURE_COUNT
from celebflow.classifier import fitting
from celebflow.classifier.calibration import softmax
from celebflow.classifier.fitting import fit_feature_transform
from celebflow.classifier.history import EpochResult
from celebflow.classifier.model import Classifier, load_classifier, make_classifier, save_classifier
from celebflow.classifier.preprocessing import FeatureTransform
from celebflow.classifier.training import compute_logits, train_classifier, validate
from celebflow.data.photos import list_people
from celebflow.features.sparse import SparseRow
from celebflow.features.store import Features, select_split
from celebflow.params import ComputeParams, FeatureTransformParams, Params, TrainParams, View
from tests.conftest import draw_features
from tests.teaching import Memory

ALL = ("square_root", "l2_normalize", "standardize")
TWO_VIEWS: tuple[View, ...] = ("original", "mirrored")


def _settings(params: Params, *steps: str, components: int | None = 12, **changes: object) -> TrainParams:
    transform = FeatureTransformParams(
        **{name: name in steps for name in ALL},
        pca_components=components,
    )
    small = {"hidden_units": (16,), "epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.1}
    small["logistic_c"] = 0.01  # a sharp optimum, to which every way leads
    return params.train.model_copy(update={**small, "transform": transform, **changes})


def _teach(
    features: Features, settings: TrainParams, kept: Memory | None = None
) -> tuple[Classifier, list[EpochResult]]:
    return train_classifier(features, settings, ComputeParams(device="cpu"), kept or Memory(), lambda _: None)


def _make_classifier(features: Features, settings: TrainParams) -> Classifier:
    """Make one whose features are not yet transformed as those of train ask for."""
    transform = FeatureTransform.from_params(settings.transform, len(_list_dense(features, "train")[0]))
    return make_classifier(["Ann", "Bo"], (), 0.0, features.origin.transform, features.origin.backbone, transform)


def _list_dense(features: Features, split: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the (N · V, features) views of a split's photographs, all first views before all second, and labels."""
    examples = select_split(features, list_people(features.photos), split)
    positions = np.arange(len(examples))
    views = [examples.gather(positions, view)[0].to_dense() for view in range(features.view_count)]
    return np.concatenate(views).astype(np.float64), np.tile(examples.labels, features.view_count)


def _fit_plainly(features: Features, settings: TrainParams) -> Any:
    """Return scikit-learn's own pipeline, fitted to all views."""
    transform, seed = settings.transform, settings.seed
    steps: list[Any] = []
    if transform.square_root:
        steps.append(FunctionTransformer(np.sqrt))
    if transform.l2_normalize:
        steps.append(Normalizer())
    if transform.standardize:
        steps.append(StandardScaler(with_mean=False))
    if transform.pca_components is not None:
        steps.append(PCA(transform.pca_components, svd_solver="randomized", random_state=seed))
    if settings.classifier == "lda":
        steps.append(LinearDiscriminantAnalysis(solver="lsqr", shrinkage=settings.lda_shrinkage))
    else:
        steps.append(LogisticRegression(C=settings.logistic_c, max_iter=1000))
    return make_pipeline(*steps).fit(*_list_dense(features, "train"))


def _assert_answers_alike(classifier: Classifier, plain: Any, features: Features) -> None:
    dense, labels = _list_dense(features, "val")
    expected = plain.decision_function(dense)
    if expected.ndim == 1:  # of two people, how far the second is ahead
        expected = np.stack([0 * expected, expected], axis=1)
    expected = expected.reshape(features.view_count, -1, expected.shape[1]).mean(0)
    val = select_split(features, classifier.card.class_names, "val")
    logits, found_labels = compute_logits(classifier, val, 8)
    np.testing.assert_array_equal(found_labels, labels[: len(val)])
    centerd, expected_centerd = (each - each.mean(1, keepdims=True) for each in (logits, expected))
    np.testing.assert_allclose(centerd, expected_centerd, rtol=1e-3, atol=1e-3 * np.abs(expected_centerd).max())
    np.testing.assert_allclose(softmax(logits), softmax(expected), atol=2e-3)


@pytest.mark.parametrize("kind", ["lda", "logistic"])
@pytest.mark.parametrize("people", [("Ann", "Bo", "Cy"), ("Ann", "Bo")])
@pytest.mark.parametrize("steps", [(), ("square_root",), ("l2_normalize",), ("standardize",), ALL])
def test_fitted_classifiers_answer_as_scikit_learns_own_pipelines(
    params: Params, kind: str, people: tuple[str, ...], steps: tuple[str, ...]
) -> None:
    features = draw_features(40, people=people)
    settings = _settings(params, *steps, classifier=kind)
    classifier, (result,) = _teach(features, settings)
    _assert_answers_alike(classifier, _fit_plainly(features, settings), features)
    assert result.epoch == 1
    for split, found in (("train", result.train_accuracy), ("val", result.val_accuracy)):
        assert validate(classifier, select_split(features, people, split), 8)[1] == found


@pytest.mark.parametrize("kind", ["lda", "logistic"])
def test_they_are_fitted_to_all_views(params: Params, kind: str) -> None:
    features = draw_features(40, TWO_VIEWS)
    settings = _settings(params, *ALL, classifier=kind)
    classifier, _ = _teach(features, settings)
    _assert_answers_alike(classifier, _fit_plainly(features, settings), features)


@pytest.mark.parametrize("people", [("Ann", "Bo", "Cy"), ("Ann", "Bo")])
def test_logistic_regression_needs_no_projection(params: Params, people: tuple[str, ...]) -> None:
    features = draw_features(40, TWO_VIEWS, people)
    settings = _settings(params, *ALL, components=None, classifier="logistic")
    classifier, _ = _teach(features, settings)
    _assert_answers_alike(classifier, _fit_plainly(features, settings), features)


@pytest.mark.parametrize(("kind", "name", "value"), [("lda", "lda_shrinkage", 0.9), ("logistic", "logistic_c", 0.1)])
def test_their_strength_is_that_of_params(params: Params, kind: str, name: str, value: float) -> None:
    features = draw_features(40)
    settings = _settings(params, "square_root", classifier=kind, **{name: value})
    classifier, _ = _teach(features, settings)
    _assert_answers_alike(classifier, _fit_plainly(features, settings), features)
    other, _ = _teach(features, settings.model_copy(update={name: value / 2}))
    assert not torch.allclose(classifier.first.weight, other.first.weight, rtol=0.01)


@pytest.mark.parametrize(("kind", "components"), [("lda", 12), ("logistic", 12), ("logistic", None)])
def test_a_fitted_classifier_is_one_layer_and_saved_it_answers_alike(
    params: Params, tmp_path: Path, kind: str, components: int | None
) -> None:
    features = draw_features(40, TWO_VIEWS)
    settings = _settings(params, *ALL, components=components, classifier=kind)
    for name in ("a", "b"):
        save_classifier(_teach(features, settings)[0], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", "pt") as file:
        assert {name: file.get_slice(name).get_shape() for name in file.keys()} == {  # noqa: SIM118 - no mapping
            "first.weight": [FEATURE_COUNT, 3],
            "first.bias": [3],
            "scale": [FEATURE_COUNT],
        }
    classifier, _ = _teach(features, settings)
    loaded = load_classifier(tmp_path / "a")
    assert loaded.card == classifier.card
    assert loaded.card.feature_transform == FeatureTransform(True, True, True, None)
    assert loaded.card.transform.views == TWO_VIEWS
    val = select_split(features, classifier.card.class_names, "val")
    ours, theirs = (compute_logits(each, val, 8)[0] for each in (classifier, loaded))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


def test_another_seed_draws_another_randomised_projection(params: Params) -> None:
    features = draw_features(40)
    first, again, other = (_teach(features, _settings(params, classifier="lda", seed=seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first.first.weight, again.first.weight)
    assert not torch.equal(first.first.weight, other.first.weight)


def test_standardized_features_have_variance_one_and_constant_ones_stay(params: Params) -> None:
    features = draw_features(40, TWO_VIEWS)
    constant = 24_000  # beyond all others
    rows = len(features.offsets) - 1
    indices = np.concatenate([np.append(features.indices[at : at + 100], constant) for at in features.offsets[:-1]])
    values = np.concatenate([np.append(features.values[at : at + 100], 0.3) for at in features.offsets[:-1]])
    offsets = np.arange(rows + 1, dtype=np.int64) * 101
    features = replace(features, offsets=offsets, indices=indices.astype(np.uint16), values=values.astype(np.float32))
    classifier = _make_classifier(features, _settings(params, "standardize", components=None))
    fit_feature_transform(classifier, select_split(features, ("Ann", "Bo", "Cy"), "train"), 0)
    dense, _ = _list_dense(features, "train")
    prepared = np.concatenate(
        [classifier.prepare(features.gather(_list_rows(features), view)).to_dense() for view in range(2)]
    )
    variances = dense.var(0)
    varying = variances > 1e-9
    assert varying.sum() > 3000
    np.testing.assert_allclose(prepared.var(0)[varying], 1, rtol=1e-4)
    assert not varying[constant] and not varying[-1]
    np.testing.assert_array_equal(prepared[:, ~varying], dense[:, ~varying].astype(np.float32))
    assert np.isfinite(classifier.scale.numpy()).all()
    # Nothing but the scale is fitted.
    np.testing.assert_allclose(prepared, dense * classifier.scale.numpy(), rtol=1e-5)


def _list_rows(features: Features) -> NDArray[np.int64]:
    return select_split(features, list_people(features.photos), "train").rows


def test_a_projection_is_the_principal_components_of_all_views(params: Params) -> None:
    features = draw_features(40, TWO_VIEWS)
    settings = _settings(params, "square_root", components=600)
    classifier = _make_classifier(features, settings)
    count = len(_list_dense(features, "train")[0]) - 1
    assert classifier.first.weight.shape == (FEATURE_COUNT, count)
    train = select_split(features, ("Ann", "Bo", "Cy"), "train")
    fit_feature_transform(classifier, train, 0)
    plain = PCA(count, svd_solver="full").fit(np.sqrt(_list_dense(features, "train")[0]))
    expected = plain.transform(np.sqrt(_list_dense(features, "val")[0]))
    val = select_split(features, ("Ann", "Bo", "Cy"), "val")
    batches = [val.gather(np.arange(len(val)), view)[0] for view in range(2)]
    with torch.inference_mode():
        found = torch.cat([classifier.first(classifier.prepare(batch)) for batch in batches]).numpy()
    # A component's sign is a convention.
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=2e-3)


def test_components_are_capped_by_the_views_to_learn_from(params: Params) -> None:
    settings = _settings(params, components=600, epochs=1)
    for views, examples in ((("original",), 18), (TWO_VIEWS, 36)):
        classifier, _ = _teach(draw_features(36, views), settings)
        assert classifier.card.feature_transform.components == examples - 1
        assert classifier.first.weight.shape == (FEATURE_COUNT, examples - 1)


def _record_samples(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.float32]]:
    samples: list[NDArray[np.float32]] = []
    fit = PCA.fit

    def record(pca: PCA, sample: NDArray[np.float32]) -> PCA:
        samples.append(sample.copy())  # its memory is the fit's own
        return fit(pca, sample)

    monkeypatch.setattr(PCA, "fit", record)
    return samples


def test_of_very_many_views_a_sample_that_follows_from_the_seed_is_projected(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "_MOST_PCA_VALUES", FEATURE_COUNT * 20 + 7)
    monkeypatch.setattr(fitting, "_BATCH_SIZE", 8)
    samples = _record_samples(monkeypatch)
    features = draw_features(60, TWO_VIEWS)
    settings = _settings(params, "square_root", components=5)
    train = select_split(features, ("Ann", "Bo", "Cy"), "train")
    weights = []
    for seed in (1, 1, 2):
        classifier = _make_classifier(features, settings)
        fit_feature_transform(classifier, train, seed)
        weights.append(classifier.first.weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    np.testing.assert_array_equal(samples[0], samples[1])
    everything = np.sqrt(_list_dense(features, "train")[0]).astype(np.float32)
    for sample in samples:
        assert sample.shape == (20, FEATURE_COUNT)
        places = [np.flatnonzero((everything == row).all(1)).tolist() for row in sample]
        drawn = {place for found in places for place in found}
        assert len(drawn) == 20, "no view twice"
        assert min(drawn) < len(train) <= max(drawn), "of both views"


def test_where_there_is_room_every_view_is_projected(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "_MOST_PCA_VALUES", FEATURE_COUNT * 60)
    monkeypatch.setattr(fitting, "_BATCH_SIZE", 7)
    samples = _record_samples(monkeypatch)
    features = draw_features(60, TWO_VIEWS)
    _teach(features, _settings(params, components=5, classifier="lda"))
    np.testing.assert_array_equal(samples[0], _list_dense(features, "train")[0].astype(np.float32))


@pytest.mark.parametrize("kind", ["network", "linear"])
def test_a_network_keeps_its_projection_while_its_other_layers_learn(params: Params, kind: str) -> None:
    features = draw_features(60, TWO_VIEWS)
    kept = Memory()
    settings = _settings(params, *ALL, classifier=kind, learning_rate=0.01, epochs=8)
    classifier, history = _teach(features, settings, kept)
    untouched = _make_classifier(features, settings)
    fit_feature_transform(untouched, select_split(features, ("Ann", "Bo", "Cy"), "train"), settings.seed)
    for name in ("scale", "first.weight", "first.bias"):
        assert torch.equal(classifier.state_dict()[name], untouched.state_dict()[name]), name
    assert classifier.first.weight.shape == (FEATURE_COUNT, 12)
    assert not any(".first." in name or "scale" in name for name in kept.last[0]), "no checkpoint needs to hold it"
    short, _ = _teach(features, settings.model_copy(update={"epochs": 1}))
    for name, parameter in classifier.rest.named_parameters():
        assert not torch.equal(parameter, short.rest.state_dict()[name]), name
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].val_accuracy > 0.9


def test_a_network_with_a_projection_goes_on_from_a_checkpoint_and_is_saved_whole(
    params: Params, tmp_path: Path
) -> None:
    features = draw_features(60, TWO_VIEWS)
    settings = _settings(params, *ALL)
    undisturbed, _ = _teach(features, settings)
    kept = Memory()
    _teach(features, settings, kept)
    assert len(kept.last[1]) == 2, "all epochs but the last"
    resumed, history = _teach(features, settings, kept)
    assert len(history) == 3
    for name, classifier in (("undisturbed", undisturbed), ("resumed", resumed)):
        save_classifier(classifier, tmp_path / name)
    assert (tmp_path / "undisturbed").read_bytes() == (tmp_path / "resumed").read_bytes()
    loaded = load_classifier(tmp_path / "resumed")
    val = select_split(features, ("Ann", "Bo", "Cy"), "val")
    ours, theirs = (compute_logits(each, val, 8)[0] for each in (undisturbed, loaded))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("components", "layers"), [(None, []), (12, [(3, 12)])])
def test_linear_has_no_hidden_layer(params: Params, components: int | None, layers: Sequence[tuple[int, int]]) -> None:
    settings = _settings(params, components=components, classifier="linear", hidden_units=(64, 32))
    classifier, _ = _teach(draw_features(), settings)
    assert classifier.card.hidden_units == ()
    assert classifier.first.weight.shape == (FEATURE_COUNT, 3 if components is None else components)
    assert [layer.weight.shape for layer in classifier.rest] == layers
    network, _ = _teach(draw_features(), settings.model_copy(update={"classifier": "network"}))
    assert network.card.hidden_units == (64, 32)


def test_a_classifier_of_two_layers_features_takes_both(params: Params) -> None:
    features = draw_features(40)
    layers = replace(features.origin.transform, layers=("pool4", "pool5"))
    features = replace(features, origin=replace(features.origin, transform=layers))
    # The second layer's features begin where the first one's end.
    indices = features.indices.astype(np.int64)
    indices[::2] += FEATURE_COUNT
    order = np.lexsort((indices, np.repeat(np.arange(40), 100)))
    features = replace(features, indices=indices[order].astype(np.uint16), values=features.values[order])
    assert SparseRow(features.indices[:100], features.values[:100]).indices.max() > FEATURE_COUNT
    for kind in ("lda", "network"):
        settings = _settings(params, *ALL, classifier=kind)
        classifier, _ = _teach(features, settings)
        assert classifier.first.weight.shape[0] == 2 * FEATURE_COUNT
        if kind == "lda":
            _assert_answers_alike(classifier, _fit_plainly(features, settings), features)
