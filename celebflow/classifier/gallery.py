"""How well photographs match the people of train, and how often those of unknown people match as well."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.cards import ComparisonSettings
from celebflow.classifier.comparison_model import (
    ComparisonModel,
    Embedder,
    IndistinctPeopleError,
    divide_people,
    fit_comparison_model,
    load_embedder,
)
from celebflow.classifier.components import fit_components
from celebflow.classifier.conformal import choose_threshold, compute_p_values
from celebflow.classifier.enrollment_trials import EnrollmentTrial, LeftOutFold, load_trials, try_enrollment
from celebflow.classifier.fits import NOT_KEPT, Fits
from celebflow.classifier.plda import DescribedPeople
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.projection import make_projection
from celebflow.classifier.vectors import Vectors
from celebflow.features.sparse import split_rows
from celebflow.features.store import Features, LabeledFeatures
from celebflow.params import PreprocessingParams

MIN_PEOPLE = 3  # without one of them, two can still be told apart
_FOLDS = 5
MIN_ENROLLMENT_PEOPLE = _FOLDS + 1  # two of whom are left out together, so that one can be enrolled beside the other
_MAX_PHOTOGRAPHS = 4000  # whose inner products are kept: 64 MB
_MAX_PEOPLE = 1000  # whose photographs these are, so that there are four of each at least, as far as there are
_PREPROCESSING = PreprocessingParams(square_root=True, l2_normalize=True)
_MAX_COMPONENTS = 300
_PHOTOGRAPHS_PER_COMPONENT = 2  # with more components, known people's new photographs hardly match
_SHRINKAGE = 0.1
_TRIALS = "trials."  # begins the names of their tensors


@dataclass(frozen=True, eq=False)
class LeftOutMatches:
    """The matches of N photographs of train, each by a model that was fitted without the photograph's person.

    `scores` (N,) are the matches, `people` (N,) the people as indices of the class names, and `folds` (N,) the people
    who were left out together.
    """

    scores: FloatArray
    people: NDArray[np.int64]
    folds: NDArray[np.int64]

    @cached_property
    def _ascending(self) -> FloatArray:
        return np.sort(self.scores)

    def compute_p_values(self, scores: FloatArray) -> FloatArray:
        """Return for (M,) matches the fraction of unknown people's photographs that match at least as well."""
        return compute_p_values(self._ascending, scores)

    def choose_threshold(self, false_acceptance_rate: float, fold: int | None = None) -> float:
        """Return the lowest match whose p value is at most this rate, judged by the people outside of `fold`.

        Where there are too few photographs for such a p value, it is just above all their matches.
        """
        ascending = self._ascending if fold is None else np.sort(self.scores[self.folds != fold])
        return choose_threshold(ascending, false_acceptance_rate)

    def can_promise(self, false_acceptance_rate: float) -> bool:
        """Return whether there are enough photographs for a p value as small as this rate."""
        return false_acceptance_rate * (len(self.scores) + 1) >= 1


@dataclass(frozen=True, eq=False)
class Gallery(Embedder):
    """The people of train in the coordinates of a two-covariance model, and the matches of those who were left out.

    A photograph's match is the greatest of its log-likelihood ratios with all people: how much more likely it shows
    that person than somebody new. `means` (people, D) and `counts` (people,) describe the photographs of each person.
    `trials` say how well people match who are enrolled later, from few photographs and from more; there are none where
    hardly anybody has two photographs.
    """

    means: FloatArray
    counts: NDArray[np.int64]
    left_out: LeftOutMatches
    trials: tuple[EnrollmentTrial, ...]

    @cached_property
    def people(self) -> DescribedPeople:
        """Return what compares photographs with the people: the greatest score is a photograph's match."""
        return self.model.describe_people(self.means, self.counts)

    def match_rows(self, features: Features, rows: NDArray[np.int64]) -> FloatArray:
        """Return the (N,) matches of the photographs in these rows of the features."""
        return self.people.match(self.embed_rows(features, rows))

    def find_trial(self, photograph_count: int) -> EnrollmentTrial:
        """Return the trial with the most photographs up to this count; raise IndexError when there are no trials."""
        return [trial for trial in self.trials if trial.photograph_count <= photograph_count][-1]

    def state(self) -> dict[str, Tensor]:
        """Return all tensors, by name."""
        arrays = {
            "means": self.means,
            "counts": self.counts,
            "left_out.scores": self.left_out.scores,
            "left_out.people": self.left_out.people,
            "left_out.folds": self.left_out.folds,
        }
        state = self.embedder_state() | {name: torch.from_numpy(array) for name, array in arrays.items()}
        for trial in self.trials:
            state |= {f"{_TRIALS}{name}": tensor for name, tensor in trial.state().items()}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], feature_count: int) -> "Gallery":
        """Make a gallery of what `state` returned.

        Raises KeyError, RuntimeError or ValueError when tensors do not fit.
        """
        settings = _PREPROCESSING.model_copy(update={"pca_components": len(state["model.between"])})
        embedder = load_embedder(state, settings, feature_count)
        left_out = LeftOutMatches(*(state[f"left_out.{name}"].numpy() for name in ("scores", "people", "folds")))
        means, counts = state["means"].numpy(), state["counts"].numpy()
        of_trials = {name.removeprefix(_TRIALS): state[name] for name in state if name.startswith(_TRIALS)}
        return cls(embedder.preprocessor, embedder.model, means, counts, left_out, load_trials(of_trials))


