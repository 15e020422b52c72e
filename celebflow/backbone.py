"""The frozen convolutional part of VGG19: where its weights come from, and photographs → features."""

import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from celebflow.errors import CelebflowError
from celebflow.params import LayerName

FEATURE_COUNT = 512 * 7 * 7  # of one layer, pool4 or pool5, flattened channel-first like torchvision
BASE_LAYERS: tuple[LayerName, ...] = ("pool5",)
_POOLINGS: tuple[LayerName | None, ...] = (None, None, None, "pool4", "pool5")
# Filters of each 3×3 convolution of VGG19, five groups with max-pooling after each (Simonyan and Zisserman, 2015).
_GROUPS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
UNTRAINED_WARNING = "UNTRAINED BACKBONE: random filters, no ImageNet weights; these figures say nothing of real faces."


@dataclass(frozen=True)
class BackboneSource:
    """Where a backbone's weights came from; saved with it and with every classifier that was taught on it.

    `fingerprint` is the SHA-256 of the values, so that two backbones with equal fingerprints compute alike.
    """

    weights: str
    trained: bool
    fingerprint: str

    def warning(self) -> str:
        """Return what must stand wherever a result is shown: nothing for trained weights."""
        return "" if self.trained else UNTRAINED_WARNING


class Backbone(nn.Module):
    """VGG19's convolutions, frozen, in evaluation mode: images → features.

    Its `requires_grad` is False throughout, and `train()` leaves it in evaluation mode.
    """

    def __init__(self, state: Mapping[str, Tensor], source: BackboneSource) -> None:
        super().__init__()
        self.source = source
        self.features = _build_features()
        self.features.load_state_dict(dict(state), assign=True)
        # torchvision's avgpool: the identity for pool5 at 224 px, and what keeps the feature count otherwise.
        self.pool = nn.AdaptiveAvgPool2d((7, 7))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode whatever is asked."""
        return super().train(False)

    def named_layers(self) -> Iterator[tuple[nn.Module, LayerName | None]]:
        """Yield the layers in their order, each with its name if its outputs can be features."""
        names = iter(_POOLINGS)
        for layer in self.features:
            yield layer, next(names) if isinstance(layer, nn.MaxPool2d) else None

    def forward(self, images: Tensor, layers: Sequence[LayerName] = BASE_LAYERS) -> Tensor:
        """Turn (N, 3, size, size) normalised images into (N, 25088 · layers) features, one layer's after another's."""
        values = images.contiguous(memory_format=torch.channels_last)
        found = {}
        for layer, name in self.named_layers():
            values = layer(values)
            if name in layers:
                found[name] = torch.flatten(self.pool(values), 1)
            if len(found) == len(layers):
                break
        return torch.cat([found[name] for name in layers], 1) if len(layers) > 1 else found[layers[0]]

    @torch.inference_mode()
    def extract(self, image: NDArray[np.float32], layers: Sequence[LayerName] = BASE_LAYERS) -> NDArray[np.float32]:
        """Turn one (3, size, size) transformed photograph into its (25088 · layers,) features.

        One photograph at a time, features cannot depend on what else stands in a batch.
        """
        device = next(self.parameters()).device
        features: NDArray[np.float32] = self(torch.from_numpy(image)[None].to(device), layers)[0].cpu().numpy()
        return features


def count_features(layers: Sequence[LayerName]) -> int:
    """Return how many features `layers` give together."""
    return FEATURE_COUNT * len(layers)


def _build_features() -> nn.Sequential:
    """Build the layers, without values, in torchvision's order and so with its names."""
    layers: list[nn.Module] = []
    channels = 3
    for group in _GROUPS:
        for filters in group:
            layers += [nn.Conv2d(channels, filters, 3, padding=1, device="meta"), nn.ReLU(inplace=True)]
            channels = filters
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def make_backbone(weights: str, seed: int, folder: Path) -> Backbone:
    """Build the frozen backbone from what `backbone.weights` names.

    `weights` is "imagenet" (torchvision's IMAGENET1K_V1, downloaded once into torch's cache), "untrained" (random
    filters that follow from `seed`), or the path of a state dict, relative to `folder`.

    Raises CelebflowError when the weights cannot be had or are not VGG19's, saying what to do.
    """
    if weights == "untrained":
        state = initialise_untrained(seed)
    elif weights == "imagenet":
        from torchvision.models import VGG19_Weights  # torchvision takes as long to import as torch

        state = _keep_features(
            fetch_imagenet_weights(VGG19_Weights.IMAGENET1K_V1.url), "torchvision's VGG19_Weights.IMAGENET1K_V1"
        )
    else:
        state = load_state(folder / weights)
    return Backbone(state, BackboneSource(weights, weights != "untrained", fingerprint_state(state)))


