"""A file of weights that another program saved → the tensors of VGG19's convolutions, or what the file is instead."""

import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from celebflow.backbone.vgg19 import build_layers
from celebflow.errors import CelebflowError, lacks_memory, raise_shortage
from celebflow.params import flatten

_UNPACK = ("a compressed archive", "Unpack it, and use the file in it.")
# How files begin that are often taken for weights: what they are, and the remedy.
_OTHER_FILES = {
    b"version https://git-lfs.github.com/": ("a pointer of Git LFS, not the file itself", "Run `git lfs pull`."),
    b"outs:": ("a file of DVC, not the weights themselves", "Run `dvc pull`, and use the file that it tracks."),
    b"\x89HDF": ("an HDF5 file, as Keras saves weights", "Use weights that were saved with PyTorch."),
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!"), _UNPACK),
}
_HTML = re.compile(rb"(\xef\xbb\xbf)?\s*(<!doctype|<html|<\?xml)", re.IGNORECASE)
_HEAD_BYTES = 512
_MAX_HEADER_BYTES = 100_000_000  # of safetensors: eight bytes with its size, then JSON
_TAR_MAGIC = slice(257, 262)
_SAVE_TENSORS = "Save its tensors alone: torch.save(model.state_dict(), …)."
_GET_AGAIN = "Get the file once more."
# How many convolutions each VGG has (Simonyan and Zisserman, 2015).
_DEPTHS = {8: "VGG11", 10: "VGG13", 13: "VGG16", 16: "VGG19"}
_MAX_NAMED = 4
_MAX_REASON = 100  # characters


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Load all tensors of a .pth or .safetensors file by their dotted names, and nothing that could run code.

    The content decides which of the two it is. In a .pth file, dicts may be nested and hold other values.

    Raises CelebflowError, which says what the file is and what to do, when it is neither or cannot be read.
    """
    try:
        head = _read_head(file)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MAX_HEADER_BYTES:
            return load_file(file)
        if head.startswith(b"PK\x03\x04"):
            _check_archive(file)
        elif not head.startswith(b"\x80"):  # how every pickle begins
            raise _refuse(file, *_describe_other(head))
        content = _unpickle(file)
    except OSError as error:
        if lacks_memory(error):
            raise_shortage(error, file)
        remedy = "Make it readable, or set backbone.weights to another file."
        raise CelebflowError(f"{file} cannot be read ({error.strerror or error}). {remedy}") from None
    except SafetensorError as error:
        raise_shortage(error, file)
        raise _refuse(file, f"damaged or cut short ({error})", _GET_AGAIN) from None
    if not isinstance(content, Mapping):
        raise _refuse(file, f"a saved {type(content).__name__}, not a state dict", _SAVE_TENSORS)
    try:
        values = flatten(content)
    except RecursionError:
        raise _refuse(file, "a dict that contains itself, or nested without end", _SAVE_TENSORS) from None
    tensors = {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)}
    if not tensors:
        raise _refuse(file, "a saved dict without any tensor", _SAVE_TENSORS)
    return tensors


def save_tensors(state: Mapping[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file, and make its folder if it is missing.

    Raises CelebflowError when the machine lacks what that takes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(dict(state), file, metadata)
    except SafetensorError as error:
        raise_shortage(error, file)
        raise


def _refuse(file: Path, what: str, remedy: str) -> CelebflowError:
    return CelebflowError(f"{file} is {what}. {remedy}")


def _read_head(file: Path) -> bytes:
    """Return the first bytes of a file; raise OSError when it cannot be read, and CelebflowError when it is no file."""
    remedy = (
        "Set backbone.weights to imagenet, untrained, or the path of a .pth or .safetensors state dict of VGG19, "
        "relative to the repository."
    )
    if file.is_dir():
        raise _refuse(file, "a folder", remedy)
    if file.is_symlink() and not file.exists():
        raise _refuse(file, f"a link to {file.readlink()}, which does not exist", remedy)
    if not file.is_file():
        raise _refuse(file, "not a file", remedy)
    with file.open("rb") as content:
        head = content.read(_HEAD_BYTES)
    if not head:
        raise _refuse(file, "empty", _GET_AGAIN)
    return head


def _check_archive(file: Path) -> None:
    """Raise CelebflowError for a ZIP archive that torch.save did not write, and for one without its end."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise _refuse(file, "cut short or damaged: it lacks the list of its parts at its end", _GET_AGAIN) from None
    if "constants.pkl" in names:
        raise _refuse(file, "a TorchScript archive, which holds code", _SAVE_TENSORS)
    if "data.pkl" not in names:
        raise _refuse(file, "a ZIP archive that torch.save did not write", "Unpack it, and use the file in it.")


