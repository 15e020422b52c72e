"""The device that compute.device selects."""

import torch

from celebflow.errors import CelebflowError


def select_device(name: str) -> torch.device:
    """Return the device that compute.device selects; raise CelebflowError when this machine does not have it."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name.split(":")[0]]:
        raise CelebflowError(f"compute.device is {name}, which PyTorch does not find on this machine. Set it to cpu.")
    return torch.device(name)
