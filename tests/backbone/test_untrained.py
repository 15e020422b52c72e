"""The untrained filters keep photographs apart, and follow from the seed."""

from pathlib import Path

import pytest
import torch
from torch import nn

from celebflow.backbone.vgg19 import Backbone
from celebflow.backbone.weights import make_backbone


def test_untrained_filters_keep_photographs_apart(backbone: Backbone) -> None:
    images = torch.rand((4, 3, 64, 64), generator=torch.Generator().manual_seed(1)) * 4 - 2
    images = nn.functional.interpolate(images[:, :, ::16, ::16], size=64)
    features = torch.stack([torch.from_numpy(backbone.extract(image.numpy())) for image in images])
    similarity = nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    assert similarity[~torch.eye(4, dtype=torch.bool)].max() < 0.9  # torchvision's initialization: above 0.999


@pytest.mark.slow
def test_untrained_filters_follow_from_the_seed(backbone: Backbone) -> None:
    assert make_backbone("untrained", 0, Path()).source == backbone.source
    assert make_backbone("untrained", 1, Path()).source.fingerprint != backbone.source.fingerprint
    assert "UNTRAINED" in backbone.source.warning()