def _unpickle(file: Path) -> object:
    """Load what torch.save wrote, if it is made of tensors and plain values; raise CelebflowError otherwise."""
    try:
        # Not by its name: torch.load would take it for safetensors where it is called so.
        with file.open("rb") as content, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats and odd tensors; those are refused
            return torch.load(content, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise_shortage(error, file)
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            what = f"a pickle that holds objects of Python ({found[1]}), which could run code"
            raise _refuse(file, what, _SAVE_TENSORS) from None
        if isinstance(error, pickle.UnpicklingError):
            raise _refuse(file, "damaged, or a pickle that torch.save did not write", _SAVE_TENSORS) from None
        reason = str(error).split("\n")[0][:_MAX_REASON] or "it ends early"
        raise _refuse(file, f"damaged or cut short ({reason})", _GET_AGAIN) from None


def _describe_other(head: bytes) -> tuple[str, str]:
    """Return what a file is that holds no weights, by its first bytes, and the remedy."""
    for beginning, description in _OTHER_FILES.items():
        if head.startswith(beginning):
            return description
    if head[_TAR_MAGIC] == b"ustar":
        return _UNPACK
    if _HTML.match(head):
        return "a web page", "Its address led to a page about the weights. Download the file itself."
    remedy = "Use a .pth or .safetensors file."
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return f"neither a .pth nor a .safetensors file (it begins with the bytes {head[:8].hex(' ')})", remedy
    return f"neither a .pth nor a .safetensors file (it begins with {text[:40]!r})", remedy


def keep_convolutions(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Return VGG19's convolutions among `tensors`, in float32, with the names that they have in `build_layers`.

    What stands before these names does not matter: features., module.features., state_dict.features. or nothing.

    Raises CelebflowError, which calls the tensors `origin`, when they are not there, not all usable, or there twice.
    """
    expected = {name: tensor.shape for name, tensor in build_layers().state_dict().items()}
    counts: Counter[str] = Counter()
    for name in tensors:
        prefix, rest = _split(name)
        counts[prefix] += rest in expected
    kept = [prefix for prefix, count in counts.items() if count == len(expected)]
    if len(kept) > 1:
        listed = ", ".join(f"{prefix}*" for prefix in kept)
        raise CelebflowError(
            f"{origin} holds VGG19's convolutions {len(kept)} times: {listed}. Save one of them alone."
        )
    prefix, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if _split(name)[0] == prefix}
    if kind := _name_other_network(own, expected, count):
        raise CelebflowError(
            f"{origin} holds {kind}, not VGG19's convolutions: {_shorten(tensors)}. Use the weights of torchvision's "
            "vgg19, neither another depth nor vgg19_bn."
        )
    problems = [f"{prefix}{name} is missing" for name in expected if name not in own]
    problems += [f"{prefix}{name} is unknown" for name in own if name not in expected and name[0].isdigit()]
    for name, tensor in own.items():
        if name in expected and (problem := _find_problem(tensor, expected[name])):
            problems.append(f"{prefix}{name} {problem}")
    if problems:
        raise CelebflowError(f"{origin} is not a state dict of torchvision's VGG19: {_shorten(problems, '; ')}.")
    return {name: own[name].to(torch.float32).contiguous() for name in expected}


def _split(name: str) -> tuple[str, str]:
    """Split a tensor's name after what stands before the layer's number: module.features. and 0.weight."""
    layer, _, _ = name.rpartition(".")
    before, dot, _ = layer.rpartition(".")
    prefix = before + dot
    return prefix, name.removeprefix(prefix)


def _name_other_network(own: Mapping[str, Tensor], expected: Collection[str], count: int) -> str:
    """Return which network has these layers, or an empty text for VGG19 and for parts of it."""
    convolutions = [name for name, tensor in own.items() if name.endswith(".weight") and tensor.ndim == 4]
    depth = _DEPTHS.get(len(convolutions), "")
    if any(name.endswith(".running_mean") for name in own):
        return f"{depth or 'a network'} with batch normalization"
    if depth and any(name not in expected for name in convolutions):
        return depth
    return "" if count > len(expected) / 2 else "another network"


def _find_problem(tensor: Tensor, shape: torch.Size) -> str:
    """Return why a tensor cannot be used as weights of this shape, or an empty text."""
    if tensor.shape != shape:
        return f"has shape {tuple(tensor.shape)}, not {tuple(shape)}"
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
        return f"is of the type {tensor.dtype} ({tensor.layout}, {tensor.device}), not of dense floating-point numbers"
    if list_not_finite({"": tensor.to(torch.float32)}):
        return "contains values that are not finite"
    if not tensor.any() and tensor.ndim > 1:
        return "contains nothing but zeros"
    return ""


def list_not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that contain NaN or infinity."""
    # The extremes are NaN where any value is; torch.isfinite takes ten times as long, and a copy.
    extremes = {name: torch.stack(torch.aminmax(tensor.detach())) for name, tensor in tensors.items()}
    return [name for name, ends in extremes.items() if not ends.isfinite().all()]


def _shorten(texts: Iterable[str], separator: str = ", ") -> str:
    listed = list(texts)
    more = [f"and {len(listed) - _MAX_NAMED} more"] if len(listed) > _MAX_NAMED else []
    return separator.join([*listed[:_MAX_NAMED], *more])
