"""Inner products of photographs → their principal components: a small problem where photographs are few."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from celebflow.classifier.calibration import FloatArray

_MAX_EXACT = 2000  # photographs: the exact decomposition takes a second for so many, and grows with their cube
_POWER_ITERATIONS = 4  # of the randomized decomposition


@dataclass(frozen=True)
class Components:
    """The first C principal components of N photographs, or another basis of them, as weights of these photographs.

    `weights` (N, C) turn a photograph's inner products with the N into its coordinates. `means` (N,) are the N
    photographs' mean inner products, which center them, and `shift` (C,) is added to the coordinates.
    """

    weights: FloatArray
    means: FloatArray
    shift: FloatArray

    def project(self, products: NDArray[np.floating]) -> FloatArray:
        """Turn the (M, N) inner products of M photographs with the N into (M, C) coordinates."""
        coordinates: FloatArray = (products - self.means) @ self.weights + self.shift
        return coordinates

    def change_basis(self, mean: FloatArray, basis: FloatArray) -> "Components":
        """Return what projects to (coordinates - mean) @ basis, of a (C,) mean and a (C, D) basis."""
        return Components(self.weights @ basis, self.means, (self.shift - mean) @ basis)


def fit_components(products: NDArray[np.floating], count: int, seed: int) -> Components:
    """Fit up to `count` components to N photographs, of which `products` are the (N, N) inner products.

    Principal components follow from inner products alone (Schölkopf et al., 1998, for a linear kernel). Of many
    photographs, the largest are found by the randomized method of Halko et al. (2011), seeded by `seed`. There are
    fewer components than photographs.
    """
    centered = products.astype(np.float64)
    means = centered.mean(axis=0)
    total_mean = means.mean()
    # In place, since each copy of it takes 800 MB for 10,000 photographs.
    centered -= means
    centered -= means[:, None]
    centered += total_mean
    count = min(count, len(products) - 1)
    vectors, values = _decompose(centered, count, seed)
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), range(count)])
    kept = values > values[0] * np.finfo(np.float32).eps  # those of copies of photographs hold nothing
    weights = vectors[:, kept] / np.sqrt(values[kept])
    return Components(weights - weights.mean(axis=0), means, np.zeros(weights.shape[1]))


def _decompose(matrix: FloatArray, count: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return the largest eigenvectors (N, count) and eigenvalues of a symmetric matrix without negative ones."""
    if len(matrix) <= _MAX_EXACT:
        values, vectors = eigh(matrix, subset_by_index=[len(matrix) - count, len(matrix) - 1])
        return vectors[:, ::-1], values[::-1]
    from sklearn.utils.extmath import randomized_svd

    vectors, values, _ = randomized_svd(matrix, count, n_iter=_POWER_ITERATIONS, random_state=seed)
    return vectors, values
