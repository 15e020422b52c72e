"""Sparse rows hold what dense ones do; their products are tested with the layer that takes them."""

import numpy as np

from celebflow.features.sparse import SparseBatch, SparseRow


def test_rows_without_zeros_hold_the_features() -> None:
    dense = np.zeros(25088, np.float32)
    dense[[0, 7, 25087]] = [1.5, 1e-30, 3]
    row = SparseRow.from_dense(dense)
    assert (row.indices.tolist(), row.values.tolist()) == ([0, 7, 25087], dense[[0, 7, 25087]].tolist())
    np.testing.assert_array_equal(SparseBatch.from_rows([row], 25088).to_dense(), dense[None])
