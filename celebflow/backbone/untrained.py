"""Random VGG19 filters that keep information, for tests and the demo."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from celebflow.backbone.vgg19 import build_layers


def initialize_untrained(seed: int) -> dict[str, Tensor]:
    """Draw VGG19 filters that keep information without any training, for tests and the demo.

    The usual random initializations do not work: through sixteen layers, they map all photographs to nearly the same
    vector. Here most layers only pass their channels on, and three layers mix them. Those have each filter together
    with its negative, so that ReLU loses nothing:

    - conv1_1: random color directions, flat over 3×3, and a few random edges;
    - conv1_2, conv2_1 and conv3_1: 3×3 means, so that max-pooling selects areas rather than single pixels;
    - conv4_1: random zero-sum filters over 16 channels, which respond to shapes;
    - conv5_1: the same over 32 channels, centered and scaled to unit variance on smooth noise (after the
      layer-sequential unit-variance initialization of Mishkin and Matas, 2016), and with a threshold of half a
      standard deviation, which makes more than half of the features zero;
    - all others: a 1 at the center tap.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for layer in build_layers() if isinstance(layer, nn.Conv2d)]
    weights = [_pass_on(layer.in_channels, layer.out_channels) for layer in layers]
    biases = [torch.zeros(layer.out_channels) for layer in layers]
    weights[0] = _draw_colors_and_edges(generator)
    for number in (1, 2, 4):
        weights[number] = weights[number][:, :, 1:2, 1:2].expand(-1, -1, 3, 3).div(9)
    weights[8] = _draw_shapes(generator, channels=256, used=16)
    weights[12] = _draw_shapes(generator, channels=512, used=32)
    mean, deviation = _measure_on_noise(weights, generator)
    weights[12] /= deviation[:, None, None, None]
    biases[12] = -mean / deviation - 0.5
    tensors = chain.from_iterable(zip(weights, biases, strict=True))
    return dict(zip(build_layers().state_dict(), tensors, strict=True))


def _pass_on(channels: int, filters: int) -> Tensor:
    """Return (filters, channels, 3, 3) weights that pass each channel on, repeating them in wider layers."""
    weight = torch.zeros(filters, channels, 3, 3)
    weight[torch.arange(filters), torch.arange(filters) % channels, 1, 1] = 1
    return weight


def _with_negatives(weight: Tensor) -> Tensor:
    return torch.cat([weight, -weight])


def _unit_norm(weight: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)
    return weight / norm


def _draw_colors_and_edges(generator: torch.Generator) -> Tensor:
    weight = torch.randn((32, 3, 3, 3), generator=generator)
    colors, edges = weight[:28], weight[28:]
    colors = colors.mean((2, 3), keepdim=True).expand(-1, -1, 3, 3)
    edges = edges - edges.mean((1, 2, 3), keepdim=True)
    return _with_negatives(torch.cat([_unit_norm(colors) / 2, _unit_norm(edges)]))


def _draw_shapes(generator: torch.Generator, channels: int, used: int) -> Tensor:
    weight = torch.zeros(256, channels, 3, 3)
    for filter_weight in weight:
        chosen = torch.randperm(channels, generator=generator)[:used]
        shape = torch.randn((used, 3, 3), generator=generator)
        filter_weight[chosen] = shape - shape.mean()
    return _with_negatives(_unit_norm(weight))


@torch.inference_mode()
def _measure_on_noise(weights: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of conv5_1's responses to noise that is as smooth as photographs."""
    images = torch.zeros(16, 3, 224, 224)
    for cells in (1, 2, 4, 7, 14, 28, 56):
        noise = torch.rand((16, 3, cells, cells), generator=generator) * 2 - 1
        images += nn.functional.interpolate(noise, size=224, mode="bilinear")
    for number in (0, 1, 2, 4, 8):  # the others only pass channels on, and poolings follow 1, 3, 7 and 11
        images = nn.functional.conv2d(images, weights[number], padding=1).relu()
        if number != 0:
            images = nn.functional.max_pool2d(images, 2)
    responses = nn.functional.conv2d(images, weights[12], padding=1)
    return responses.mean((0, 2, 3)), responses.std((0, 2, 3))