def initialise_untrained(seed: int) -> dict[str, Tensor]:
    """Draw VGG19 filters that keep information though nothing has been learned: a stand-in for tests and the demo.

    The usual random initialisations do not serve: through sixteen layers they map all photographs to nearly one
    vector. Here most layers pass their channels on, and three of them mix, each filter beside its negative so that
    ReLU loses nothing:

    - conv1_1: random colour directions, flat over 3×3, and a few random edges;
    - conv1_2, conv2_1 and conv3_1: 3×3 means, so that max-pooling picks areas rather than specks;
    - conv4_1: random zero-sum filters over 16 channels, which see shapes;
    - conv5_1: the same over 32, centred and scaled to unit variance on smooth noise (after the layer-sequential
      unit-variance initialisation of Mishkin and Matas, 2016), and with a threshold of half a standard deviation,
      which makes more than half of the features zero;
    - all others: a 1 at the centre tap.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for layer in _build_features() if isinstance(layer, nn.Conv2d)]
    weights = [_pass_on(layer.in_channels, layer.out_channels) for layer in layers]
    biases = [torch.zeros(layer.out_channels) for layer in layers]
    weights[0] = _draw_colours_and_edges(generator)
    for number in (1, 2, 4):
        weights[number] = _average(weights[number])
    weights[8] = _draw_shapes(generator, channels=256, used=16)
    weights[12] = _draw_shapes(generator, channels=512, used=32)
    mean, deviation = _measure_on_noise(weights, generator)
    weights[12] /= deviation[:, None, None, None]
    biases[12] = -mean / deviation - 0.5
    names = [name.rsplit(".", 1)[0] for name in _build_features().state_dict()][::2]
    state: dict[str, Tensor] = {}
    for name, weight, bias in zip(names, weights, biases, strict=True):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return state


def _pass_on(channels: int, filters: int) -> Tensor:
    """Return (filters, channels, 3, 3) weights that hand each channel on, again from the first where a layer widens."""
    weight = torch.zeros(filters, channels, 3, 3)
    weight[torch.arange(filters), torch.arange(filters) % channels, 1, 1] = 1
    return weight


def _average(weight: Tensor) -> Tensor:
    centre = weight[:, :, 1:2, 1:2]
    return centre.expand(-1, -1, 3, 3).div(9)


def _with_negatives(weight: Tensor) -> Tensor:
    return torch.cat([weight, -weight])


def _unit_norm(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)
    return weight / norm


def _draw_colours_and_edges(generator: torch.Generator) -> Tensor:
    weight = torch.randn((32, 3, 3, 3), generator=generator)
    colours, edges = weight[:28], weight[28:]
    colours = colours.mean((2, 3), keepdim=True).expand(-1, -1, 3, 3)
    edges = edges - edges.mean((1, 2, 3), keepdim=True)
    return _with_negatives(torch.cat([_unit_norm(colours) / 2, _unit_norm(edges)]))


def _draw_shapes(generator: torch.Generator, channels: int, used: int) -> Tensor:
    weight = torch.zeros(256, channels, 3, 3)
    for filter_weight in weight:
        chosen = torch.randperm(channels, generator=generator)[:used]
        shape = torch.randn((used, 3, 3), generator=generator)
        filter_weight[chosen] = shape - shape.mean()
    return _with_negatives(_unit_norm(weight))


@torch.inference_mode()
def _measure_on_noise(weights: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of conv5_1's responses to noise that is smooth as photographs are."""
    images = torch.zeros(16, 3, 224, 224)
    for cells in (1, 2, 4, 7, 14, 28, 56):
        noise = torch.rand((16, 3, cells, cells), generator=generator) * 2 - 1
        images += nn.functional.interpolate(noise, size=224, mode="bilinear")
    for number in (0, 1, 2, 4, 8):  # the layers between only pass on, and poolings follow 1, 3, 7 and 11
        images = nn.functional.conv2d(images, weights[number], padding=1).relu()
        if number != 0:
            images = nn.functional.max_pool2d(images, 2)
    responses = nn.functional.conv2d(images, weights[12], padding=1)
    return responses.mean((0, 2, 3)), responses.std((0, 2, 3))


