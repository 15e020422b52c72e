"""Photographs of people → what compares any two photographs: components, and the two-covariance model on them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.cards import ComparisonSettings
from celebflow.classifier.checkpoints import DivergedError
from celebflow.classifier.components import Components, fit_components
from celebflow.classifier.plda import TwoCovariances, fit_two_covariances
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.vectors import Vectors
from celebflow.features.sparse import SparseBatch
from celebflow.features.store import Features
from celebflow.params import PreprocessingParams

_MODEL, _PREPROCESSOR = "model.", "preprocessor."  # begin the names of their tensors


class IndistinctPeopleError(DivergedError):
    """The photographs do not tell people apart."""


@dataclass(frozen=True)
class ComparisonModel:
    """A two-covariance model, and the components of N photographs that are its coordinates."""

    components: Components
    model: TwoCovariances

    def embed(self, products: NDArray[np.floating]) -> FloatArray:
        """Turn the (M, N) inner products of M photographs with the N into the (M, D) coordinates that scores take."""
        return self.model.equalize(self.components.project(products))


def fit_comparison_model(
    products: NDArray[np.floating], people: NDArray[np.int64], settings: ComparisonSettings
) -> ComparisonModel:
    """Fit a comparison model to N photographs: `products` (N, N) are their inner products; (N,) people count from 0.

    Raises IndistinctPeopleError when the photographs do not tell people apart.
    """
    components = fit_components(products, settings.component_count, settings.seed)
    try:
        fitted = fit_two_covariances(components.project(products), people, settings.shrinkage, settings.between_scale)
    except ValueError as error:
        raise IndistinctPeopleError(
            f"In the features of train, or of the part that is left, {error}. Choose other extract params or weights, "
            "or add photographs, and run `dvc repro`."
        ) from None
    return ComparisonModel(components.change_basis(fitted.mean, fitted.basis), fitted.model)


def divide_people(person_count: int, part_count: int, seed: int) -> NDArray[np.int64]:
    """Return the part of each of P people, (P,), so that parts of them can be left out, one after the other."""
    parts = np.empty(person_count, np.int64)
    parts[np.random.default_rng(seed).permutation(person_count)] = np.arange(person_count) % part_count
    return parts


@dataclass(frozen=True, eq=False)
class Embedder:
    """Features → the coordinates that a two-covariance model's scores take; the preprocessor projects to them."""

    preprocessor: Preprocessor
    model: TwoCovariances

    def embed(self, views: Sequence[SparseBatch]) -> FloatArray:
        """Turn the features of the V views of N photographs into (N, D) coordinates: the mean of the views'."""
        with torch.inference_mode():
            projected = torch.stack([self.preprocessor(view) for view in views]).mean(0)
        return self.model.equalize(projected.numpy().astype(np.float64))

    def embed_rows(self, features: Features, rows: NDArray[np.int64]) -> FloatArray:
        """Return the (N, D) coordinates of the photographs in these rows of the features."""
        return self.model.equalize(Vectors(self.preprocessor, features, rows).project().astype(np.float64))

    def embedder_state(self) -> dict[str, Tensor]:
        """Return the tensors that load_embedder takes."""
        state = {f"{_MODEL}{name}": torch.from_numpy(array) for name, array in asdict(self.model).items()}
        weights = self.preprocessor.state_dict()
        return state | {f"{_PREPROCESSOR}{name}": value.contiguous() for name, value in weights.items()}


def load_embedder(state: Mapping[str, Tensor], settings: PreprocessingParams, feature_count: int) -> Embedder:
    """Make an embedder of what `embedder_state` returned, and maybe others.

    Raises TypeError or RuntimeError when tensors are missing or do not fit.
    """
    preprocessor = Preprocessor(settings, feature_count)
    preprocessor.load_state_dict(_pick(state, _PREPROCESSOR), assign=True)
    model = TwoCovariances(**{name: tensor.numpy() for name, tensor in _pick(state, _MODEL).items()})
    return Embedder(preprocessor.eval(), model)


def _pick(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
