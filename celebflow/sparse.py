"""Rows of features without their zeros, and the linear layer that takes them as they are.

ReLU and max-pooling leave 94 % of VGG19's features zero. With the layer's weights stored a feature after another,
a product needs only the rows of the features that a batch touches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

# Weights are worked on in blocks of 8 MB, which the processor's cache still holds when the next photograph of a batch,
# or the optimizer, comes to them.
_BLOCK_VALUES = 2**21


@dataclass(frozen=True)
class SparseRow:
    """One photograph's features without the zeros that ReLU leaves: (K,) positions, ascending, and (K,) values."""

    indices: NDArray[np.uint16]
    values: NDArray[np.float32]

    @classmethod
    def from_dense(cls, features: NDArray[np.float32]) -> "SparseRow":
        """Keep what is not zero of a vector of at most 65,536 features."""
        indices = np.flatnonzero(features)
        return cls(indices.astype(np.uint16), features[indices])


@dataclass(frozen=True)
class SparseBatch:
    """The features of B photographs: of each of the K that are not zero its row, its column and its value.

    Rows are in order.
    """

    row_count: int
    column_count: int
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def from_rows(cls, rows: list[SparseRow], column_count: int) -> "SparseBatch":
        """Stack the features of some photographs."""
        return cls(
            row_count=len(rows),
            column_count=column_count,
            rows=np.repeat(np.arange(len(rows)), [len(row.indices) for row in rows]),
            columns=np.concatenate([row.indices for row in rows], dtype=np.int64),
            values=np.concatenate([row.values for row in rows]),
        )

    def to_dense(self) -> NDArray[np.float32]:
        """Return the (B, column_count) features with their zeros."""
        dense = np.zeros((self.row_count, self.column_count), np.float32)
        dense[self.rows, self.columns] = self.values
        return dense

    def multiply(self, weight: Tensor) -> Tensor:
        """Return the (B, outputs) product with a (column_count, outputs) matrix, on its device."""
        block_size = _block_size(weight)
        blocks = self.columns // block_size
        order = np.argsort(blocks, kind="stable")
        # A bag is the part of a row that lies in one block, so that a block serves every row before the next comes.
        bags = (blocks * self.row_count + self.rows)[order]
        block_count = -(-self.column_count // block_size)
        starts = _starts(bags, block_count * self.row_count)[:-1]
        columns, values = self.columns[order], self.values[order]
        parts = _weigh(weight, columns, values, starts)
        return parts.view(block_count, self.row_count, weight.shape[1]).sum(0)

    def gradient_blocks(self, weight: Tensor, output_gradient: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the gradient of `weight` in `multiply`, some columns of the batch (rows of the weight) at a time."""
        order = np.argsort(self.columns.astype(np.uint16), kind="stable")
        rows, values = self.rows[order], self.values[order]
        starts = _starts(self.columns, self.column_count)
        block_size = _block_size(weight)
        for start in range(0, self.column_count, block_size):
            block = slice(start, min(start + block_size, self.column_count))
            used = slice(starts[block.start], starts[block.stop])
            block_starts = starts[block] - used.start
            yield block, _weigh(output_gradient, rows[used], values[used], block_starts)


def _block_size(weight: Tensor) -> int:
    return max(1, _BLOCK_VALUES // weight.shape[1])


def _starts(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return where each of the numbers 0 to count - 1 would start if they were sorted, and where the last ends."""
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(numbers, minlength=count), out=starts[1:])
    return starts


def _weigh(matrix: Tensor, rows: NDArray[np.int64], weights: NDArray[np.float32], starts: NDArray[np.int64]) -> Tensor:
    """Return sums of weighted rows of `matrix`, one sum for each start."""
    indices, offsets, factors = (torch.from_numpy(array).to(matrix.device) for array in (rows, starts, weights))
    return embedding_bag(indices, matrix, offsets, mode="sum", per_sample_weights=factors)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, layer: "SparseLinear", batch: SparseBatch) -> Tensor:
        ctx.layer, ctx.batch = layer, batch
        return batch.multiply(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.layer.gradient_factors = ctx.batch, gradients[0]
        return None, None, None


class SparseLinear(nn.Module):
    """A linear layer on sparse rows: (B, inputs) → (B, outputs).

    `weight` is (inputs, outputs), so that a feature's weights lie together. A backward pass leaves the gradient of
    `weight` as the two factors it is the product of, for `gradient_blocks`; the whole would be as large as the weight.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5  # as nn.Linear draws its first weights
        self.weight = nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.gradient_factors: tuple[SparseBatch, Tensor] | None = None

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return the layer's (B, outputs)."""
        product: Tensor = _Product.apply(self.weight, self, batch)
        return product + self.bias

    def gradient_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the gradient of `weight` that the last backward pass found, some of its rows at a time."""
        if self.gradient_factors is None:
            raise RuntimeError("no backward pass has come to this layer")
        batch, output_gradient = self.gradient_factors
        self.gradient_factors = None
        yield from batch.gradient_blocks(self.weight.detach(), output_gradient)
