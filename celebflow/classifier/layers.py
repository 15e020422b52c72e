"""The classifier's linear layers: the gradient of a weight is never whole, but made in blocks that fit the cache."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from celebflow.features.sparse import SparseBatch, split_rows


class BlockwiseLinear(nn.Module):
    """A linear layer with weight and bias drawn as nn.Linear draws them.

    `weight` is (outputs, inputs), or with `transposed` (inputs, outputs).

    Only NetworkAdam can train the weight. A backward pass gives the bias its gradient as usual, but leaves the
    weight's `grad` at None, since the gradient would be as large as the weight. Its blocks are computed only when
    `gradient_blocks` is iterated over. Other optimizers skip the weight; therefore a second backward pass raises
    RuntimeError when nothing has used the gradient of the first.
    """

    def __init__(self, inputs: int, outputs: int, *, transposed: bool = False) -> None:
        super().__init__()
        bound = inputs**-0.5
        shape = (inputs, outputs) if transposed else (outputs, inputs)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.pending_gradient: Iterator[tuple[slice, Tensor]] | None = None

    def gradient_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Return an iterator over the gradient of `weight` from the last backward pass, some of its rows at a time.

        The next block may overwrite the memory of the one before. Raises RuntimeError without a backward pass since
        the last call.
        """
        if self.pending_gradient is None:
            raise RuntimeError("no backward pass has reached this layer")
        blocks, self.pending_gradient = self.pending_gradient, None
        return blocks

    def keep_gradient(self, blocks: Iterator[tuple[slice, Tensor]]) -> None:
        """Keep the gradient of a backward pass; raise RuntimeError when the previous one was never used."""
        if self.pending_gradient is not None:
            raise RuntimeError(
                "the gradient of a blockwise layer was never used: train it with NetworkAdam; other optimizers do "
                "not see it"
            )
        self.pending_gradient = blocks


class SparseLinear(BlockwiseLinear):
    """A linear layer on sparse rows: (B, inputs) → (B, outputs).

    `weight` is (inputs, outputs), so that the weights of one feature are contiguous.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, transposed=True)

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return the layer's (B, outputs)."""
        product: Tensor = _SparseProduct.apply(self.weight, self, batch)
        return product + self.bias


class DenseLinear(BlockwiseLinear):
    """A linear layer: (B, inputs) → (B, outputs). `weight` is (outputs, inputs), as in nn.Linear."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's (B, outputs)."""
        product: Tensor = _DenseProduct.apply(inputs, self.weight, self)
        return product + self.bias

    def multiply_factors(self, inputs: Tensor, output_gradient: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the gradient of `weight`, the product of the output's (B, outputs) gradient and (B, inputs)."""
        buffer = None  # shared by all blocks: torch.mm would allocate new memory for each
        for block in split_rows(*self.weight.shape):
            factor = output_gradient[:, block].T
            if buffer is None:
                buffer = inputs.new_empty(len(factor), inputs.shape[1])
            yield block, torch.mm(factor, inputs, out=buffer[: len(factor)])


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, layer: SparseLinear, batch: SparseBatch) -> Tensor:
        ctx.layer = layer
        ctx.batch = batch
        return batch.multiply(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.layer.keep_gradient(ctx.batch.gradient_blocks(gradients[0]))
        return None, None, None


class _DenseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, layer: DenseLinear) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(inputs, weight)
        return inputs @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        inputs, weight = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            ctx.layer.keep_gradient(ctx.layer.multiply_factors(inputs.detach(), gradients[0]))
        return gradients[0] @ weight, None, None
