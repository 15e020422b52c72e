"""Heat maps are those of Grad-CAM, however the classifier is built, and leave the classifier unchanged."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from celebflow.backbone.source import FEATURE_COUNT, BackboneSource
from celebflow.classifier.cards import UNCHANGED
from celebflow.classifier.layers import DenseLinear
from celebflow.classifier.model import Classifier
from celebflow.evaluation.grad_cam import Explainer
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.transform import Transform
from celebflow.params import FaceParams, PreprocessingParams
from celebflow.report.thumbnails import overlay_heat_map
from tests.models import make_classifier

CLASSES = np.array([0, 2, 1, 2, 0])
# LDA on principal components is saved as one linear map, so its classifier has neither projection nor hidden layers.
LDA = PreprocessingParams(square_root=True, l2_normalize=True, standardize=True)
PROJECTED = PreprocessingParams(square_root=True, l2_normalize=True, standardize=True, pca_components=10)


def _make_classifier(hidden_units: tuple[int, ...], preprocessing: PreprocessingParams = UNCHANGED) -> Classifier:
    torch.manual_seed(0)
    source = BackboneSource("untrained", False, "0" * 64)
    classifier = make_classifier(["Ann", "Bo", "Cy"], hidden_units, 0.5, Transform(224), source, preprocessing)
    if preprocessing.standardize:
        classifier.preprocessor.scale.uniform_(0.5, 2)
    return classifier.eval()


def _draw_features(count: int = len(CLASSES)) -> NDArray[np.float32]:
    random = np.random.default_rng(1)
    features = random.random((count, FEATURE_COUNT), np.float32)
    features[random.random((count, FEATURE_COUNT)) < 0.8] = 0
    return features


def _batch(features: NDArray[np.float32]) -> SparseBatch:
    return SparseBatch.from_rows([SparseRow.from_dense(row) for row in features], FEATURE_COUNT)


def _scale(maps: NDArray[np.floating]) -> NDArray[np.floating]:
    scaled: NDArray[np.floating] = maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-30)
    return scaled


def _copy_to_plain_layers(classifier: Classifier) -> nn.Sequential:
    """Return what comes after normalization as layers of PyTorch's own."""
    first, rest = classifier.split_at_first_product()
    layers: list[nn.Module] = []
    for layer in (first, *rest):
        if hasattr(layer, "weight"):
            weight = layer.weight if isinstance(layer, DenseLinear) else layer.weight.T
            plain = nn.Linear(weight.shape[1], weight.shape[0])
            plain.load_state_dict({"weight": weight.detach(), "bias": layer.bias.detach()})
            layers.append(plain)
        elif isinstance(layer, nn.ReLU):
            layers.append(layer)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("hidden_units", "preprocessing"),
    [((16, 8), UNCHANGED), ((), UNCHANGED), ((), LDA), ((), PROJECTED), ((64,), PROJECTED)],
    ids=["mlp", "linear", "lda", "projected_linear", "projected_mlp"],
)
def test_heat_maps_are_those_of_autograd_through_plain_layers(
    hidden_units: tuple[int, ...], preprocessing: PreprocessingParams
) -> None:
    classifier, batch = _make_classifier(hidden_units, preprocessing), _batch(_draw_features())
    plain = _copy_to_plain_layers(classifier)
    normalized = torch.from_numpy(classifier.preprocessor.normalize(batch).to_dense())
    expected = []
    for row, number in zip(normalized, CLASSES, strict=True):
        inputs = row.clone().reshape(512, 7, 7).requires_grad_()
        plain(inputs.flatten())[number].backward()
        assert inputs.grad is not None
        importance = inputs.grad.mean(dim=(1, 2))
        expected.append(torch.relu((importance[:, None, None] * inputs).sum(0)).detach().numpy())
    maps = Explainer(classifier).compute_heat_maps(batch, CLASSES)
    assert maps.shape == (5, 7, 7)
    assert maps.dtype == np.float32
    assert maps.max(axis=(1, 2)) == pytest.approx(1)
    assert np.allclose(maps, _scale(np.array(expected)), atol=1e-4)