def fingerprint_state(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict's names, shapes and float32 values, whatever their order in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


def fetch_imagenet_weights(url: str) -> dict[str, Tensor]:
    """Load torchvision's ImageNet weights from torch's cache, after downloading them there if need be.

    The file's SHA-256 must start with the digits in its name, also when it lay in the cache before.

    Raises CelebflowError when the download fails or the file is damaged; a partial file is removed.
    """
    name = url.rsplit("/", 1)[-1]
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    hash_prefix = Path(name).stem.rsplit("-", 1)[-1]
    remedy = (
        f"Download it elsewhere and put it at {file}, or set backbone.weights to the path of a .pth or .safetensors "
        "state dict of VGG19, or set it to untrained to try the pipeline without meaningful weights. "
        "`dvc pull` brings models/backbone.safetensors from a DVC remote, if there is one."
    )
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix)
        except (URLError, OSError, RuntimeError) as error:  # RuntimeError: the hash does not fit
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            raise CelebflowError(
                f"The ImageNet weights could not be downloaded from {url}: {error}. {remedy}"
            ) from None
    with file.open("rb") as content:
        if not hashlib.file_digest(content, "sha256").hexdigest().startswith(hash_prefix):
            raise CelebflowError(
                f"{file} is damaged: its SHA-256 does not start with {hash_prefix}. Remove it. {remedy}"
            )
    return _read_state(file)


def load_state(file: Path) -> dict[str, Tensor]:
    """Load VGG19's convolutions from a .pth or .safetensors state dict, without unpickling anything but tensors.

    Raises CelebflowError when there is no such file, it is no state dict, or its tensors are not VGG19's.
    """
    if not file.is_file():
        raise CelebflowError(
            f"backbone.weights: {file} is no file. It takes imagenet, untrained, or the path of a .pth or "
            ".safetensors state dict, relative to the repository."
        )
    return _keep_features(_read_state(file), str(file))


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise CelebflowError(f"{file} cannot be read as a state dict of tensors alone: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CelebflowError(f"{file} holds no state dict: save model.state_dict(), not the model.")
    return dict(state)


def _keep_features(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Pick `features.*` out of a whole VGG19's state dict and hold it against the architecture."""
    prefix = "features."
    kept = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    expected = {name: tensor.shape for name, tensor in _build_features().state_dict().items()}
    problems = [f"{prefix}{name} is missing" for name in expected if name not in kept]
    problems += [f"{prefix}{name} is unknown" for name in kept if name not in expected]
    for name, shape in expected.items():
        if name in kept and kept[name].shape != shape:
            problems.append(f"{prefix}{name} has shape {tuple(kept[name].shape)}, not {tuple(shape)}")
        elif name in kept and not torch.isfinite(kept[name]).all():
            problems.append(f"{prefix}{name} holds values that are not finite")
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise CelebflowError(f"{origin} is no state dict of torchvision's VGG19: {shown}.")
    return {name: kept[name].to(torch.float32).contiguous() for name in expected}


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write the frozen features with their source to a safetensors file, the same bytes for the same values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"features.{name}": tensor.contiguous() for name, tensor in backbone.features.state_dict().items()}
    # One key: safetensors writes several in no fixed order.
    save_file(state, path, metadata={"celebflow": json.dumps(asdict(backbone.source), sort_keys=True)})


def load_backbone(path: Path, device: str) -> Backbone:
    """Load what save_backbone wrote.

    Raises CelebflowError when the values do not have the fingerprint that the file states.
    """
    source = load_backbone_source(path)
    state = {name.removeprefix("features."): tensor for name, tensor in _read_state(path).items()}
    if fingerprint_state(state) != source.fingerprint:
        raise CelebflowError(f"{path} is damaged: its values do not have the fingerprint that it states. Remove it.")
    return Backbone(state, source).to(select_device(device))


def load_backbone_source(path: Path) -> BackboneSource:
    """Read where a saved backbone came from, without its weights."""
    with safe_open(path, "pt") as file:
        return BackboneSource(**json.loads(file.metadata()["celebflow"]))


def select_device(name: str) -> torch.device:
    """Return the device that compute.device names; raise CelebflowError when this machine has none."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name.split(":")[0]]:
        raise CelebflowError(f"compute.device is {name}, which PyTorch does not find on this machine. Set it to cpu.")
    return torch.device(name)
