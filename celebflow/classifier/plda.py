"""Probabilistic linear discriminant analysis: how much more likely two vectors show the same person than two people."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eigh

from celebflow.classifier.calibration import FloatArray
from celebflow.features.sparse import split_rows

# What a person's photographs weigh together is at most that of so many: nobody should shape the model alone.
MAX_WEIGHT = 20.0
_LEAST_VARIANCE = 1e-6  # between people, relative to the variance within: below it, a coordinate tells nothing


@dataclass(frozen=True)
class TwoCovariances:
    """The two-covariance model (Brümmer and de Villiers, 2010): a person's vector, plus what differs by photograph.

    Both are normal, and their covariances are diagonal in the model's coordinates: 1 within a person, and `between`
    (D,) between people.
    """

    between: FloatArray

    def equalize(self, coordinates: NDArray[np.floating]) -> FloatArray:
        """Bring each of (N, D) coordinates to the length that the model expects of a photograph; scores need that.

        Unusual photographs would otherwise be far from all others (as in Garcia-Romero and Espy-Wilson, 2011, who do
        it in whitened coordinates).
        """
        lengths = np.sqrt((coordinates**2 / (1 + self.between)).mean(axis=1, keepdims=True))
        equalized: FloatArray = coordinates / np.maximum(lengths, np.finfo(np.float64).tiny)
        return equalized

    def score(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> FloatArray:
        """Return the (N,) log-likelihood ratios of N pairs of (N, D) coordinates: same person against two people."""
        squares, products, offset = self._weigh()
        scores: FloatArray = (first**2 + second**2) @ squares + (first * second) @ products + offset
        return scores

    def describe_people(self, means: NDArray[np.floating], counts: NDArray[np.integer]) -> "DescribedPeople":
        """Return what compares photographs with P people, of whom there are `counts` (P,) photographs.

        `means` (P, D) are the means of these photographs. A person's n photographs leave the variance b / (1 + n b) of
        the person's own vector, whose expected value is n times their mean times this variance.
        """
        weights = counts[:, None].astype(np.float64)
        left = self.between / (1 + weights * self.between)  # (P, D)
        expected = left * weights * means
        variance = 1 + left
        squares = 0.5 * (1 / (1 + self.between) - 1 / variance)
        offsets = 0.5 * (np.log((1 + self.between) / variance) - expected**2 / variance).sum(axis=1)
        return DescribedPeople(squares.T, (expected / variance).T, offsets)

    def _weigh(self) -> tuple[FloatArray, FloatArray, float]:
        """Return what a coordinate's squares and its product weigh in a score, (D,) each, and what is added.

        In each coordinate, two photographs of one person have the covariance [[1 + b, b], [b, 1 + b]], two people's
        [[1 + b, 0], [0, 1 + b]]; the ratio of these normal densities is a quadratic form.
        """
        total = 1 + self.between
        determinant = total**2 - self.between**2
        squares = 0.5 * (1 / total - total / determinant)
        products = self.between / determinant
        return squares, products, float(0.5 * (2 * np.log(total) - np.log(determinant)).sum())


@dataclass(frozen=True)
class DescribedPeople:
    """What compares photographs with P people: what a coordinate's square and itself weigh, (D, P) each, and (P,)."""

    squares: FloatArray
    factors: FloatArray
    offsets: FloatArray

    def score(self, coordinates: NDArray[np.floating]) -> FloatArray:
        """Return the (N, P) log-likelihood ratios of (N, D) coordinates: of each person against somebody new."""
        scores: FloatArray = coordinates**2 @ self.squares + coordinates @ self.factors + self.offsets
        return scores

    def match(self, coordinates: NDArray[np.floating]) -> FloatArray:
        """Return the (N,) greatest scores of (N, D) coordinates, without all scores in memory."""
        matches = np.empty(len(coordinates))
        for block in split_rows(len(coordinates), len(self.offsets)):
            matches[block] = self.score(coordinates[block]).max(axis=1)
        return matches


@dataclass(frozen=True)
class FittedCovariances:
    """A model, and what turns vectors into its coordinates: the (C,) mean of all people, and a (C, D) basis."""

    mean: FloatArray
    basis: FloatArray
    model: TwoCovariances

    def project(self, vectors: NDArray[np.floating]) -> FloatArray:
        """Turn (N, C) vectors into the (N, D) coordinates that the model's scores take."""
        return self.model.equalize((vectors - self.mean) @ self.basis)


def fit_two_covariances(
    vectors: FloatArray, people: NDArray[np.int64], shrinkage: float, between_scale: float
) -> FittedCovariances:
    """Fit the model to (N, C) vectors of people, who are numbered from 0 in (N,).

    The covariance within a person is pooled over people with two photographs or more, each of whom weighs as at most
    MAX_WEIGHT photographs. The covariance between people is the total one without it; what is negative of it is left
    out. Then the former is shrunk by `shrinkage` towards a multiple of the identity, and the latter multiplied by
    `between_scale`: below 1, it allows for new people, who vary more than those whom the components were fitted to.

    Raises ValueError when the vectors do not tell people apart at all, when nobody has two, and when the covariance
    within a person is singular, as it may be without shrinkage.
    """
    counts = np.bincount(people)
    weights = np.minimum(1.0, MAX_WEIGHT / counts)[people]
    mean = np.average(vectors, axis=0, weights=weights)
    centered = vectors - mean
    total = (weights[:, None] * centered).T @ centered / weights.sum()
    sums = np.zeros((len(counts), vectors.shape[1]))
    np.add.at(sums, people, vectors)
    differences = vectors - (sums / counts[:, None])[people]
    # A person's mean takes a degree of freedom: without this, few photographs would seem alike.
    degrees = np.minimum(1.0, MAX_WEIGHT / counts) * (counts - 1)
    if not degrees.any():
        raise ValueError("nobody has two photographs")
    within = (weights[:, None] * differences).T @ differences / degrees.sum()
    shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    try:
        between, basis = eigh(total - within, shrunk)
    except LinAlgError:
        raise ValueError(
            f"photographs of one person do not differ in all {len(within)} components (raise train.lda_shrinkage, or "
            "lower train.preprocessing.pca_components)"
        ) from None
    kept = np.flatnonzero(between > _LEAST_VARIANCE)[::-1]  # the largest first
    if not len(kept):
        raise ValueError("people do not differ")
    model = TwoCovariances(between_scale * between[kept])
    return FittedCovariances(mean, np.ascontiguousarray(basis[:, kept]), model)
