"""Sparse rows have the values of dense ones; their products are tested with the layer that uses them."""

import numpy as np
import pytest
import torch

from celebflow.features.sparse import SparseBatch, SparseRow

MAX_SHORT = 65_536  # what 16-bit positions can address


def test_rows_without_zeros_have_the_features() -> None:
    dense = np.zeros(25088, np.float32)
    dense[[0, 7, 25087]] = [1.5, 1e-30, 3]
    row = SparseRow.from_dense(dense)
    assert (row.indices.tolist(), row.values.tolist()) == ([0, 7, 25087], dense[[0, 7, 25087]].tolist())
    np.testing.assert_array_equal(SparseBatch.from_rows([row], 25088).to_dense(), dense[None])


@pytest.mark.parametrize(("count", "bits"), [(MAX_SHORT, 16), (MAX_SHORT + 1, 32), (3 * MAX_SHORT, 32)])
def test_positions_have_as_few_bits_as_address_all_features(count: int, bits: int) -> None:
    dense = np.zeros(count, np.float32)
    dense[[0, count - 1]] = [1, 2]
    row = SparseRow.from_dense(dense)
    assert row.indices.tolist() == [0, count - 1]
    assert row.indices.itemsize == bits // 8
    np.testing.assert_array_equal(SparseBatch.from_rows([row], count).to_dense(), dense[None])


@pytest.mark.parametrize(("width", "bits"), [(32_768, 16), (50_176, 32)])
def test_rows_side_by_side_have_the_features_of_each(width: int, bits: int) -> None:
    random = np.random.default_rng(0)
    parts = [(random.random(width) * (random.random(width) < 0.1)).astype(np.float32) for _ in range(2)]
    parts[1][-1] = 4
    joined = SparseRow.join([SparseRow.from_dense(part) for part in parts], 2 * width)
    assert joined.indices.itemsize == bits // 8
    np.testing.assert_array_equal(SparseBatch.from_rows([joined], 2 * width).to_dense()[0], np.concatenate(parts))


def test_products_and_gradients_of_more_features_than_16_bits_address_equal_those_of_dense_ones() -> None:
    random = np.random.default_rng(0)
    count = MAX_SHORT + 5000
    dense = (random.random((4, count)) * (random.random((4, count)) < 0.05)).astype(np.float32)
    batch = SparseBatch.from_rows([SparseRow.from_dense(row) for row in dense], count)
    weight, gradient = torch.from_numpy(random.random((count, 3), np.float32)), torch.ones(4, 3)
    torch.testing.assert_close(batch.multiply(weight), torch.from_numpy(dense) @ weight, rtol=1e-5, atol=1e-5)
    found = torch.cat([block for _, block in batch.gradient_blocks(gradient)])
    torch.testing.assert_close(found, torch.from_numpy(dense).T @ gradient)
