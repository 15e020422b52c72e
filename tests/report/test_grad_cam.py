"""Heat maps are Grad-CAM's, whoever computes it, and leave the classifier as it was."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from celebflow.backbone.vgg19 import FEATURE_COUNT, BackboneSource
from celebflow.classifier.layers import DenseLinear
from celebflow.classifier.model import Classifier, make_classifier
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.transform import Transform
from celebflow.report.grad_cam import Explainer, overlay_heat_map

CLASSES = np.array([0, 2, 1, 2, 0])


def _make_classifier(*hidden_units: int) -> Classifier:
    torch.manual_seed(0)
    source = BackboneSource("untrained", False, "0" * 64)
    return make_classifier(["Ann", "Bo", "Cy"], hidden_units, 0.5, Transform(224), source).eval()


def _draw_features(count: int = len(CLASSES)) -> NDArray[np.float32]:
    random = np.random.default_rng(1)
    features = random.random((count, FEATURE_COUNT), np.float32)
    features[random.random((count, FEATURE_COUNT)) < 0.8] = 0
    return features


def _batch(features: NDArray[np.float32]) -> SparseBatch:
    return SparseBatch.from_rows([SparseRow.from_dense(row) for row in features], FEATURE_COUNT)


def _scale(maps: NDArray[np.floating]) -> NDArray[np.floating]:
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-30)


@pytest.mark.parametrize("hidden_units", [(6,), (16, 8)])
def test_heat_maps_are_those_of_autograd_through_plain_dense_layers(hidden_units: tuple[int, ...]) -> None:
    classifier, features = _make_classifier(*hidden_units), _draw_features()
    layers: list[nn.Module] = []
    weights = [classifier.first.weight.T, *(layer.weight for layer in classifier.rest if hasattr(layer, "weight"))]
    biases = [classifier.first.bias, *(layer.bias for layer in classifier.rest if hasattr(layer, "bias"))]
    for weight, bias in zip(weights, biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        layers += [layer, nn.ReLU()]
    plain = nn.Sequential(*layers[:-1])
    expected = []
    for row, number in zip(torch.from_numpy(features), CLASSES, strict=True):
        inputs = row.clone().reshape(512, 7, 7).requires_grad_()
        plain(inputs.flatten())[number].backward()
        assert inputs.grad is not None
        importance = inputs.grad.mean(dim=(1, 2))
        expected.append(torch.relu((importance[:, None, None] * inputs).sum(0)).detach().numpy())
    maps = Explainer(classifier).compute_heat_maps(_batch(features), CLASSES)
    assert (maps.shape, maps.dtype) == ((5, 7, 7), np.float32)
    assert maps.max(axis=(1, 2)) == pytest.approx(1)
    assert np.allclose(maps, _scale(np.array(expected)), atol=1e-4)


def test_heat_maps_are_those_of_finite_differences() -> None:
    classifier, features = _make_classifier(6), _draw_features(1).astype(np.float64)
    first, last = classifier.first, classifier.rest[-1]
    assert isinstance(last, DenseLinear)
    weight, bias, weight_2, bias_2 = (
        p.detach().numpy().astype(np.float64) for p in (first.weight, first.bias, last.weight, last.bias)
    )

    def score(inputs: NDArray[np.float64]) -> float:
        return float((np.maximum(inputs @ weight + bias, 0) @ weight_2.T + bias_2)[0, 2])

    expected = np.zeros((1, 7, 7))
    for channel in range(512):
        step = np.zeros((1, 512, 49))
        step[:, channel] = 1e-6
        step = step.reshape(1, -1)
        importance = (score(features + step) - score(features - step)) / 2e-6 / 49  # the mean over 49 places
        expected += importance * features.reshape(1, 512, 7, 7)[:, channel]
    maps = Explainer(classifier).compute_heat_maps(_batch(features.astype(np.float32)), np.array([2]))
    assert np.allclose(maps, _scale(np.maximum(expected, 0)), atol=1e-4)


def test_what_does_not_speak_for_the_person_is_cold() -> None:
    classifier, features = _make_classifier(), np.zeros((3, 512, 7, 7), np.float32)
    with torch.no_grad():
        classifier.first.weight.zero_()
        classifier.first.weight[: 1 * 49, 0] = 1  # the first channel speaks for Ann,
        classifier.first.weight[1 * 49 : 2 * 49, 0] = -1  # the second against her, the third says nothing
    features[0, 0, 2, 3], features[0, 0, 5, 5] = 2, 1
    features[0, 1, 4, 4], features[0, 2, 6, 6] = 3, 4
    features[1, 1:] = 1
    features[2] = features[0]
    maps = Explainer(classifier).compute_heat_maps(_batch(features.reshape(3, -1)), np.array([0, 0, 1]))
    expected = np.zeros((3, 7, 7))
    expected[0, 2, 3], expected[0, 5, 5] = 1, 0.5
    assert np.array_equal(maps, expected), "neither against Ann, nor for Bo, of whom nothing speaks"


def test_the_classifier_is_left_as_it_was() -> None:
    classifier, features = _make_classifier(16, 8), _batch(_draw_features())
    expected = Explainer(classifier).compute_heat_maps(features, CLASSES)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    classifier.train()
    assert np.array_equal(Explainer(classifier).compute_heat_maps(features, CLASSES), expected), "Dropout takes no part"
    assert all(module.training for module in classifier.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in classifier.parameters())
    assert classifier.first.gradient_factors is None
    assert all(layer.gradient_factors is None for layer in classifier.rest if isinstance(layer, DenseLinear))
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())


def test_overlay_is_brightest_where_the_map_is_and_smooth_between() -> None:
    image, heat = np.full((140, 210, 3), 100, np.uint8), np.zeros((7, 7), np.float32)
    heat[1, 5] = 1
    overlay = overlay_heat_map(image, heat)
    assert (overlay.shape, overlay.dtype) == (image.shape, np.uint8)
    light = overlay.astype(int).sum(axis=2)
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert (row // 20, column // 30) == (1, 5)
    assert light[30, 165] > light[30, 150] > light[30, 135] > light[130, 15], "it falls off from cell to cell"
    assert overlay[130, 15].max() < 100, "what says nothing is darkened, not hidden"
    assert overlay[130, 15].min() > 20
