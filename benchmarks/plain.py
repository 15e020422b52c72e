"""The plain script that `make bench` compares with, as one would write it from torchvision's documentation.

Every photograph passes the convolutions in every epoch, in PyTorch's eager mode; the optimizer is torch.optim.Adam.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import vgg19

Examples = list[tuple[Path, int]]  # files and labels
Vgg19 = Any  # torchvision has no types

TRANSFORM = transforms.Compose(
    [
        transforms.Resize(224),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


class Photographs(Dataset[tuple[Tensor, int]]):
    """Photographs and their labels."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.examples[index]
        return TRANSFORM(Image.open(file).convert("RGB")), label


def make_model(features: dict[str, Tensor], person_count: int) -> Vgg19:
    """Return VGG19 with these frozen convolutions and a new classifier."""
    model = vgg19()
    model.features.load_state_dict(features)
    for parameter in model.features.parameters():
        parameter.requires_grad = False
    model.classifier = nn.Sequential(
        nn.Linear(25088, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, person_count),
    )
    return model


def compute_features(model: Vgg19, images: Tensor) -> Tensor:
    """Return the (B, 25088) outputs of the convolutions."""
    return torch.flatten(model.avgpool(model.features(images)), 1)


def make_optimizer(model: Vgg19) -> torch.optim.Adam:
    """Return Adam for the classifier."""
    return torch.optim.Adam(model.classifier.parameters(), lr=1e-4)


def take_step(classifier: nn.Module, optimizer: torch.optim.Adam, features: Tensor, labels: Tensor) -> None:
    """Train on one batch of features."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(classifier(features), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    loss.item()


_MODEL: list[Vgg19] = []


def initialize(backbone_file: Path, person_count: int) -> None:
    """Make the model that the functions below use, once per process."""
    state = load_file(backbone_file)
    _MODEL.append(make_model({name.removeprefix("features."): value for name, value in state.items()}, person_count))


def time_extraction(examples: Examples) -> float:
    """Compute and store the features of some photographs; return the time in seconds."""
    started = time.perf_counter()
    model = _MODEL[0].eval()
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=".") as folder:
        features = [compute_features(model, images) for images, _ in DataLoader(Photographs(examples), batch_size=32)]
        torch.save(torch.cat(features), Path(folder) / "features.pt")
    return time.perf_counter() - started


def time_steps(inputs: NDArray[np.float32], labels: NDArray[np.int64], count: int) -> list[float]:
    """Train on a batch of features `count` times; return the time of each step in seconds."""
    model = _MODEL[0].train()
    optimizer = make_optimizer(model)
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        take_step(model.classifier, optimizer, torch.from_numpy(inputs), torch.from_numpy(labels))
        seconds.append(time.perf_counter() - started)
    return seconds


def time_epoch(train: Examples, val: Examples) -> float:
    """Train and validate for one epoch; return the time in seconds."""
    started = time.perf_counter()
    model = _MODEL[0]
    optimizer = make_optimizer(model)
    model.train()
    for images, labels in DataLoader(Photographs(train), batch_size=32, shuffle=True):
        take_step(model.classifier, optimizer, compute_features(model, images), labels)
    model.eval()
    with torch.no_grad():
        for images, labels in DataLoader(Photographs(val), batch_size=32):
            (model(images).argmax(1) == labels).sum().item()
    return time.perf_counter() - started