def fit_gallery(
    train: LabeledFeatures, person_count: int, between_scale: float, seed: int, fits: Fits = NOT_KEPT
) -> Gallery | None:
    """Fit a gallery to the photographs of train, or recall it; return None, and say why, when too few differ.

    The model is fitted to all photographs, or to a sample of them, which holds up to a thousand people. For what
    unknown people match, it is fitted again without a fifth of the people, and compares their photographs with the
    others', for each fifth.
    """
    if person_count < MIN_PEOPLE:
        return None
    determinants = person_count, between_scale, seed, train.rows.tolist()
    try:
        state = fits.recall(
            "The gallery", determinants, lambda: _fit_gallery(train, person_count, between_scale, seed).state()
        )
    except IndistinctPeopleError as error:
        print(
            "Nobody will be unknown: a threshold is fitted to train with each fifth of its people left out in turn, "
            f"and this is not possible here. {error}"
        )
        return None
    return Gallery.from_state(state, train.features.origin.feature_count)


def _fit_gallery(train: LabeledFeatures, person_count: int, between_scale: float, seed: int) -> Gallery:
    preprocessor = Preprocessor(_PREPROCESSING, train.features.origin.feature_count)
    sample = _draw_sample(train.labels, seed)
    labels = train.labels[sample]
    vectors = Vectors(preprocessor, train.features, train.rows[sample])
    products = vectors.compute_products()
    component_count = max(1, min(_MAX_COMPONENTS, len(sample) // _PHOTOGRAPHS_PER_COMPONENT))
    settings = ComparisonSettings(component_count, _SHRINKAGE, between_scale, seed)
    parts = divide_people(person_count, min(_FOLDS, person_count), seed)
    people, own_labels = np.unique(labels, return_inverse=True)
    if len(people) == person_count:
        left_out, trials = _leave_people_out(products, labels, parts, settings)
    else:
        # A match is the greatest of the scores with all people, of whom the sample holds some: others are compared by
        # their components.
        components = make_projection(vectors, fit_components(products, component_count, seed))
        everybody = Vectors(components, train.features, train.rows).project()
        own = everybody[sample]
        left_out, trials = _leave_people_out(own @ own.T, labels, parts, settings, (everybody, own, train.labels))
    fitted = fit_comparison_model(products, own_labels, settings)
    del products
    preprocessor = make_projection(vectors, fitted.components)
    coordinates = Embedder(preprocessor, fitted.model).embed_rows(train.features, train.rows)
    means, counts = average_people(coordinates, train.labels, person_count)
    return Gallery(preprocessor, fitted.model, means, counts, left_out, trials)


def average_people(
    coordinates: FloatArray, labels: NDArray[np.int64], person_count: int
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the (people, D) means of (N, D) coordinates and the (people,) counts, by (N,) labels."""
    counts = np.bincount(labels, minlength=person_count)
    sums = np.zeros((person_count, coordinates.shape[1]))
    np.add.at(sums, labels, coordinates)
    return sums / np.maximum(counts, 1)[:, None], counts


def _draw_sample(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return up to _MAX_PHOTOGRAPHS positions of (N,) labels, ascending: everybody has one before anybody has two.

    Of more than _MAX_PEOPLE, some are drawn.
    """
    people = np.unique(labels)
    if len(people) > _MAX_PEOPLE:
        people = np.random.default_rng([seed, 1]).permutation(people)[:_MAX_PEOPLE]
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.isin(labels[order], people)]
    by_person = order[np.argsort(labels[order], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[by_person], prepend=-1))  # of each person
    turns = np.empty(len(labels), np.int64)
    turns[by_person] = np.arange(len(by_person)) - np.repeat(starts, np.diff(starts, append=len(by_person)))
    by_turn = order[np.argsort(turns[order], kind="stable")]
    return np.sort(by_turn[:_MAX_PHOTOGRAPHS])


def _leave_people_out(
    products: NDArray[np.float32],
    labels: NDArray[np.int64],
    parts: NDArray[np.int64],
    settings: ComparisonSettings,
    everybody: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]] | None = None,
) -> tuple[LeftOutMatches, tuple[EnrollmentTrial, ...]]:
    """Match N photographs, of which `products` (N, N) are the inner products, without their people.

    `parts` (people,) are those that are left out together. Where the N photographs do not show all people, `everybody`
    holds what inner products with all M photographs follow from: (M, C) vectors of these and (N, C) of the N, and the
    (M,) labels. The people who were left out are then enrolled on trial.
    """
    folds = parts[labels]
    scores = np.empty(len(labels))
    fitted = []
    for fold in range(parts.max() + 1):
        known = folds != fold
        people, own = np.unique(labels[known], return_inverse=True)
        model = fit_comparison_model(products[np.ix_(known, known)], own, settings)
        if everybody is None:
            of_known = model.embed(products[np.ix_(known, known)])
        else:
            vectors, of_sample, all_labels = everybody
            chosen = parts[all_labels] != fold
            people, own = np.unique(all_labels[chosen], return_inverse=True)
            of_known = _embed_vectors(model, vectors[chosen], of_sample[known])
        described = model.model.describe_people(*average_people(of_known, own, len(people)))
        coordinates = model.embed(products[np.ix_(~known, known)])
        matches = described.score(coordinates)
        scores[~known] = matches.max(axis=1)
        fitted.append(LeftOutFold(model.model, coordinates, labels[~known], matches))
    return LeftOutMatches(scores, labels, folds), try_enrollment(fitted, settings.seed)


def _embed_vectors(model: ComparisonModel, vectors: NDArray[np.float32], fitted: NDArray[np.float32]) -> FloatArray:
    """Return the coordinates of M photographs, by their (M, C) vectors and the (N, C) that the model was fitted to."""
    blocks = [model.embed(vectors[block] @ fitted.T) for block in split_rows(len(vectors), len(fitted))]
    return np.concatenate(blocks)
