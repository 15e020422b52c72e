"""ncnn and PyTorch give the same features, and what cannot run says so."""

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from celebflow.backbone.vgg19 import BASE_LAYERS, Backbone
from celebflow.backbone.weights import make_backbone
from celebflow.errors import CelebflowError
from celebflow.features.runtimes import NcnnRuntime, TorchRuntime, build_runtime, choose_runtime
from celebflow.params import LayerName


@pytest.fixture
def without_ncnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the import of ncnn fail."""
    monkeypatch.setitem(sys.modules, "ncnn", None)


def _draw_image(size_px: int, seed: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((3, size_px, size_px), np.float32)


@pytest.mark.parametrize("size_px", [32, 75, 224, 256])  # smaller and larger pool5 than the 7×7 that remain
def test_ncnn_computes_the_features_of_pytorch(backbone: Backbone, size_px: int) -> None:
    image = _draw_image(size_px)
    expected = TorchRuntime(backbone, BASE_LAYERS).extract(image)
    found = NcnnRuntime(backbone, BASE_LAYERS).extract(image)
    assert np.count_nonzero(expected) > 1000
    assert found.shape == expected.shape == (25088,)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    np.testing.assert_array_equal(expected, backbone.extract(image))


@pytest.mark.parametrize("layers", [("pool4",), ("pool4", "pool5"), ("pool5", "pool4")])
@pytest.mark.parametrize("size_px", [32, 75, 224])
def test_both_compute_the_layers_that_are_asked_for_in_that_order(
    backbone: Backbone, size_px: int, layers: tuple[LayerName, ...]
) -> None:
    image = _draw_image(size_px)
    torch_features, ncnn_features = (kind(backbone, layers).extract(image) for kind in (TorchRuntime, NcnnRuntime))
    assert torch_features.shape == ncnn_features.shape == (25088 * len(layers),)
    for number, layer in enumerate(layers):
        part = slice(number * 25088, (number + 1) * 25088)
        expected = backbone.extract(image, (layer,))
        assert np.count_nonzero(expected) > 1000
        np.testing.assert_array_equal(torch_features[part], expected)
        assert np.linalg.norm(ncnn_features[part] - expected) <= 1e-5 * np.linalg.norm(expected)


def test_features_that_differ_from_pytorch_never_leave(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    shifted = make_backbone("untrained", 1, Path())
    monkeypatch.setattr(backbone, "extract", shifted.extract)
    runtime = NcnnRuntime(backbone, BASE_LAYERS)
    for seed in range(2):
        with pytest.raises(CelebflowError, match=r"differ from PyTorch's by .*Set extract\.runtime to torch"):
            runtime.extract(_draw_image(32, seed))


def test_auto_is_ncnn_on_a_cpu() -> None:
    assert choose_runtime("auto", "cpu") == choose_runtime("ncnn", "cpu") == "ncnn"
    assert choose_runtime("torch", "cpu") == choose_runtime("torch", "cuda") == "torch"
    assert choose_runtime("auto", "cuda:1") == choose_runtime("auto", "mps") == "torch"
    with pytest.raises(CelebflowError, match=r"runs on the CPU only: compute\.device is cuda"):
        choose_runtime("ncnn", "cuda")


def test_auto_does_without_ncnn_where_it_is_not_installed(without_ncnn: None) -> None:
    assert choose_runtime("auto", "cpu") == "torch"
    with pytest.raises(CelebflowError, match="cannot be imported"):
        choose_runtime("ncnn", "cpu")


@pytest.mark.parametrize(("name", "kind"), [("ncnn", NcnnRuntime), ("torch", TorchRuntime)])
def test_runtimes_are_built_by_name(backbone: Backbone, name: Literal["ncnn", "torch"], kind: type) -> None:
    assert isinstance(build_runtime(name, backbone, BASE_LAYERS), kind)
