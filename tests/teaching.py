"""Examples to learn from, and checkpoints in memory, that tests share."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebflow.backbone.vgg19 import FEATURE_COUNT
from celebflow.classifier.history import EpochResult
from celebflow.features.sparse import SparseBatch, SparseRow


class Clusters:
    """Three people' features: noise around a direction of each one's own, in several views if need be.

    Unless `labels` says whom each photograph shows, they take turns.
    """

    def __init__(self, count: int, seed: int, *, view_count: int = 1, labels: NDArray[np.int64] | None = None) -> None:
        random = np.random.default_rng(seed)
        self.labels = np.arange(count) % 3 if labels is None else labels
        self.view_count = view_count
        self.views = random.random((view_count, count, FEATURE_COUNT), np.float32)
        self.views[random.random(self.views.shape) < 0.5] = 0
        for person in range(3):
            self.views[:, self.labels == person, person * 1000 : person * 1000 + 1000] += 1
        self.taken: list[tuple[NDArray[np.int64], NDArray[np.int64] | int]] = []

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int) -> tuple[SparseBatch, Tensor]:
        """Return a batch, and remember what was asked for."""
        self.taken.append((positions, views))
        rows = [SparseRow.from_dense(row) for row in self.views[views, positions]]
        return SparseBatch.from_rows(rows, FEATURE_COUNT), torch.from_numpy(self.labels[positions])


class Memory:
    """Checkpoints that last as long as the test."""

    def __init__(self) -> None:
        self.last: tuple[dict[str, Tensor], list[EpochResult]] = {}, []
        self.best: dict[str, Tensor] = {}

    def restore(self, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        """Restore."""
        saved, history = self.last
        for name, tensor in saved.items():
            tensors[name].detach().copy_(tensor)
        return list(history)

    def save(self, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
        """Save."""
        self.last = {name: tensor.detach().clone() for name, tensor in tensors.items()}, list(history)

    def restore_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore."""
        for name, tensor in self.best.items():
            tensors[name].detach().copy_(tensor)

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Save."""
        self.best = {name: tensor.detach().clone() for name, tensor in tensors.items()}
