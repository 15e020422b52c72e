"""The frozen convolutional part of VGG19: images to features."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from celebflow.backbone.source import BASE_LAYERS, BackboneSource
from celebflow.params import LayerName

_POOLINGS: tuple[LayerName | None, ...] = (None, None, None, "pool4", "pool5")
# Filters of each 3×3 convolution of VGG19, five groups with max-pooling after each (Simonyan and Zisserman, 2015).
_GROUPS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)


class Backbone(nn.Module):
    """VGG19's convolutions, frozen, in evaluation mode: images → features.

    Its `requires_grad` is False throughout, and `train()` leaves it in evaluation mode.
    """

    def __init__(self, state: Mapping[str, Tensor], source: BackboneSource) -> None:
        super().__init__()
        self.source = source
        self.features = build_layers()
        self.features.load_state_dict(dict(state), assign=True)
        # torchvision's avgpool: the identity for pool5 at 224 px; for other sizes, it keeps the feature count.
        self.pool = nn.AdaptiveAvgPool2d((7, 7))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)

    def named_layers(self) -> Iterator[tuple[nn.Module, LayerName | None]]:
        """Yield the layers in order, each with its name if its outputs can be features, otherwise with None."""
        names = iter(_POOLINGS)
        for layer in self.features:
            yield layer, next(names) if isinstance(layer, nn.MaxPool2d) else None

    def forward(self, images: Tensor, layers: Sequence[LayerName] = BASE_LAYERS) -> Tensor:
        """Turn (N, 3, size, size) normalized images into (N, 25088 · layers) features, layer after layer."""
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

        It takes one photograph at a time, so that features cannot depend on the rest of a batch.
        """
        device = next(self.parameters()).device
        features: NDArray[np.float32] = self(torch.from_numpy(image)[None].to(device), layers)[0].cpu().numpy()
        return features


def build_layers() -> nn.Sequential:
    """Build the layers, without values, in torchvision's order and thus with its names."""
    layers: list[nn.Module] = []
    channels = 3
    for group in _GROUPS:
        for filters in group:
            layers += [nn.Conv2d(channels, filters, 3, padding=1, device="meta"), nn.ReLU(inplace=True)]
            channels = filters
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def fingerprint_state(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict's names, shapes and float32 values, whatever their order in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()