def test_heat_maps_are_those_of_finite_differences() -> None:
    classifier, features = _make_classifier((6,)), _draw_features(1).astype(np.float64)
    first, rest = classifier.split_at_first_product()
    last = rest[-1]
    assert isinstance(last, DenseLinear)
    weight, bias, weight_2, bias_2 = (
        p.detach().numpy().astype(np.float64) for p in (first.weight, first.bias, last.weight, last.bias)
    )

    def score(inputs: NDArray[np.float64]) -> float:
        return float((np.maximum(inputs @ weight + bias, 0) @ weight_2.T + bias_2)[0, 2])

    expected = np.zeros((1, 7, 7))
    for channel in range(512):
        step = np.zeros((512, 49))
        step[channel] = 1e-6
        shift = step.reshape(1, -1)
        importance = (score(features + shift) - score(features - shift)) / 2e-6 / 49  # the mean over 49 positions
        expected += importance * features.reshape(1, 512, 7, 7)[:, channel]
    maps = Explainer(classifier).compute_heat_maps(_batch(features.astype(np.float32)), np.array([2]))
    assert np.allclose(maps, _scale(np.maximum(expected, 0)), atol=1e-4)


def test_heat_maps_are_of_the_last_layer_of_the_context() -> None:
    face = FaceParams(crop="detect", context="photograph")
    transform = Transform(224, face, layers=("pool4", "pool5"))
    source = BackboneSource("untrained", False, "0" * 64)
    classifier = make_classifier(["Ann", "Bo", "Cy"], (), 0.5, transform, source)
    one_layer, features = _make_classifier(()), _draw_features()
    parts = [np.roll(features, number, axis=1) for number in (1, 2, 3, 0)]
    with torch.no_grad():
        classifier.split_at_first_product()[0].weight[-FEATURE_COUNT:] = one_layer.split_at_first_product()[0].weight
    rows = [SparseRow.from_dense(row) for row in np.concatenate(parts, axis=1)]
    batch = SparseBatch.from_rows(rows, transform.feature_count)
    expected = Explainer(one_layer).compute_heat_maps(_batch(features), CLASSES)
    np.testing.assert_allclose(Explainer(classifier).compute_heat_maps(batch, CLASSES), expected, atol=1e-5)


def test_parts_that_do_not_support_the_person_are_zero() -> None:
    classifier, features = _make_classifier(()), np.zeros((3, 512, 7, 7), np.float32)
    first, _ = classifier.split_at_first_product()
    with torch.no_grad():
        first.weight.zero_()
        first.weight[: 1 * 49, 0] = 1  # the first channel supports Ann,
        first.weight[1 * 49 : 2 * 49, 0] = -1  # the second opposes her, and the third does neither
    features[0, 0, 2, 3], features[0, 0, 5, 5] = 2, 1
    features[0, 1, 4, 4], features[0, 2, 6, 6] = 3, 4
    features[1, 1:] = 1
    features[2] = features[0]
    maps = Explainer(classifier).compute_heat_maps(_batch(features.reshape(3, -1)), np.array([0, 0, 1]))
    expected = np.zeros((3, 7, 7))
    expected[0, 2, 3], expected[0, 5, 5] = 1, 0.5
    assert np.array_equal(maps, expected), "nothing supports Ann in the second photograph, or Bo in the third"


@pytest.mark.parametrize("preprocessing", [UNCHANGED, PROJECTED], ids=["unchanged", "projected"])
def test_classifier_is_left_unchanged(preprocessing: PreprocessingParams) -> None:
    classifier, features = _make_classifier((16, 8), preprocessing), _batch(_draw_features())
    expected = Explainer(classifier).compute_heat_maps(features, CLASSES)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    trainable = {name: parameter.requires_grad for name, parameter in classifier.named_parameters()}
    classifier.train()
    assert np.array_equal(Explainer(classifier).compute_heat_maps(features, CLASSES), expected), "without Dropout"
    assert all(module.training for module in classifier.modules())
    first, rest = classifier.split_at_first_product()
    assert first.pending_gradient is None
    assert all(layer.pending_gradient is None for layer in rest if isinstance(layer, DenseLinear))
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert {name: parameter.requires_grad for name, parameter in classifier.named_parameters()} == trainable
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


def test_overlay_is_brightest_where_the_map_is_and_smooth_between() -> None:
    image, heat = np.full((140, 210, 3), 100, np.uint8), np.zeros((7, 7), np.float32)
    heat[1, 5] = 1
    overlay = overlay_heat_map(image, heat)
    assert overlay.shape == image.shape
    assert overlay.dtype == np.uint8
    light = overlay.astype(int).sum(axis=2)
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert (row // 20, column // 30) == (1, 5)
    assert light[30, 165] > light[30, 150] > light[30, 135] > light[130, 15], "it falls off from cell to cell"
    assert overlay[130, 15].max() < 100, "where the map is zero, the image is darker but not hidden"
    assert overlay[130, 15].min() > 20
