"""Photographs → principal components, from the matrix of their inner products, which is small where they are few."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from tqdm import tqdm

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.features.store import Features

_BLOCK_ROWS = 512
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


def compute_products(preprocessor: Preprocessor, features: Features, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the (N, N) inner products of the photographs in N rows, each the mean of its normalized views."""
    count = len(rows)
    products = np.empty((count, count), np.float32)
    block_count = -(-count // _BLOCK_ROWS)
    with tqdm(
        desc="comparing photographs", total=block_count * (block_count + 1) // 2, unit="block", disable=None
    ) as bar:
        for left, first in average_views(preprocessor, features, rows):
            products[left, left] = first @ first.T
            bar.update()
            for right, second in average_views(preprocessor, features, rows[left.stop :]):
                place = slice(left.stop + right.start, left.stop + right.stop)
                products[left, place] = first @ second.T
                products[place, left] = products[left, place].T
                bar.update()
    return products


def average_views(
    preprocessor: Preprocessor, features: Features, rows: NDArray[np.int64]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield blocks of the photographs in `rows`: their places in it, and their dense (block, features) vectors."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        total = np.zeros((len(block), preprocessor.feature_count), np.float32)
        for view in range(features.view_count):
            total += preprocessor.normalize(features.gather(block, view)).to_dense()
        yield slice(start, start + len(block)), total / np.float32(features.view_count)


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


@torch.no_grad()
def make_projection(
    preprocessor: Preprocessor, features: Features, rows: NDArray[np.int64], components: Components
) -> Preprocessor:
    """Return a preprocessor that projects features to components which were fitted to the photographs in `rows`."""
    count = components.weights.shape[1]
    settings = preprocessor.settings.model_copy(update={"pca_components": count})
    projecting = Preprocessor(settings, preprocessor.feature_count)
    if settings.standardize:
        projecting.scale.copy_(preprocessor.scale)
    weight = np.zeros((preprocessor.feature_count, count))
    mean = np.zeros(preprocessor.feature_count)
    for places, block in average_views(preprocessor, features, rows):
        weight += block.T.astype(np.float64) @ components.weights[places]
        mean += block.sum(axis=0, dtype=np.float64) / len(rows)
    assert projecting.projection is not None  # noqa: S101 - the settings have components
    projecting.projection.weight.copy_(torch.from_numpy(weight))
    projecting.projection.bias.copy_(torch.from_numpy(components.shift - mean @ weight))
    return projecting
