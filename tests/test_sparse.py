"""Sparse rows give the same products and gradients as dense ones."""

import numpy as np
import pytest
import torch
from torch import nn

from celebflow import sparse
from celebflow.sparse import SparseBatch, SparseLinear, SparseRow


def _draw_rows(count: int, inputs: int) -> list[SparseRow]:
    random = np.random.default_rng(0)
    dense = random.random((count, inputs), np.float32) * (random.random((count, inputs)) < 0.1)
    dense[1] = 0  # a photograph without any feature
    dense[:, 5:300] = 0  # features that no photograph has
    return [SparseRow.from_dense(row) for row in dense]


def test_rows_without_zeros_hold_the_features() -> None:
    dense = np.zeros(25088, np.float32)
    dense[[0, 7, 25087]] = [1.5, 1e-30, 3]
    row = SparseRow.from_dense(dense)
    assert (row.indices.tolist(), row.values.tolist()) == ([0, 7, 25087], dense[[0, 7, 25087]].tolist())
    np.testing.assert_array_equal(SparseBatch.from_rows([row], 25088).to_dense(), dense[None])


@pytest.mark.parametrize("outputs", [1, 31, 200])
def test_layer_and_its_gradients_are_those_of_a_dense_layer(outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_BLOCK_VALUES", 20_000)  # several blocks, the last of them short
    batch = SparseBatch.from_rows(_draw_rows(6, 1001), 1001)
    ours, theirs = SparseLinear(1001, outputs), nn.Linear(1001, outputs)
    theirs.load_state_dict({"weight": ours.weight.detach().T, "bias": ours.bias.detach()})
    results = ours(batch), theirs(torch.from_numpy(batch.to_dense()))
    torch.testing.assert_close(*results)
    for result in results:
        torch.autograd.backward(result.square().sum())
    assert theirs.weight.grad is not None and ours.weight.grad is None
    gradient = torch.full_like(ours.weight, torch.nan)
    for block, part in ours.gradient_blocks():
        assert gradient[block].isnan().all(), "no block comes twice"
        gradient[block] = part
    torch.testing.assert_close(gradient, theirs.weight.grad.T)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_a_gradient_is_given_once() -> None:
    layer = SparseLinear(1001, 3)
    with pytest.raises(RuntimeError, match="no backward pass"):
        list(layer.gradient_blocks())
    torch.autograd.backward(layer(SparseBatch.from_rows(_draw_rows(6, 1001), 1001)).sum())
    assert list(layer.gradient_blocks())
    with pytest.raises(RuntimeError, match="no backward pass"):
        list(layer.gradient_blocks())


def test_first_weights_are_drawn_as_torch_draws_them() -> None:
    layer = SparseLinear(25088, 64)
    bound = 25088**-0.5
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= bound
    assert layer.weight.detach().std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
