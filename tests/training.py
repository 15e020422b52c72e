"""Examples to train on, a small recipe, and checkpoints in memory, that tests share."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.classifier_training import train_classifier
from celebflow.classifier.fits import NOT_KEPT
from celebflow.classifier.history import EpochResult
from celebflow.classifier.model import Classifier
from celebflow.data.photos import list_people
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.store import Features, select_split
from celebflow.params import ComputeParams, TrainParams

PEOPLE = ("Ann", "Bo", "Cy")
ALL_STEPS = ("square_root", "l2_normalize", "standardize")


def make_train_params(*steps: str, pca_components: int | None = None, **changes: object) -> TrainParams:
    """Return a small recipe with these steps of preprocessing and these other changes."""
    preprocessing = dict.fromkeys(steps, True) | {"pca_components": pca_components}
    small = {"hidden_units": (16,), "epochs": 3, "batch_size": 8}
    return TrainParams.model_validate({**small, "preprocessing": preprocessing, **changes})


def train(
    features: Features, params: TrainParams, checkpoints: "MemoryCheckpoints | None" = None
) -> tuple[Classifier, list[EpochResult]]:
    """Train as the stage train does, on the CPU."""
    checkpoints = checkpoints or MemoryCheckpoints()
    return train_classifier(features, params, ComputeParams(device="cpu"), checkpoints, lambda _: None)


def gather_dense(features: Features, split: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (N · V, features) and (N · V,) labels of a split: all first views, then all second views, and so on."""
    examples = select_split(features, list_people(features.photos), split)
    positions = np.arange(len(examples))
    views = [examples.gather(positions, view)[0].to_dense() for view in range(features.view_count)]
    return np.concatenate(views).astype(np.float64), np.tile(examples.labels, features.view_count)


class Clusters:
    """The features of three people: noise around a direction of each person's own, in one or several views.

    Without `labels`, the photographs show the three people in turn.
    """

    def __init__(self, count: int, seed: int, *, view_count: int = 1, labels: NDArray[np.int64] | None = None) -> None:
        random = np.random.default_rng(seed)
        self.labels = np.arange(count) % 3 if labels is None else labels
        self.view_count = view_count
        self.views = random.random((view_count, count, FEATURE_COUNT), np.float32)
        self.views[random.random(self.views.shape) < 0.9] = 0
        for person in range(3):
            self.views[:, self.labels == person, person * 1000 : person * 1000 + 1000] += 1
        self.gathered: list[tuple[NDArray[np.int64], NDArray[np.int64] | int]] = []

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int) -> tuple[SparseBatch, Tensor]:
        """Return a batch, and record which positions and views it holds."""
        self.gathered.append((positions, views))
        rows = [SparseRow.from_dense(row) for row in self.views[views, positions]]
        return SparseBatch.from_rows(rows, FEATURE_COUNT), torch.from_numpy(self.labels[positions])


class MemoryCheckpoints(Checkpoints):
    """Checkpoints that last as long as the test."""

    def __init__(self) -> None:
        self.fits = NOT_KEPT
        self.last: dict[str, Tensor] = {}
        self.history: list[EpochResult] = []
        self.best: dict[str, Tensor] = {}

    def restore(self, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        """Restore the last epoch."""
        _copy(self.last, tensors)
        return list(self.history)

    def save(self, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
        """Save the last epoch."""
        self.last = _clone(tensors)
        self.history = list(history)

    def restore_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the best epoch."""
        _copy(self.best, tensors)

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Save the best epoch."""
        self.best = _clone(tensors)


def _copy(saved: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in saved.items():
        tensors[name].detach().copy_(tensor)


def _clone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
