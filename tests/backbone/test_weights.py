"""Weights are loaded from each source, checked, saved with their fingerprint, and refused where they do not fit."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from celebflow.backbone.source import load_backbone_source
from celebflow.backbone.vgg19 import Backbone, fingerprint_state
from celebflow.backbone.weights import (
    fetch_imagenet_weights,
    load_backbone,
    make_backbone,
    save_backbone,
)
from celebflow.errors import CelebflowError


def _copy_state(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {f"features.{name}": value.contiguous() for name, value in backbone.features.state_dict().items()}


@pytest.mark.parametrize("kind", ["features.pth", "whole.pth", "features.safetensors"])
def test_state_dicts_are_loaded_from_files(tmp_path: Path, backbone: Backbone, kind: str) -> None:
    state = _copy_state(backbone)
    if kind == "whole.pth":
        state["classifier.0.weight"] = torch.zeros(2, 2)
    if kind.endswith(".pth"):
        torch.save(state, tmp_path / kind)
    else:
        save_file(state, tmp_path / kind)
    loaded = make_backbone(kind, 0, tmp_path)
    assert loaded.source.fingerprint == backbone.source.fingerprint
    assert loaded.source.trained


def test_weights_that_cannot_be_used_are_refused_with_the_file(tmp_path: Path, backbone: Backbone) -> None:
    state = {**_copy_state(backbone), "features.0.bias": torch.full((64,), torch.nan)}
    save_file(state, tmp_path / "nan.safetensors")
    for name, problem in (("nothing.pth", "is not a file"), ("nan.safetensors", "not finite")):
        with pytest.raises(CelebflowError, match=rf"{name}.*{problem}"):
            make_backbone(name, 0, tmp_path)


def test_a_saved_backbone_is_restored_with_its_source(tmp_path: Path, backbone: Backbone) -> None:
    save_backbone(backbone, tmp_path / "a.safetensors")
    save_backbone(backbone, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert load_backbone_source(tmp_path / "a.safetensors") == backbone.source
    loaded = load_backbone(tmp_path / "a.safetensors", "cpu")
    assert fingerprint_state(loaded.features.state_dict()) == backbone.source.fingerprint


def test_a_flipped_bit_is_noticed(tmp_path: Path, backbone: Backbone) -> None:
    save_backbone(backbone, tmp_path / "a.safetensors")
    content = bytearray((tmp_path / "a.safetensors").read_bytes())
    content[-100] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CelebflowError, match=r"a\.safetensors is damaged.*fingerprint.*`dvc repro`"):
        load_backbone(tmp_path / "a.safetensors", "cpu")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"weights": "imagenet"},
        {"celebflow": "not JSON"},
        {"celebflow": '"text"'},
        {"celebflow": '{"weights": "imagenet", "trained": true}'},
    ],
)
def test_a_backbone_of_an_earlier_version_is_refused_with_the_remedy(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    save_file({"features.0.bias": torch.zeros(64)}, tmp_path / "backbone.safetensors", metadata)
    for load in (load_backbone_source, partial(load_backbone, device="cpu")):
        with pytest.raises(CelebflowError, match=r"backbone\.safetensors.*older celebflow.*`dvc repro`"):
            load(tmp_path / "backbone.safetensors")


def test_a_truncated_backbone_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "backbone.safetensors").write_bytes(b"\x80\0\0\0\0\0\0\0 half a file")
    with pytest.raises(CelebflowError, match=r"backbone\.safetensors is damaged.*`dvc repro`"):
        load_backbone_source(tmp_path / "backbone.safetensors")


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder on localhost; yield the address and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()


def test_a_download_is_kept_in_torchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, Path]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    address, folder = server
    torch.save({"features.0.bias": torch.ones(3)}, folder / "weights")
    content = (folder / "weights").read_bytes()
    name = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / "weights").rename(folder / name)
    assert fetch_imagenet_weights(f"{address}/{name}")["features.0.bias"].tolist() == [1, 1, 1]
    (folder / name).unlink()  # the second time, nothing is downloaded
    assert fetch_imagenet_weights(f"{address}/{name}")["features.0.bias"].tolist() == [1, 1, 1]
    cached = tmp_path / "torch" / "hub" / "checkpoints" / name
    cached.write_bytes(content[:-10])
    with pytest.raises(CelebflowError, match=f"{name} is damaged"):
        fetch_imagenet_weights(f"{address}/{name}")


@pytest.mark.parametrize("name", ["missing-00000000.pth", "other-00000000.pth"])
def test_a_failed_download_is_a_clear_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, Path], name: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    address, folder = server
    (folder / "other-00000000.pth").write_bytes(b"another file")
    with pytest.raises(CelebflowError) as caught:
        fetch_imagenet_weights(f"{address}/{name}")
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    for part in (f"{address}/{name}", str(checkpoints / name), "backbone.weights", "untrained"):
        assert part in str(caught.value)
    assert list(checkpoints.iterdir()) == []
