"""Get, check, save and load the weights of the frozen VGG19."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from urllib.error import HTTPError, URLError

import torch
from safetensors.torch import load_file
from torch import Tensor

from celebflow.backbone.devices import select_device
from celebflow.backbone.source import BackboneSource, load_backbone_source
from celebflow.backbone.state_dicts import keep_convolutions, load_tensors, save_tensors
from celebflow.backbone.untrained import initialize_untrained
from celebflow.backbone.vgg19 import Backbone, fingerprint_state
from celebflow.errors import CelebflowError, describe_shortage


def make_backbone(weights: str, seed: int, folder: Path) -> Backbone:
    """Build the frozen backbone that `backbone.weights` selects.

    `weights` is "imagenet" (torchvision's IMAGENET1K_V1, downloaded once into torch's cache), "untrained" (random
    filters, drawn from `seed`), or the path of a file with VGG19's convolutions, relative to `folder`.

    Raises CelebflowError when the weights cannot be obtained, or are not VGG19's.
    """
    if weights == "untrained":
        state = initialize_untrained(seed)
    elif weights == "imagenet":
        from torchvision.models import VGG19_Weights  # slow to import

        tensors = fetch_imagenet_weights(VGG19_Weights.IMAGENET1K_V1.url)
        state = keep_convolutions(tensors, "torchvision's VGG19_Weights.IMAGENET1K_V1")
    else:
        state = keep_convolutions(load_tensors(folder / weights), str(folder / weights))
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
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix)
        except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the hash does not fit
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            problem = f"The ImageNet weights could not be downloaded from {url}: {error}."
            raise CelebflowError(f"{problem} {describe_shortage(error, file) or remedy}") from None
    try:
        with file.open("rb") as content:
            is_whole = hashlib.file_digest(content, "sha256").hexdigest().startswith(hash_prefix)
    except OSError as error:
        raise CelebflowError(f"{file} cannot be read ({error.strerror}). {remedy}") from None
    if not is_whole:
        problem = f"{file} is damaged: its SHA-256 does not start with {hash_prefix}. Remove it."
        raise CelebflowError(f"{problem} {remedy}")
    return load_tensors(file)


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write the backbone and its source to a safetensors file; the same values give the same bytes."""
    state = {f"features.{name}": tensor.contiguous() for name, tensor in backbone.features.state_dict().items()}
    # One key: safetensors writes several in no fixed order.
    metadata = {"celebflow": json.dumps(asdict(backbone.source), sort_keys=True, allow_nan=False)}
    save_tensors(state, path, metadata)


def load_backbone(path: Path, device: str) -> Backbone:
    """Load what save_backbone wrote.

    Raises CelebflowError when the file has no source, or its values do not have the fingerprint that it states.
    """
    source = load_backbone_source(path)
    state = {name.removeprefix("features."): tensor for name, tensor in load_file(path).items()}
    if fingerprint_state(state) != source.fingerprint:
        raise CelebflowError(
            f"{path} is damaged: its values do not have the fingerprint that it states. Remove it, and run `dvc repro`."
        )
    return Backbone(state, source).to(select_device(device))
