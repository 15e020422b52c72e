"""The k-fold protocol for pairs: each fold's pairs are compared by a model that was trained on the other folds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from celebflow.classifier.components import Components, compute_products
from celebflow.classifier.plda import FloatArray, TwoCovariances
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.verifier import VerifierCard, place, score_pairs
from celebflow.classifier.verifier_training import calibrate, fit_model
from celebflow.data.pairs import Pair
from celebflow.features.store import Features
from celebflow.params import PreprocessingParams


@dataclass(frozen=True)
class FoldScores:
    """The pairs of a fold, and the (P,) log odds that each shows the same person, from models of the other folds."""

    pairs: list[Pair]
    log_odds: FloatArray

    @property
    def same(self) -> NDArray[np.bool_]:
        """Return for each pair whether it shows the same person."""
        return np.array([bool(pair.same) for pair in self.pairs])


def score_folds(
    card: VerifierCard, features: Features, pairs: Sequence[Pair], fold_of: Mapping[str, int]
) -> list[FoldScores]:
    """Compare the pairs of each fold by a model that is trained as `card` says on the people of all other folds.

    What calibrates that model also comes from the other folds alone: the scores of their pairs, each fold's from a
    model that was trained on the rest of them. People without a fold train every model.
    """
    rows = np.arange(len(features.photos))
    products = compute_products(Preprocessor(_without_components(card), features.origin.feature_count), features, rows)
    folds = np.array([fold_of.get(photo.person, 0) for photo in features.photos])
    row_of = {photo.path: row for row, photo in enumerate(features.photos)}
    people = np.unique([photo.person for photo in features.photos], return_inverse=True)[1]
    pairs_of = {fold: [pair for pair in pairs if pair.fold == fold] for fold in sorted({pair.fold for pair in pairs})}

    def score(left_out: Iterable[int]) -> dict[int, FloatArray]:
        """Train on all folds but these; return the scores of the pairs of each of them."""
        left_out = tuple(left_out)
        trained = np.flatnonzero(~np.isin(folds, left_out))
        fitted = _fit(card, products, trained, people)
        scores = {}
        for fold in left_out:
            sides = [np.array([row_of[getattr(pair, side)] for pair in pairs_of[fold]]) for side in ("first", "second")]
            first, second = (_place(card, fitted, products[np.ix_(side, trained)]) for side in sides)
            scores[fold] = score_pairs(first, second, fitted[2], card.comparison)
        return scores

    choices = [*combinations(pairs_of, 1), *combinations(pairs_of, 2)]
    found = {choice: score(choice) for choice in tqdm(choices, "training for each fold", unit="model", disable=None)}
    results = []
    for fold, own in pairs_of.items():
        others = [other for other in pairs_of if other != fold]
        scores = np.concatenate([found[min(fold, other), max(fold, other)][other] for other in others])
        same = np.array([bool(pair.same) for other in others for pair in pairs_of[other]])
        results.append(FoldScores(own, calibrate(scores, same).compute_log_odds(found[fold,][fold])))
    return results


_Fitted = tuple[Components, FloatArray, TwoCovariances]


def _fit(
    card: VerifierCard, products: NDArray[np.float32], rows: NDArray[np.int64], people: NDArray[np.int64]
) -> _Fitted:
    numbers = np.unique(people[rows], return_inverse=True)[1]
    count = card.preprocessing.pca_components or len(rows)
    return fit_model(products[np.ix_(rows, rows)], numbers, count, card.shrinkage, card.seed)


def _place(card: VerifierCard, fitted: _Fitted, products: NDArray[np.float32]) -> FloatArray:
    components, spread, model = fitted
    return place(components.project(products), spread, model, card.comparison)


def _without_components(card: VerifierCard) -> PreprocessingParams:
    return card.preprocessing.model_copy(update={"pca_components": None})
