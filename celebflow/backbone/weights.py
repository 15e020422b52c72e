"""Get, check, save and load the weights of the frozen VGG19."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.error import HTTPError, URLError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from celebflow.backbone.devices import select_device
from celebflow.backbone.untrained import initialize_untrained
from celebflow.backbone.vgg19 import Backbone, BackboneSource, build_layers, fingerprint_state
from celebflow.errors import CelebflowError


def make_backbone(weights: str, seed: int, folder: Path) -> Backbone:
    """Build the frozen backbone that `backbone.weights` selects.

    `weights` is "imagenet" (torchvision's IMAGENET1K_V1, downloaded once into torch's cache), "untrained" (random
    filters, drawn from `seed`), or the path of a state dict, relative to `folder`.

    Raises CelebflowError when the weights cannot be obtained, are not a state dict, or are not VGG19's.
    """
    if weights == "untrained":
        state = initialize_untrained(seed)
    elif weights == "imagenet":
        from torchvision.models import VGG19_Weights  # slow to import

        state = fetch_imagenet_weights(VGG19_Weights.IMAGENET1K_V1.url)
        state = _keep_features(state, "torchvision's VGG19_Weights.IMAGENET1K_V1")
    else:
        file = folder / weights
        if not file.is_file():
            raise CelebflowError(
                f"backbone.weights: {file} is not a file. Set it to imagenet, untrained, or the path of a .pth or "
                ".safetensors state dict, relative to the repository."
            )
        state = _keep_features(_read_state(file), str(file))
    return Backbone(state, BackboneSource(weights, weights != "untrained", fingerprint_state(state)))


def fetch_imagenet_weights(url: str) -> dict[str, Tensor]:
    """Load torchvision's ImageNet weights from torch's cache, and download them into it first if they are missing.

    The file's SHA-256 must start with the digits in its name, even when the file was already in the cache.

    Raises CelebflowError when the download fails or the file is damaged; a partial file is removed.
    """
    name = url.rsplit("/", 1)[-1]
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    hash_prefix = Path(name).stem.rsplit("-", 1)[-1]
    remedy = (
        f"Download the file on another machine and put it at {file}. Or set backbone.weights to the path of a .pth or "
        ".safetensors state dict of VGG19, or to untrained to try the pipeline without meaningful weights. "
        "If there is a DVC remote, `dvc pull` fetches models/backbone.safetensors from it."
    )
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix)
        except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the hash does not fit
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            problem = f"The ImageNet weights could not be downloaded from {url}: {error}."
            raise CelebflowError(f"{problem} {remedy}") from None
    with file.open("rb") as content:
        if not hashlib.file_digest(content, "sha256").hexdigest().startswith(hash_prefix):
            problem = f"{file} is damaged: its SHA-256 does not start with {hash_prefix}. Remove it."
            raise CelebflowError(f"{problem} {remedy}")
    return _read_state(file)


def _read_state(file: Path) -> dict[str, Tensor]:
    """Load a .pth or .safetensors state dict, without unpickling anything but tensors."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise CelebflowError(f"{file} cannot be read as a state dict that contains only tensors: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CelebflowError(f"{file} does not contain a state dict. Save model.state_dict() rather than the model.")
    return dict(state)


def _keep_features(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Return the tensors `features.*` of a VGG19's state dict, checked against the architecture."""
    prefix = "features."
    kept = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    expected = {name: tensor.shape for name, tensor in build_layers().state_dict().items()}
    problems = [f"{prefix}{name} is missing" for name in expected if name not in kept]
    problems += [f"{prefix}{name} is unknown" for name in kept if name not in expected]
    for name, shape in expected.items():
        if name in kept and kept[name].shape != shape:
            problems.append(f"{prefix}{name} has shape {tuple(kept[name].shape)}, not {tuple(shape)}")
        elif name in kept and not torch.isfinite(kept[name]).all():
            problems.append(f"{prefix}{name} contains values that are not finite")
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise CelebflowError(f"{origin} is not a state dict of torchvision's VGG19: {shown}.")
    return {name: kept[name].to(torch.float32).contiguous() for name in expected}


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write the backbone and its source to a safetensors file; the same values give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"features.{name}": tensor.contiguous() for name, tensor in backbone.features.state_dict().items()}
    # One key: safetensors writes several in no fixed order.
    save_file(state, path, metadata={"celebflow": json.dumps(asdict(backbone.source), sort_keys=True)})


def load_backbone(path: Path, device: str) -> Backbone:
    """Load what save_backbone wrote.

    Raises CelebflowError when the file has no source, or its values do not have the fingerprint that it states.
    """
    source = load_backbone_source(path)
    state = {name.removeprefix("features."): tensor for name, tensor in _read_state(path).items()}
    if fingerprint_state(state) != source.fingerprint:
        raise CelebflowError(
            f"{path} is damaged: its values do not have the fingerprint that it states. Remove it, and run `dvc repro`."
        )
    return Backbone(state, source).to(select_device(device))


def load_backbone_source(path: Path) -> BackboneSource:
    """Read where a saved backbone came from, without loading its weights.

    Raises CelebflowError when the file is damaged, or an earlier version of celebflow wrote it.
    """
    try:
        with safe_open(path, "pt") as file:
            return BackboneSource(**json.loads((file.metadata() or {})["celebflow"]))
    except SafetensorError as error:
        raise CelebflowError(f"{path} is damaged: {error}. Remove it, and run `dvc repro`.") from None
    except (KeyError, TypeError, ValueError):
        raise CelebflowError(
            f"{path} does not state where its weights came from: an older celebflow wrote it. Run `dvc repro`."
        ) from None
