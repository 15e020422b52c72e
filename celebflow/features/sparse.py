"""Rows of features without their zeros, and their products with a layer's weights.

After ReLU and max-pooling, 94 % of VGG19's features are zero. Weights are stored with one row per feature, so that a
product reads only the rows of the features that are not zero.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

# Gradients are computed in blocks of 8 MB. Such a block is still in the processor's cache when the optimizer reads it,
# together with as much of the weights and of its two moments.
_BLOCK_VALUES = 2**21
# Products read weights in blocks of 16 MB, which are still in the cache for the next photograph of a batch.
_PRODUCT_BLOCK_VALUES = 2**22


@dataclass(frozen=True)
class SparseRow:
    """One photograph's features without zeros: (K,) positions in ascending order, and (K,) values."""

    indices: NDArray[np.unsignedinteger]
    values: NDArray[np.float32]

    @classmethod
    def from_dense(cls, features: NDArray[np.float32]) -> "SparseRow":
        """Drop the zeros of a vector of features."""
        indices = np.flatnonzero(features)
        return cls(indices.astype(choose_position_type(len(features))), features[indices])

    @classmethod
    def join(cls, rows: Sequence["SparseRow"], feature_count: int) -> "SparseRow":
        """Put the features of several rows side by side, all together `feature_count`, of which each has as many."""
        if len(rows) == 1:
            return rows[0]
        width = feature_count // len(rows)
        indices = np.concatenate([row.indices + np.int64(number * width) for number, row in enumerate(rows)])
        return cls(indices.astype(choose_position_type(feature_count)), np.concatenate([row.values for row in rows]))


def choose_position_type(feature_count: int) -> np.dtype[np.unsignedinteger]:
    """Return the type in which positions of features are stored: 16 bits, where they are enough for all."""
    return np.dtype(np.uint16 if feature_count <= 2**16 else np.uint32)


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
        """Stack the features of B photographs."""
        numbers = np.repeat(np.arange(len(rows)), [len(row.indices) for row in rows])
        columns = np.concatenate([row.indices for row in rows], dtype=np.int64)
        return cls(len(rows), column_count, numbers, columns, np.concatenate([row.values for row in rows]))

    def square_root(self) -> "SparseBatch":
        """Return a batch with the square root of each feature; none may be negative."""
        return replace(self, values=np.sqrt(self.values))

    def sum_squares(self) -> NDArray[np.float64]:
        """Return the (B,) sums of squares of the rows."""
        return np.bincount(self.rows, np.square(self.values, dtype=np.float64), self.row_count).astype(np.float64)

    def l2_normalize(self, squares: NDArray[np.float64] | None = None) -> "SparseBatch":
        """Return a batch with each row divided by its L2 norm; an empty row stays empty.

        Where these are not all columns, `squares` (B,) are the sums of squares of all.
        """
        if squares is None:
            squares = self.sum_squares()
        factors = 1 / np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))
        return replace(self, values=self.values * factors.astype(np.float32)[self.rows])

    def scale(self, factors: NDArray[np.float32]) -> "SparseBatch":
        """Return a batch with each column multiplied by its factor in (column_count,)."""
        return replace(self, values=self.values * factors[self.columns])

    def to_dense(self) -> NDArray[np.float32]:
        """Return the (B, column_count) features, including zeros."""
        dense = np.zeros((self.row_count, self.column_count), np.float32)
        dense[self.rows, self.columns] = self.values
        return dense

    def add_up(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sums of the rows times their (B, outputs) weights, (column_count, outputs)."""
        from scipy import sparse  # as torch below

        # With numbers of 32 bits, SciPy copies neither.
        shape = self.row_count, self.column_count
        starts = _starts(self.rows, self.row_count).astype(np.int32)
        matrix = sparse.csr_array((self.values, self.columns.astype(np.int32), starts), shape)
        sums: NDArray[np.float32] = matrix.T @ weights
        return sums

    def multiply(self, weight: "Tensor") -> "Tensor":
        """Return the (B, outputs) product with a (column_count, outputs) matrix, on the matrix's device."""
        block_size = max(1, _PRODUCT_BLOCK_VALUES // weight.shape[1])
        if block_size >= self.column_count:
            return _weigh(weight, self.columns, self.values, _starts(self.rows, self.row_count)[:-1])
        blocks = self.columns // block_size
        order = np.argsort(blocks.astype(np.uint16), kind="stable")  # NumPy sorts 16-bit numbers by radix: fast
        # A bag is the part of a row that lies in one block: all rows use a block before the next block is read.
        bags = (blocks * self.row_count + self.rows)[order]
        block_count = -(-self.column_count // block_size)
        starts = _starts(bags, block_count * self.row_count)[:-1]
        parts = _weigh(weight, self.columns[order], self.values[order], starts)
        return parts.view(block_count, self.row_count, weight.shape[1]).sum(0)

    def gradient_blocks(self, output_gradient: "Tensor") -> Iterator[tuple[slice, "Tensor"]]:
        """Yield the gradient of the matrix in `multiply`, block of rows by block of rows."""
        order = np.argsort(self.columns.astype(choose_position_type(self.column_count)), kind="stable")
        rows, values = self.rows[order], self.values[order]
        starts = _starts(self.columns, self.column_count)
        for block in split_rows(self.column_count, output_gradient.shape[1]):
            used = slice(starts[block.start], starts[block.stop])
            block_starts = starts[block] - used.start
            yield block, _weigh(output_gradient, rows[used], values[used], block_starts)


def split_rows(row_count: int, column_count: int) -> Iterator[slice]:
    """Yield blocks of the rows of a matrix of two million values each, a row at least.

    Gradients are computed in them, and whatever would take too much memory as a whole.
    """
    block_size = max(1, _BLOCK_VALUES // column_count)
    for start in range(0, row_count, block_size):
        yield slice(start, min(start + block_size, row_count))


def _starts(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return where each of the numbers 0 to count - 1 starts among the sorted `numbers`, and where the last ends."""
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(numbers, minlength=count), out=starts[1:])
    return starts


def _weigh(
    matrix: "Tensor", rows: NDArray[np.int64], weights: NDArray[np.float32], starts: NDArray[np.int64]
) -> "Tensor":
    """Return sums of weighted rows of `matrix`, one sum per start."""
    import torch  # extract, which only stores rows, starts in a third of the time without it
    from torch.nn.functional import embedding_bag

    indices, offsets, factors = (torch.from_numpy(array).to(matrix.device) for array in (rows, starts, weights))
    return embedding_bag(indices, matrix, offsets, mode="sum", per_sample_weights=factors)
