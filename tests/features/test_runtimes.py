"""ncnn and PyTorch compute the same features, and a runtime that cannot be used is a clear error."""

import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from celebflow.backbone.source import BASE_LAYERS
from celebflow.backbone.vgg19 import Backbone
from celebflow.errors import CelebflowError
from celebflow.features.origin import RuntimeName, choose_runtime
from celebflow.features.runtimes import BFloat16Runtime, NcnnRuntime, TorchRuntime, build_runtime
from celebflow.params import LayerName

Layers = tuple[LayerName, ...]
COMBINATIONS: tuple[Layers, ...] = (("pool5",), ("pool4",), ("pool4", "pool5"), ("pool5", "pool4"))


@pytest.fixture
def without_ncnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the import of ncnn fail."""
    monkeypatch.setitem(sys.modules, "ncnn", None)


def _draw_image(size_px: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((3, size_px, size_px), np.float32)


@pytest.fixture(scope="module")
def ncnn_runtimes(backbone: Backbone) -> dict[Layers, NcnnRuntime]:
    """Build ncnn's runtime for each combination of layers, and check it with a small image."""
    runtimes = {layers: NcnnRuntime(backbone, layers) for layers in COMBINATIONS}
    for runtime in runtimes.values():
        runtime.extract(_draw_image(32))
    return runtimes


@pytest.mark.slow
# Before the average to 7×7, pool5 is 1×1, 2×2, 7×7 and 8×8.
@pytest.mark.parametrize(
    ("size_px", "combinations"),
    [(32, COMBINATIONS), (75, COMBINATIONS), (224, COMBINATIONS[::2]), (256, COMBINATIONS[::2])],
)
def test_ncnn_and_pytorch_compute_the_same_features(
    backbone: Backbone, ncnn_runtimes: dict[Layers, NcnnRuntime], size_px: int, combinations: tuple[Layers, ...]
) -> None:
    image = _draw_image(size_px)
    both = backbone.extract(image, ("pool4", "pool5"))
    expected = {"pool4": both[:25088], "pool5": both[25088:]}
    for layers in combinations:
        features = ncnn_runtimes[layers].extract(image)
        assert features.shape == (25088 * len(layers),)
        for layer, part in zip(layers, np.split(features, len(layers)), strict=True):
            assert np.count_nonzero(expected[layer]) > 1000
            assert np.linalg.norm(part - expected[layer]) <= 1e-5 * np.linalg.norm(expected[layer])


@pytest.mark.parametrize("layers", COMBINATIONS)
def test_pytorchs_runtime_computes_exactly_the_backbones_features(backbone: Backbone, layers: Layers) -> None:
    image = _draw_image(75)
    np.testing.assert_array_equal(TorchRuntime(backbone, layers).extract(image), backbone.extract(image, layers))


@pytest.mark.parametrize("layers", [("pool5",), ("pool4", "pool5")])
def test_bfloat16_rounds_features_and_leaves_the_backbone_alone(backbone: Backbone, layers: Layers) -> None:
    image = _draw_image(75)
    expected = backbone.extract(image, layers)
    runtime = BFloat16Runtime(backbone, layers)
    features = runtime.extract(image)
    assert features.dtype == np.float32
    assert 1e-4 < np.linalg.norm(features - expected) / np.linalg.norm(expected) < 0.02
    np.testing.assert_array_equal(runtime.extract(image), features)
    np.testing.assert_array_equal(backbone.extract(image, layers), expected)


def test_bfloat16_features_that_differ_too_much_are_an_error(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = BFloat16Runtime(backbone, BASE_LAYERS)
    exact = backbone.extract
    monkeypatch.setattr(backbone, "extract", lambda image, layers: exact(image, layers) * np.float32(1.05))
    with pytest.raises(CelebflowError, match=r"bfloat16 differ from PyTorch's in float32 by 4\..*Set extract\.runtime"):
        runtime.extract(_draw_image(32))


@pytest.mark.parametrize("instructions", ["amx_bf16", "avx512_bf16", "sve_bf16"])
def test_bfloat16_is_refused_where_a_processor_has_no_instructions_for_it(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, instructions: True})
    assert choose_runtime("torch-bfloat16", "cpu") == "torch-bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, instructions: False})
    with pytest.raises(CelebflowError, match=r"torch-bfloat16, but this processor.*amx_bf16.*Set it to auto"):
        choose_runtime("torch-bfloat16", "cpu")
    assert choose_runtime("torch-bfloat16", "cuda") == "torch-bfloat16"
    assert choose_runtime("auto", "cpu") == "ncnn"


@pytest.mark.slow
def test_features_that_differ_from_pytorchs_are_an_error(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = backbone.extract
    monkeypatch.setattr(backbone, "extract", lambda image, layers: exact(image, layers) * np.float32(1.0001))
    runtime = NcnnRuntime(backbone, BASE_LAYERS)
    for seed in range(2):
        with pytest.raises(
            CelebflowError, match=r"ncnn differ from PyTorch's in float32 by .*Set extract\.runtime to torch"
        ):
            runtime.extract(_draw_image(32, seed))


def test_auto_is_ncnn_on_a_cpu() -> None:
    assert choose_runtime("auto", "cpu") == choose_runtime("ncnn", "cpu") == "ncnn"
    assert choose_runtime("torch", "cpu") == choose_runtime("torch", "cuda") == "torch"
    assert choose_runtime("auto", "cuda:1") == choose_runtime("auto", "mps") == "torch"
    with pytest.raises(CelebflowError, match=r"runs on the CPU only: compute\.device is cuda"):
        choose_runtime("ncnn", "cuda")


def test_auto_is_pytorch_where_ncnn_is_not_installed(without_ncnn: None) -> None:
    assert choose_runtime("auto", "cpu") == "torch"
    with pytest.raises(CelebflowError, match="cannot be imported"):
        choose_runtime("ncnn", "cpu")


@pytest.mark.parametrize(
    ("name", "kind"), [("ncnn", NcnnRuntime), ("torch", TorchRuntime), ("torch-bfloat16", BFloat16Runtime)]
)
def test_runtimes_are_built_by_name(backbone: Backbone, name: RuntimeName, kind: type) -> None:
    assert isinstance(build_runtime(name, backbone, BASE_LAYERS), kind)


@pytest.mark.parametrize("name", ["ncnn", "torch", "torch-bfloat16"])
def test_features_that_are_not_finite_are_an_error_about_the_weights(backbone: Backbone, name: RuntimeName) -> None:
    state = {key: tensor * 1e6 for key, tensor in backbone.features.state_dict().items()}
    runtime = build_runtime(name, Backbone(state, backbone.source), BASE_LAYERS)
    with pytest.raises(CelebflowError, match=r"not finite.*backbone\.weights.*dvc repro"):
        runtime.extract(_draw_image(32))
