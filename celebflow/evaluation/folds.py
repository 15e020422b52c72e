"""The k-fold protocol for pairs: each fold's pairs are compared by a model that was trained on the other folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.cards import VerifierCard
from celebflow.classifier.comparison_model import divide_people
from celebflow.classifier.components import fit_components
from celebflow.classifier.pair_calibration import PairCalibration
from celebflow.classifier.plda import fit_two_covariances
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.vectors import Vectors
from celebflow.classifier.verifier import score_pairs
from celebflow.classifier.verifier_training import calibrate, count_photographs
from celebflow.data.pairs import Pair, draw_pairs
from celebflow.errors import CelebflowError
from celebflow.features.store import Features

# People of the other folds are left out in up to so many parts, one after the other, for the scores that calibrate.
# With few parts, each model would lack many people, and its scores would not be those of the model of all.
_PARTS = 8
_MAX_PAIRS_PER_PART = 2000
_REMEDY = "Add people or photographs to the folds, or leave out the column fold of pairs.csv."


@dataclass(frozen=True)
class FoldScores:
    """The pairs of a fold, and the (P,) log odds that each shows the same person, from a model of the other folds."""

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

    What calibrates that model also comes from the other folds alone: from pairs of people who are left out of it, an
    eighth at a time. Its components stay those of all of these people. People without a fold train every model.

    Raises CelebflowError when the other folds have too few people or photographs.
    """
    unprojected = card.preprocessing.model_copy(update={"pca_components": None})
    preprocessor = Preprocessor(unprojected, features.origin.feature_count)
    settings = card.settings
    products = Vectors(preprocessor, features, np.arange(len(features.photos))).compute_products()
    folds = np.array([fold_of.get(photo.person, 0) for photo in features.photos])
    results = []
    for fold in tqdm(sorted({pair.fold for pair in pairs}), "training for each fold", unit="fold", disable=None):
        trained = np.flatnonzero(folds != fold)
        components = fit_components(products[np.ix_(trained, trained)], settings.component_count, settings.seed)
        coordinates = components.project(products[:, trained])
        own = [pair for pair in pairs if pair.fold == fold]
        scores = _score(card, features, coordinates, trained, own)
        calibration = _calibrate(card, features, coordinates, trained)
        results.append(FoldScores(own, calibration.compute_log_odds(scores)))
    return results


def _calibrate(
    card: VerifierCard,
    features: Features,
    coordinates: FloatArray,
    trained: NDArray[np.int64],
) -> PairCalibration:
    """Fit a calibration to drawn pairs of the people in the rows `trained`, who are left out in parts."""
    people, labels = np.unique([features.photos[row].person for row in trained], return_inverse=True)
    part_count = min(_PARTS, max(2, len(people) // 3))
    parts = divide_people(len(people), part_count, card.settings.seed)[labels]
    scores, compared = [], []
    for part in range(part_count):
        left_out = [replace(features.photos[row], split=str(part)) for row in trained[parts == part]]
        drawn = draw_pairs(left_out, str(part), card.settings.seed, _MAX_PAIRS_PER_PART)
        if drawn:
            scores.append(_score(card, features, coordinates, trained[parts != part], drawn))
            compared += drawn
    if not scores:
        raise CelebflowError(f"{len(people)} people are too few to calibrate a model for a fold. {_REMEDY}")
    same = np.array([bool(pair.same) for pair in compared])
    return calibrate(np.concatenate(scores), same, count_photographs(compared))


def _score(
    card: VerifierCard,
    features: Features,
    coordinates: FloatArray,
    trained: NDArray[np.int64],
    pairs: Sequence[Pair],
) -> FloatArray:
    """Return the (P,) scores of pairs by a model that is fitted to the rows `trained` of the (N, C) coordinates."""
    names, people = np.unique([features.photos[row].person for row in trained], return_inverse=True)
    settings = card.settings
    try:
        fitted = fit_two_covariances(coordinates[trained], people, settings.shrinkage, settings.between_scale)
    except ValueError as error:
        raise CelebflowError(
            f"A model for a fold cannot be fitted to {len(trained)} photographs of {len(names)} people: {error}. "
            + _REMEDY
        ) from None
    rows = (features.locate(getattr(pair, side) for pair in pairs) for side in ("first", "second"))
    first, second = (fitted.project(coordinates[side]) for side in rows)
    return score_pairs(first, second, fitted.model, card.score)
