"""Sparse rows have the values of dense ones; their products are tested with the layer that uses them."""

import numpy as np
import pytest

from celebflow.features.sparse import SparseBatch, SparseRow

MAX_COUNT = 65_536  # what 16-bit positions can address


def test_rows_without_zeros_have_the_features() -> None:
    dense = np.zeros(25088, np.float32)
    dense[[0, 7, 25087]] = [1.5, 1e-30, 3]
    row = SparseRow.from_dense(dense)
    assert (row.indices.tolist(), row.values.tolist()) == ([0, 7, 25087], dense[[0, 7, 25087]].tolist())
    np.testing.assert_array_equal(SparseBatch.from_rows([row], 25088).to_dense(), dense[None])


def test_as_many_features_as_positions_can_address_are_accepted() -> None:
    dense = np.zeros(MAX_COUNT, np.float32)
    dense[[0, MAX_COUNT - 1]] = [1, 2]
    row = SparseRow.from_dense(dense)
    assert row.indices.tolist() == [0, MAX_COUNT - 1]
    np.testing.assert_array_equal(SparseBatch.from_rows([row], MAX_COUNT).to_dense(), dense[None])


def test_more_features_than_positions_can_address_are_refused() -> None:
    with pytest.raises(ValueError, match="65537 features.*65536"):
        SparseRow.from_dense(np.zeros(MAX_COUNT + 1, np.float32))
    row = SparseRow.from_dense(np.ones(4, np.float32))
    with pytest.raises(ValueError, match="65537 features.*65536"):
        SparseBatch.from_rows([row], MAX_COUNT + 1)
