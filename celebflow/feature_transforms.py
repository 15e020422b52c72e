"""What is done to features before a classifier's first layer sees them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.params import FeatureTransformParams
from celebflow.sparse import SparseBatch


@dataclass(frozen=True)
class FeatureTransform:
    """Square root, unit length, scale and projection, in this order; saved with every classifier.

    The square root of each feature evens out a few that are large (power normalisation of Perronnin et al., 2010);
    unit length (L2) makes photographs comparable. Features are scaled but not centred, so that they stay sparse.
    `components` is the number of principal components that they are projected to, None for no projection. The scale
    and the projection themselves stand among the classifier's weights.
    """

    square_root: bool
    unit_length: bool
    standardise: bool
    components: int | None

    @classmethod
    def from_params(cls, params: FeatureTransformParams, example_count: int) -> "FeatureTransform":
        """Return what the params say, with no more components than `example_count` examples have."""
        components = params.pca_components and min(params.pca_components, max(1, example_count - 1))
        return cls(params.square_root, params.unit_length, params.standardise, components)

    def apply(self, features: SparseBatch, scale: NDArray[np.float32] | None) -> SparseBatch:
        """Return the features as the first layer takes them; `scale` has a factor for each."""
        if self.square_root:
            features = features.square_root()
        if self.unit_length:
            features = features.unit_length()
        return features if scale is None else features.scale(scale)


UNCHANGED = FeatureTransform(square_root=False, unit_length=False, standardise=False, components=None)
