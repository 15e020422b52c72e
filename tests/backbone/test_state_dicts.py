"""Weights that others saved are found wherever it is clear where they are; of what is not, the message says what it is.

Nothing but tensors is ever unpickled.
"""

import gzip
import io
import pickle
import tarfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from celebflow.backbone.state_dicts import keep_convolutions, list_not_finite, load_tensors
from celebflow.backbone.vgg19 import Backbone, fingerprint_state
from celebflow.errors import CelebflowError

TINY = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.ones(2)}


class _Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def _save(content: object, *, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def _zip(**files: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def _tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("vgg19.pth"))
    return content.getvalue()


def _script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and its files are still around
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    return file.getvalue()


def _fails(read: Callable[[], object], *parts: str) -> None:
    with pytest.raises(CelebflowError) as caught:
        read()
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["w.pth", "legacy.pth", "w.safetensors", "safetensors.pth", "pth.safetensors"])
def test_the_content_decides_how_a_file_is_read(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name in ("w.safetensors", "safetensors.pth"):
        save_file(TINY, file)
    else:
        file.write_bytes(_save(TINY, legacy=name.startswith("legacy")))
    loaded = load_tensors(file)
    assert loaded.keys() == TINY.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TINY.items())


def test_tensors_are_found_in_nested_dicts_beside_other_values(tmp_path: Path) -> None:
    parameters = {name: nn.Parameter(tensor) for name, tensor in TINY.items()}
    content = {"epoch": 7, "name": "vgg", "net": {"state_dict": parameters}, "optimizer": {"lr": 0.1, "state": {}}}
    (tmp_path / "w.pth").write_bytes(_save(content))
    loaded = load_tensors(tmp_path / "w.pth")
    assert list(loaded) == ["net.state_dict.0.weight", "net.state_dict.0.bias"]
    assert not any(tensor.requires_grad for tensor in loaded.values())


def _endless() -> dict[str, object]:
    content: dict[str, object] = {"weight": torch.zeros(2)}
    content["itself"] = content
    return content


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", ["Git LFS", "git lfs pull"]),
        (b"outs:\n- md5: 0\n  path: vgg19.pth\n", ["DVC", "dvc pull"]),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", ["web page", "Download"]),
        (b"\xef\xbb\xbf<HTML>", ["web page", "Download"]),
        (b"\x89HDF\r\n\x1a\n", ["HDF5", "Keras", "PyTorch"]),
        (gzip.compress(_save(TINY)), ["compressed archive", "Unpack"]),
        (_tar(), ["archive", "Unpack"]),
        (_zip(notes="some text"), ["ZIP archive", "torch.save", "Unpack"]),
        (_script(), ["TorchScript", "state_dict()"]),
        (b"Not found: vgg19.pth", ["neither", "Not found: vgg19.pth", ".safetensors"]),
        (bytes(range(128, 255)), ["a pickle that torch.save did not write"]),
        (bytes(range(160, 255)), ["neither", "a0 a1 a2"]),
        (_save(TINY)[:-10], ["cut short", "once more"]),
        (_save(TINY, legacy=True)[:-10], ["cut short", "once more"]),
        (_save(TINY, legacy=True)[:200], ["cut short", "once more"]),
        (b"\x40\0\0\0\0\0\0\0{half a file", ["cut short", "once more"]),
        (_save(nn.Linear(2, 2)), ["torch.nn.modules.linear.Linear", "run code", "model.state_dict()"]),
        (_save({"args": Namespace(a=1), "state_dict": TINY}), ["argparse.Namespace", "model.state_dict()"]),
        (_save({"weight": _Malicious()}), ["objects of Python", "run code", "model.state_dict()"]),
        (pickle.dumps(_Malicious(), protocol=2), ["objects of Python", "run code"]),
        (pickle.dumps({"weight": np.zeros(3)}), ["a pickle that torch.save did not write", "model.state_dict()"]),
        (_save([torch.zeros(2)]), ["list", "model.state_dict()"]),
        (_save({}), ["without any tensor", "model.state_dict()"]),
        (_save(_endless()), ["contains itself", "model.state_dict()"]),
    ],
)
def test_a_file_of_another_kind_is_named_with_the_remedy_and_runs_no_code(
    tmp_path: Path, content: bytes, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        _fails(lambda name=name: load_tensors(tmp_path / name), str(tmp_path / name), *parts)  # type: ignore[misc]
    assert not (tmp_path / "executed").exists()


def test_what_is_not_a_readable_file_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.pth").symlink_to("removed.pth")
    remedy = ("backbone.weights", "imagenet", "untrained")
    _fails(lambda: load_tensors(tmp_path / "nothing.pth"), "nothing.pth is not a file", *remedy)
    _fails(lambda: load_tensors(tmp_path / "folder"), "folder is a folder", *remedy)
    _fails(lambda: load_tensors(tmp_path / "link.pth"), "link.pth is a link to removed.pth", *remedy)
    _fails(lambda: load_tensors(tmp_path / ("x" * 300)), "cannot be read", "backbone.weights")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # which root never sees

    (tmp_path / "private.pth").write_bytes(_save(TINY))
    monkeypatch.setattr(Path, "open", refuse)
    _fails(lambda: load_tensors(tmp_path / "private.pth"), "private.pth", "Permission denied", "backbone.weights")


@pytest.fixture
def state(backbone: Backbone) -> dict[str, Tensor]:
    """Return VGG19's convolutions as torchvision names them."""
    return {f"features.{name}": tensor for name, tensor in backbone.features.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "features.", "module.features.", "state_dict.module.features.", "model.vgg."])
