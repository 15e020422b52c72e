"""Layers whose gradients come in blocks compute what torch's own layers compute."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from celebflow.classifier.layers import BlockwiseLinear, DenseLinear, SparseLinear
from celebflow.features import sparse
from celebflow.features.sparse import SparseBatch, SparseRow


def _draw_rows(count: int, inputs: int) -> list[SparseRow]:
    random = np.random.default_rng(0)
    dense = random.random((count, inputs), np.float32) * (random.random((count, inputs)) < 0.1)
    dense[1] = 0  # a photograph without features
    dense[:, 5:300] = 0  # columns that no photograph uses
    return [SparseRow.from_dense(row) for row in dense]


def _join_blocks(layer: BlockwiseLinear) -> Tensor:
    gradient = torch.full_like(layer.weight, torch.nan, requires_grad=False)
    for block, part in layer.gradient_blocks():
        assert gradient[block].isnan().all(), "no block comes twice"
        gradient[block] = part
    return gradient


@pytest.mark.parametrize("outputs", [1, 31, 200])
def test_sparse_layer_and_its_gradients_equal_torchs(outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_BLOCK_VALUES", 20_000)  # several blocks, the last of them short
    monkeypatch.setattr(sparse, "_PRODUCT_BLOCK_VALUES", 30_000)
    batch = SparseBatch.from_rows(_draw_rows(6, 1001), 1001)
    ours, theirs = SparseLinear(1001, outputs), nn.Linear(1001, outputs)
    theirs.load_state_dict({"weight": ours.weight.detach().T, "bias": ours.bias.detach()})
    results = ours(batch), theirs(torch.from_numpy(batch.to_dense()))
    torch.testing.assert_close(*results)
    for result in results:
        torch.autograd.backward(result.square().sum())
    assert theirs.weight.grad is not None and ours.weight.grad is None
    torch.testing.assert_close(_join_blocks(ours), theirs.weight.grad.T)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


@pytest.mark.parametrize("outputs", [1, 31, 200])
def test_dense_layer_and_its_gradients_equal_torchs(outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_BLOCK_VALUES", 2000)  # several blocks, the last of them short
    ours, theirs = DenseLinear(50, outputs), nn.Linear(50, outputs)
    theirs.load_state_dict(ours.state_dict())
    gradients = []
    for layer in (ours, theirs):
        inputs = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
        torch.autograd.backward(layer(inputs).square().sum())
        gradients.append(inputs.grad)
    torch.testing.assert_close(*gradients)
    assert theirs.weight.grad is not None and ours.weight.grad is None
    torch.testing.assert_close(_join_blocks(ours), theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_a_gradient_can_be_used_once() -> None:
    layer = SparseLinear(1001, 3)
    with pytest.raises(RuntimeError, match="no backward pass"):
        list(layer.gradient_blocks())
    torch.autograd.backward(layer(SparseBatch.from_rows(_draw_rows(6, 1001), 1001)).sum())
    assert list(layer.gradient_blocks())
    with pytest.raises(RuntimeError, match="no backward pass"):
        list(layer.gradient_blocks())


@pytest.mark.parametrize("kind", [SparseLinear, DenseLinear])
def test_a_weight_that_torchs_optimizer_skips_raises_at_the_second_backward_pass(
    kind: type[SparseLinear] | type[DenseLinear],
) -> None:
    batch = SparseBatch.from_rows(_draw_rows(6, 1001), 1001)
    inputs = batch if kind is SparseLinear else torch.from_numpy(batch.to_dense())
    layer = kind(1001, 3)
    optimizer = torch.optim.Adam(layer.parameters())
    before = layer.weight.detach().clone()
    torch.autograd.backward(layer(inputs).sum())
    optimizer.step()
    assert torch.equal(layer.weight, before), "torch's optimizer does not see the gradient"
    with pytest.raises(RuntimeError, match="NetworkAdam"):
        torch.autograd.backward(layer(inputs).sum())


def test_first_weights_are_drawn_as_torch_draws_them() -> None:
    layer = SparseLinear(25088, 64)
    bound = 25088**-0.5
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= bound
    assert layer.weight.detach().std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
