"""The frozen convolutions: sources of weights, fingerprint, refusals."""

import hashlib
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import vgg19

from celebflow.backbone.devices import select_device
from celebflow.backbone.vgg19 import Backbone, fingerprint_state
from celebflow.backbone.weights import (
    fetch_imagenet_weights,
    load_backbone,
    load_backbone_source,
    make_backbone,
    save_backbone,
)
from celebflow.errors import CelebflowError
from celebflow.params import LayerName


def _state(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {f"features.{name}": value.contiguous() for name, value in backbone.features.state_dict().items()}


def test_every_parameter_is_frozen_and_stays_in_evaluation_mode(backbone: Backbone) -> None:
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.train().training
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 20_024_384


def test_features_equal_a_direct_torchvision_forward_pass(backbone: Backbone) -> None:
    with torch.device("meta"):
        reference = vgg19(weights=None)
    reference.features.load_state_dict(backbone.features.state_dict(), assign=True)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = torch.flatten(reference.avgpool(reference.features.eval()(images)), 1)[0]
    ours = torch.from_numpy(backbone.extract(images[0].numpy()))
    assert ours.shape == (25088,)
    assert ((ours - expected).norm() / expected.norm()).item() < 1e-5


@pytest.mark.parametrize("size_px", [64, 224])
def test_each_layers_features_equal_torchvisions(backbone: Backbone, size_px: int) -> None:
    with torch.device("meta"):
        reference = vgg19(weights=None).features.eval()
    reference.load_state_dict(backbone.features.state_dict(), assign=True)
    images = torch.randn(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    poolings = [number for number, layer in enumerate(reference) if isinstance(layer, nn.MaxPool2d)]
    places: dict[LayerName, int] = {"pool4": poolings[3], "pool5": poolings[4]}
    expected: dict[LayerName, torch.Tensor] = {}
    with torch.inference_mode():
        for layer, number in places.items():
            values = nn.functional.adaptive_avg_pool2d(reference[: number + 1](images), (7, 7))
            expected[layer] = values.flatten()
    combinations: tuple[tuple[LayerName, ...], ...] = (("pool4",), ("pool5",), ("pool4", "pool5"), ("pool5", "pool4"))
    for layers in combinations:
        ours = torch.from_numpy(backbone.extract(images[0].numpy(), layers))
        wanted = torch.cat([expected[layer] for layer in layers])
        assert ours.shape == wanted.shape == (25088 * len(layers),)
        assert ((ours - wanted).norm() / wanted.norm()).item() < 1e-5
    assert np.array_equal(backbone.extract(images[0].numpy()), backbone.extract(images[0].numpy(), ("pool5",)))


def test_untrained_filters_keep_photographs_apart(backbone: Backbone) -> None:
    images = torch.rand((4, 3, 64, 64), generator=torch.Generator().manual_seed(1)) * 4 - 2
    images = nn.functional.interpolate(images[:, :, ::16, ::16], size=64)
    features = torch.stack([torch.from_numpy(backbone.extract(image.numpy())) for image in images])
    similarity = nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    assert similarity[~torch.eye(4, dtype=torch.bool)].max() < 0.9  # torchvision's initialisation: above 0.999


def test_untrained_follows_from_the_seed_and_says_so(backbone: Backbone) -> None:
    assert make_backbone("untrained", 0, Path()).source == backbone.source
    assert make_backbone("untrained", 1, Path()).source.fingerprint != backbone.source.fingerprint
    assert "UNTRAINED" in backbone.source.warning()


@pytest.mark.parametrize("kind", ["features.pth", "whole.pth", "features.safetensors"])
def test_state_dicts_are_loaded_from_files(tmp_path: Path, backbone: Backbone, kind: str) -> None:
    state = _state(backbone)
    if kind == "whole.pth":
        state["classifier.0.weight"] = torch.zeros(2, 2)
    if kind.endswith(".pth"):
        torch.save(state, tmp_path / kind)
    else:
        save_file(state, tmp_path / kind)
    loaded = make_backbone(kind, 0, tmp_path)
    assert loaded.source.fingerprint == backbone.source.fingerprint
    assert loaded.source.trained


class _Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": _Malicious()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Malicious(), protocol=2))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(CelebflowError, match="cannot be read as a state dict"):
            make_backbone(name, 0, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_files_that_do_not_fit_are_refused_by_name(tmp_path: Path, backbone: Backbone) -> None:
    with pytest.raises(CelebflowError, match=r"nothing\.pth is no file"):
        make_backbone("nothing.pth", 0, tmp_path)
    for name in ("cut.pth", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 half a file")
        with pytest.raises(CelebflowError, match="cannot be read"):
            make_backbone(name, 0, tmp_path)
    state = _state(backbone)
    wrong_shape = {**state, "features.0.weight": torch.zeros(64, 1, 3, 3)}
    not_finite = {**state, "features.0.bias": torch.full((64,), torch.nan)}
    missing = {name: value for name, value in state.items() if name != "features.34.bias"}
    cases = [
        (wrong_shape, r"features\.0\.weight has shape \(64, 1, 3, 3\), not \(64, 3, 3, 3\)"),
        (not_finite, r"features\.0\.bias holds values that are not finite"),
        (missing, r"features\.34\.bias is missing"),
        ({**state, "features.40.weight": torch.zeros(1)}, r"features\.40\.weight is unknown"),
        ({"weight": torch.zeros(1)}, "and 28 more"),
    ]
    for content, message in cases:
        save_file(content, tmp_path / "bad.safetensors")
        with pytest.raises(CelebflowError, match=message):
            make_backbone("bad.safetensors", 0, tmp_path)


def test_saved_backbone_comes_back_with_its_source(tmp_path: Path, backbone: Backbone) -> None:
    save_backbone(backbone, tmp_path / "a.safetensors")
    save_backbone(backbone, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert load_backbone_source(tmp_path / "a.safetensors") == backbone.source
    loaded = load_backbone(tmp_path / "a.safetensors", "cpu")
    assert fingerprint_state(loaded.features.state_dict()) == backbone.source.fingerprint


def test_a_flipped_bit_does_not_pass_the_fingerprint(tmp_path: Path, backbone: Backbone) -> None:
    save_backbone(backbone, tmp_path / "a.safetensors")
    content = bytearray((tmp_path / "a.safetensors").read_bytes())
    content[-100] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CelebflowError, match="is damaged"):
        load_backbone(tmp_path / "a.safetensors", "cpu")


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder over loopback; yield its address and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()


def test_download_is_kept_in_torchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, Path]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    address, folder = server
    torch.save({"features.0.bias": torch.ones(3)}, folder / "weights")
    content = (folder / "weights").read_bytes()
    name = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / "weights").rename(folder / name)
    assert fetch_imagenet_weights(f"{address}/{name}")["features.0.bias"].tolist() == [1, 1, 1]
    (folder / name).unlink()  # the second time nothing is downloaded
    assert fetch_imagenet_weights(f"{address}/{name}")["features.0.bias"].tolist() == [1, 1, 1]
    cached = tmp_path / "torch" / "hub" / "checkpoints" / name
    cached.write_bytes(content[:-10])
    with pytest.raises(CelebflowError, match=f"{name} is damaged"):
        fetch_imagenet_weights(f"{address}/{name}")


@pytest.mark.parametrize("name", ["missing-00000000.pth", "other-00000000.pth"])
def test_failed_download_is_one_clear_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, Path], name: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    address, folder = server
    (folder / "other-00000000.pth").write_bytes(b"not what was asked for")
    with pytest.raises(CelebflowError) as caught:
        fetch_imagenet_weights(f"{address}/{name}")
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    for told in (f"{address}/{name}", str(checkpoints / name), "backbone.weights", "untrained"):
        assert told in str(caught.value)
    assert list(checkpoints.iterdir()) == []


def test_a_device_that_is_not_there_is_refused() -> None:
    assert select_device("cpu") == torch.device("cpu")
    if not torch.backends.mps.is_available():
        with pytest.raises(CelebflowError, match=r"compute\.device is mps"):
            select_device("mps")
