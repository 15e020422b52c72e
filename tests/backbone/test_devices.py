"""A device that the machine does not have is refused."""

import pytest
import torch

from celebflow.backbone.devices import select_device
from celebflow.errors import CelebflowError


def test_a_missing_device_is_refused_by_key() -> None:
    assert select_device("cpu") == torch.device("cpu")
    if not torch.backends.mps.is_available():
        with pytest.raises(CelebflowError, match=r"compute\.device is mps"):
            select_device("mps")
