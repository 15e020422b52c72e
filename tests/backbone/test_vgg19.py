"""The backbone is frozen, and its features equal torchvision's."""

import pytest
import torch
from torch import nn
from torchvision.models import vgg19

from celebflow.backbone.vgg19 import Backbone
from celebflow.params import LayerName


def test_every_parameter_is_frozen_and_the_backbone_stays_in_evaluation_mode(backbone: Backbone) -> None:
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
    features = torch.from_numpy(backbone.extract(images[0].numpy()))
    assert features.shape == (25088,)
    assert ((features - expected).norm() / expected.norm()).item() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("size_px", [64, 128])
def test_each_layers_features_equal_torchvisions(backbone: Backbone, size_px: int) -> None:
    with torch.device("meta"):
        reference = vgg19(weights=None).features.eval()
    reference.load_state_dict(backbone.features.state_dict(), assign=True)
    images = torch.randn(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    poolings = [number for number, layer in enumerate(reference) if isinstance(layer, nn.MaxPool2d)]
    after_pool4 = poolings[3] + 1
    with torch.inference_mode():
        pool4 = reference[:after_pool4](images)
        pool5 = reference[after_pool4:](pool4)
        expected: dict[LayerName, torch.Tensor] = {
            "pool4": nn.functional.adaptive_avg_pool2d(pool4, (7, 7)).flatten(),
            "pool5": nn.functional.adaptive_avg_pool2d(pool5, (7, 7)).flatten(),
        }
    combinations: tuple[tuple[LayerName, ...], ...] = (("pool4",), ("pool5",), ("pool4", "pool5"), ("pool5", "pool4"))
    for layers in combinations:
        features = torch.from_numpy(backbone.extract(images[0].numpy(), layers))
        wanted = torch.cat([expected[layer] for layer in layers])
        assert features.shape == wanted.shape == (25088 * len(layers),)
        assert ((features - wanted).norm() / wanted.norm()).item() < 1e-5
