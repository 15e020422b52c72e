"""Features → what the head takes: normalized, standardized and projected, fitted on train alone."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from celebflow.classifier.layers import SparseLinear
from celebflow.features.sparse import SparseBatch
from celebflow.features.store import LabeledFeatures
from celebflow.params import PreprocessingParams

_BATCH_SIZE = 64
# The least standard deviations that are more than the network's rounding: relative to the feature's own size, which
# runtimes compute to 1e-5, and to the size of all features, which are sums in float32.
_LEAST_OF_OWN_SIZE = 1e-5
_LEAST_OF_ALL_SIZES = float(np.finfo(np.float32).eps)


class Preprocessor(nn.Module):
    """Square root, L2 normalization, standardization and projection, in this order; saved with every classifier.

    The square root of each feature keeps a few large ones from dominating (power normalization of Perronnin et al.,
    2010); L2 normalization brings each photograph's vector to length 1. Standardization scales features but does not
    center them, so that they stay sparse. The projection is to the first principal components.
    """

    scale: Tensor  # (features,), where features are standardized

    def __init__(self, settings: PreprocessingParams, feature_count: int) -> None:
        super().__init__()
        self.settings = settings
        self.feature_count = feature_count
        if settings.standardize:
            self.register_buffer("scale", torch.ones(feature_count))
        self.projection: SparseLinear | None = None
        if settings.pca_components is not None:
            self.projection = SparseLinear(feature_count, settings.pca_components).requires_grad_(False)

    @property
    def output_count(self) -> int:
        """Return how many values per photograph the head takes."""
        return self.settings.pca_components or self.feature_count

    def sum_squares(self, features: SparseBatch) -> NDArray[np.float64]:
        """Return the (N,) sums of squares by which (N, features) are normalized."""
        return (features.square_root() if self.settings.square_root else features).sum_squares()

    def normalize(self, features: SparseBatch, squares: NDArray[np.float64] | None = None) -> SparseBatch:
        """Return (N, features) as the projection takes them, still sparse.

        Where these are not all columns, `squares` (N,) is what sum_squares returns for all.
        """
        if self.settings.square_root:
            features = features.square_root()
        if self.settings.l2_normalize:
            features = features.l2_normalize(squares)
        if self.settings.standardize:
            features = features.scale(self.scale.cpu().numpy())
        return features

    def forward(self, features: SparseBatch) -> SparseBatch | Tensor:
        """Return (N, features) as the head takes them: sparse, or (N, components) where they are projected."""
        normalized = self.normalize(features)
        return normalized if self.projection is None else self.projection(normalized)


def normalize_all(preprocessor: Preprocessor, train: LabeledFeatures, description: str) -> Iterator[SparseBatch]:
    """Yield the normalized features of all views of all photographs, one view after the other, in batches."""
    with tqdm(desc=description, total=len(train) * train.view_count, unit="view", disable=None) as bar:
        for view in range(train.view_count):
            for start in range(0, len(train), _BATCH_SIZE):
                features, _ = train.gather(np.arange(start, min(start + _BATCH_SIZE, len(train))), view)
                yield preprocessor.normalize(features)
                bar.update(features.row_count)


def measure_scale(preprocessor: Preprocessor, train: LabeledFeatures) -> NDArray[np.float32]:
    """Return the (features,) factors that give each feature variance 1; one that hardly varies has factor 1."""
    sums = np.zeros(preprocessor.feature_count)
    squares = np.zeros(preprocessor.feature_count)
    for batch in normalize_all(preprocessor, train, "measuring"):
        sums += np.bincount(batch.columns, batch.values, len(sums))
        squares += np.bincount(batch.columns, np.square(batch.values, dtype=np.float64), len(sums))
    count = len(train) * train.view_count
    means_of_squares = squares / count
    variances = means_of_squares - (sums / count) ** 2
    least = np.maximum(_LEAST_OF_OWN_SIZE**2 * means_of_squares, _LEAST_OF_ALL_SIZES**2 * means_of_squares.mean())
    least = np.maximum(least, float(np.finfo(np.float32).tiny) ** 2)  # below it, float32 does not hold the factor
    variances[variances <= least] = 1
    scale: NDArray[np.float64] = variances**-0.5
    return scale.astype(np.float32)