def test_convolutions_are_found_under_any_prefix_beside_other_tensors(
    state: dict[str, Tensor], backbone: Backbone, prefix: str
) -> None:
    tensors = {name.replace("features.", prefix): tensor for name, tensor in state.items()}
    others = {"classifier.0.weight": torch.ones(5, 4), "classifier.0.bias": torch.ones(5), "mean": torch.zeros(3)}
    kept = keep_convolutions({**others, **tensors, "optimizer.state.0.exp_avg": torch.zeros(2)}, "w.pth")
    assert fingerprint_state(kept) == backbone.source.fingerprint


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_numbers_of_any_precision_become_float32(state: dict[str, Tensor], kind: torch.dtype) -> None:
    converted = {name: state[name].to(kind) for name in ("features.0.weight", "features.0.bias")}
    kept = keep_convolutions(state | converted, "w.pth")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    for name, tensor in converted.items():
        assert torch.equal(kept[name.removeprefix("features.")], tensor.to(torch.float32))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("vgg11", "VGG11"),
        ("vgg13", "VGG13"),
        ("vgg16", "VGG16"),
        ("vgg16_bn", "VGG16 with batch normalization"),
        ("vgg19_bn", "VGG19 with batch normalization"),
        ("resnet18", "with batch normalization"),
        ("alexnet", "another network"),
        ("vit_b_16", "another network"),
    ],
)
def test_another_network_is_named(model: str, kind: str) -> None:
    with torch.device("meta"):
        tensors = torchvision.models.get_model(model, weights=None).state_dict()
    for prefix in ("", "module."):
        named = {prefix + name: tensor for name, tensor in tensors.items()}
        parts = ("w.pth", kind, "torchvision's vgg19", next(iter(named)))
        _fails(lambda named=named: keep_convolutions(named, "w.pth"), *parts)  # type: ignore[misc]


def test_what_does_not_fit_is_listed_by_name(state: dict[str, Tensor]) -> None:
    def change(**tensors: Tensor) -> Callable[[], object]:
        named = {f"features.{name.replace('_', '.')}": tensor for name, tensor in tensors.items()}
        return lambda: keep_convolutions({**state, **named}, "w.pth")

    weight, bias = state["features.0.weight"], state["features.0.bias"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized and sparse tensors are deprecated or young
        quantized, sparse = torch.quantize_per_tensor(weight, 0.1, 0, torch.quint8), bias.to_sparse()
    shape = "features.0.weight has shape (64, 1, 3, 3), not (64, 3, 3, 3)"
    _fails(change(**{"0_weight": torch.zeros(64, 1, 3, 3)}), "w.pth", "torchvision's VGG19", shape)
    _fails(change(**{"0_bias": bias + torch.nan}), "features.0.bias contains values that are not finite")
    _fails(change(**{"0_bias": bias.double() + 1e300}), "features.0.bias contains values that are not finite")
    for odd in (quantized, weight.to("meta")):
        _fails(change(**{"0_weight": odd}), "features.0.weight is of the type", "floating-point")
    _fails(change(**{"0_bias": sparse}), "features.0.bias is of the type", "sparse")
    _fails(change(**{"0_weight": torch.zeros_like(weight)}), "features.0.weight contains nothing but zeros")
    _fails(change(**{"40_weight": torch.zeros(1)}), "features.40.weight is unknown")
    missing = {name: tensor for name, tensor in state.items() if name != "features.34.bias"}
    _fails(lambda: keep_convolutions(missing, "w.pth"), "features.34.bias is missing")
    few = dict(list(state.items())[:20])
    _fails(lambda: keep_convolutions(few, "w.pth"), "features.23.weight is missing", "and 8 more")
    _fails(lambda: keep_convolutions({"weight": torch.zeros(1)}, "w.pth"), "another network", "weight")
    _fails(lambda: keep_convolutions({}, "w.pth"), "another network")


def test_a_file_with_two_sets_of_convolutions_is_refused(state: dict[str, Tensor]) -> None:
    averaged = {name.replace("features.", "ema."): tensor for name, tensor in state.items()}
    _fails(lambda: keep_convolutions({**state, **averaged}, "w.pth"), "2 times", "features.*", "ema.*")


def test_tensors_with_values_that_are_not_finite_are_listed() -> None:
    tensors = {str(value): torch.full((2, 3), value) for value in (0.0, 1e38, torch.nan, torch.inf, -torch.inf)}
    tensors["one"] = torch.zeros(1000)
    tensors["one"][999] = torch.nan
    assert list_not_finite(tensors) == ["nan", "inf", "-inf", "one"]
