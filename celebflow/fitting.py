"""What scikit-learn fits to features: their scale and projection, and classifiers that are linear."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from celebflow.classifier import Classifier
from celebflow.features import LabelledFeatures
from celebflow.params import TrainParams
from celebflow.sparse import SparseBatch

_BATCH_SIZE = 64
# Principal components are those of so many values in memory, 1 GB: of about 10,000 views of 25,088 features.
_MOST_PCA_VALUES = 2**28


@torch.no_grad()
def fit_feature_transform(classifier: Classifier, train: LabelledFeatures, seed: int) -> None:
    """Set the scale and the projection of a classifier's features to those of all views of `train`.

    The projection is the principal components of Halko et al.'s randomised method (2011); where there are very many
    photographs, of a sample that follows from the seed.
    """
    transform = classifier.card.feature_transform
    if transform.standardise:
        classifier.scale.copy_(torch.from_numpy(_measure_scale(classifier, train)))
    if transform.components is not None:
        from sklearn.decomposition import PCA

        sample = _sample_dense(classifier, train, seed)
        pca = PCA(transform.components, svd_solver="randomized", random_state=seed, copy=False).fit(sample)
        classifier.first.weight.copy_(torch.from_numpy(pca.components_.T))
        classifier.first.bias.copy_(torch.from_numpy(-(pca.components_ @ pca.mean_)))


def fit_discriminant(classifier: Classifier, train: LabelledFeatures, params: TrainParams) -> Classifier:
    """Return a classifier that is one linear layer, fitted to all views of `train`; its projection is part of that.

    "lda" is linear discriminant analysis with a covariance shrunk towards a multiple of the identity (Friedman,
    1989), "logistic" is multinomial logistic regression with an L2 penalty.
    """
    inputs, labels = _project(classifier, train)
    model = _make_model(params).fit(inputs, labels)
    weight, bias = model.coef_.T, model.intercept_  # (inputs, people), (people,)
    if weight.shape[1] == 1:  # of two persons, scikit-learn tells only how the second differs from the first
        weight, bias = np.hstack([0 * weight, weight]), np.append(0.0, bias)
    if classifier.card.feature_transform.components is not None:
        projection, shift = (tensor.detach().numpy().astype(np.float64) for tensor in classifier.first.parameters())
        weight, bias = projection @ weight, shift @ weight + bias
    transform = replace(classifier.card.feature_transform, components=None)
    fitted = Classifier(replace(classifier.card, hidden_units=(), feature_transform=transform))
    with torch.no_grad():
        if transform.standardise:
            fitted.scale.copy_(classifier.scale)
        fitted.first.weight.copy_(torch.from_numpy(weight))
        fitted.first.bias.copy_(torch.from_numpy(bias))
    return fitted


def _make_model(params: TrainParams) -> Any:
    if params.classifier == "lda":
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=params.lda_shrinkage)
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=params.logistic_inverse_strength, max_iter=1000)


@torch.no_grad()
def _project(classifier: Classifier, train: LabelledFeatures) -> tuple[Any, NDArray[np.int64]]:
    """Return the (N · V, inputs) views of N photographs as the classifier's layers take them, and their labels.

    Without a projection they are a sparse matrix of scipy's.
    """
    from scipy import sparse

    parts = []
    for batch in _iterate(classifier, train, "projecting"):
        if classifier.card.feature_transform.components is not None:
            parts.append(classifier.first(batch).numpy().astype(np.float64))
        else:
            shape = batch.row_count, batch.column_count
            values = batch.values.astype(np.float64)  # in which lbfgs does not stop too early
            parts.append(sparse.csr_matrix((values, (batch.rows, batch.columns)), shape))
    labels = np.concatenate([train.labels] * train.view_count)
    return (np.concatenate(parts) if isinstance(parts[0], np.ndarray) else sparse.vstack(parts, "csr")), labels


def _measure_scale(classifier: Classifier, train: LabelledFeatures) -> NDArray[np.float32]:
    """Return what each feature is multiplied by to have variance 1; where it never changes, 1."""
    sums, squares = np.zeros((2, classifier.first.weight.shape[0]))
    for batch in _iterate(classifier, train, "measuring"):
        sums += np.bincount(batch.columns, batch.values, len(sums))
        squares += np.bincount(batch.columns, np.square(batch.values, dtype=np.float64), len(sums))
    count = len(train) * train.view_count
    variances = squares / count - (sums / count) ** 2
    constant = variances <= 1e-12 * np.maximum(squares / count, np.finfo(np.float64).tiny)
    return np.where(constant, 1, np.where(constant, 1, variances) ** -0.5).astype(np.float32)


def _sample_dense(classifier: Classifier, train: LabelledFeatures, seed: int) -> NDArray[np.float32]:
    feature_count = classifier.first.weight.shape[0]
    total = len(train) * train.view_count
    most = max(classifier.card.feature_transform.components or 1, _MOST_PCA_VALUES // feature_count)
    order = np.random.default_rng(seed).permutation(total)[:most] if total > most else np.arange(total)
    sample = np.empty((len(order), feature_count), np.float32)
    for start in range(0, len(order), _BATCH_SIZE):
        views, positions = np.divmod(order[start : start + _BATCH_SIZE], len(train))
        batch, _ = train.batch(positions, views)
        sample[start : start + _BATCH_SIZE] = classifier.prepare(batch).to_dense()
    return sample


def _iterate(classifier: Classifier, train: LabelledFeatures, description: str) -> Iterator[SparseBatch]:
    """Yield all views of all photographs, prepared for the first layer, one view after the other."""
    with tqdm(desc=description, total=len(train) * train.view_count, unit="view", disable=None) as bar:
        for view in range(train.view_count):
            for start in range(0, len(train), _BATCH_SIZE):
                batch, _ = train.batch(np.arange(start, min(start + _BATCH_SIZE, len(train))), view)
                yield classifier.prepare(batch)
                bar.update(batch.row_count)
