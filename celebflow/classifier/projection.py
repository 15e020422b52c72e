"""The photographs of train → a preprocessor that projects to their principal components."""

import numpy as np
import torch

from celebflow.classifier.components import Components, fit_components
from celebflow.classifier.fits import NOT_KEPT, Fits
from celebflow.classifier.preprocessing import Preprocessor, measure_scale
from celebflow.classifier.vectors import Vectors, draw_sample, list_views
from celebflow.features.store import LabeledFeatures
from celebflow.params import PreprocessingParams

MAX_VIEWS = 6400  # whose inner products are in memory: 160 MB


def fit_preprocessor(
    train: LabeledFeatures, settings: PreprocessingParams, seed: int, fits: Fits = NOT_KEPT
) -> Preprocessor:
    """Fit scale and projection to all views of `train`, or recall those that were fitted before.

    The projection is to principal components. Where there are very many views, they are fitted to a sample that is
    drawn by `seed`. There are fewer components than views.
    """
    feature_count = train.features.origin.feature_count
    if not settings.standardize and settings.pca_components is None:
        return Preprocessor(settings, feature_count)
    determinants = settings, seed, train.rows.tolist()
    state = fits.recall("The preprocessor", determinants, lambda: dict(_fit(train, settings, seed).state_dict()))
    if settings.pca_components is not None:
        settings = settings.model_copy(update={"pca_components": len(state["projection.bias"])})
    preprocessor = Preprocessor(settings, feature_count)
    preprocessor.load_state_dict(state, assign=True)
    return preprocessor


@torch.no_grad()
def _fit(train: LabeledFeatures, settings: PreprocessingParams, seed: int) -> Preprocessor:
    unprojected = settings.model_copy(update={"pca_components": None})
    preprocessor = Preprocessor(unprojected, train.features.origin.feature_count)
    if settings.standardize:
        preprocessor.scale.copy_(torch.from_numpy(measure_scale(preprocessor, train)))
    if settings.pca_components is None:
        return preprocessor
    views = list_views(preprocessor, train.features, train.rows)
    vectors = views.select(draw_sample(len(views), max(settings.pca_components + 1, MAX_VIEWS), seed))
    return make_projection(vectors, fit_components(vectors.compute_products(), settings.pca_components, seed))


@torch.no_grad()
def make_projection(vectors: Vectors, components: Components) -> Preprocessor:
    """Return a preprocessor that projects features to components which were fitted to `vectors`."""
    count = components.weights.shape[1]
    settings = vectors.preprocessor.settings.model_copy(update={"pca_components": count})
    projecting = Preprocessor(settings, vectors.preprocessor.feature_count)
    if settings.standardize:
        projecting.scale.copy_(vectors.preprocessor.scale)
    assert projecting.projection is not None  # noqa: S101 - the settings have components
    shift = components.shift.copy()
    weights = components.weights.astype(np.float32)
    for columns, dense in vectors.read_columns("finding components"):
        weight = dense.T @ weights
        projecting.projection.weight[columns] = torch.from_numpy(weight)
        shift -= dense.mean(axis=0, dtype=np.float64) @ weight
    projecting.projection.bias.copy_(torch.from_numpy(shift))
    return projecting
