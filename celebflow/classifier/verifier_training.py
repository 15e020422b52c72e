"""Train a verifier on the people of train, and calibrate it on those of val."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from celebflow import paths
from celebflow.classifier.calibration import FloatArray, fit_logistic
from celebflow.classifier.cards import ComparisonSettings, VerifierCard
from celebflow.classifier.checkpoints import Checkpoints, DivergedError
from celebflow.classifier.comparison_model import fit_comparison_model
from celebflow.classifier.history import EpochResult
from celebflow.classifier.pair_calibration import PairCalibration, compute_pair_loss
from celebflow.classifier.projection import fit_preprocessor, make_projection
from celebflow.classifier.vectors import Vectors
from celebflow.classifier.verifier import Verifier
from celebflow.data.pairs import Pair, load_pairs
from celebflow.features.store import Features, select_split
from celebflow.params import ComputeParams, TrainParams

_UNCALIBRATED = PairCalibration(1.0, 0.0, max_probability=1.0, false_match_rate=0.0, false_non_match_rate=0.0)


def train_verifier(
    features: Features,
    params: TrainParams,
    compute: ComputeParams,
    checkpoints: Checkpoints,
    log_epoch: Callable[[EpochResult], None],
) -> tuple[Verifier, list[EpochResult]]:
    """Train a verifier on the photographs of train in `features`, and calibrate it on the pairs of val.

    Returns the verifier and its history of one epoch. `compute` is not used: it is fitted at once, on the CPU. The same
    features and params give the same verifier, bit for bit, on one machine.

    Raises DivergedError when photographs do not tell people apart, or the model is not finite.
    """
    pairs = load_pairs(paths.PAIRS)
    if warning := features.origin.backbone.warning():
        print(warning)
    people = sorted({photo.person for photo in features.photos if photo.split == "train"})
    train = select_split(features, people, "train")
    print(f"Fitting {params.classifier} to {len(train)} photographs of {len(people)} people, {train.view_count} views.")
    unprojected = params.preprocessing.model_copy(update={"pca_components": None})
    vectors = Vectors(fit_preprocessor(train, unprojected, params.seed, checkpoints.fits), features, train.rows)
    products = vectors.recall_products(checkpoints.fits)
    settings = ComparisonSettings(
        params.preprocessing.pca_components or len(train), params.lda_shrinkage, params.plda_between_scale, params.seed
    )
    comparison = fit_comparison_model(products, train.labels, settings)
    del products
    projecting = make_projection(vectors, comparison.components)
    card = VerifierCard(
        score="lda" if params.classifier == "lda" else "plda",
        settings=settings,
        people_count=len(people),
        transform=features.origin.transform,
        backbone=features.origin.backbone,
        preprocessing=projecting.settings,
        calibration=_UNCALIBRATED,
    )
    verifier = Verifier(projecting, comparison.model, card)
    scores = {split: score_split(verifier, features, pairs, split) for split in ("train", "val")}
    if not all(np.isfinite(values).all() for values, _ in scores.values()):
        raise DivergedError(
            f"Training failed: scores are not finite. Raise train.lda_shrinkage ({params.lda_shrinkage:g}) or lower "
            "train.preprocessing.pca_components, and run `dvc repro`."
        )
    calibration = calibrate(*scores["val"], count_photographs(pair for pair in pairs if pair.split == "val"))
    history = [EpochResult(1, *_measure(calibration, *scores["train"]), *_measure(calibration, *scores["val"]))]
    log_epoch(history[0])
    return replace(verifier, card=replace(card, calibration=calibration)), history


def score_split(
    verifier: Verifier, features: Features, pairs: Sequence[Pair], split: str
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the (P,) scores of the pairs of a split, in their order, and whether each shows the same person."""
    chosen = [pair for pair in pairs if pair.split == split]
    first, second = (features.locate(getattr(pair, side) for pair in chosen) for side in ("first", "second"))
    rows, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    coordinates = verifier.embed_rows(features, rows)
    scores = verifier.score(coordinates[places[: len(first)]], coordinates[places[len(first) :]])
    return scores, np.array([bool(pair.same) for pair in chosen])


def count_photographs(pairs: Iterable[Pair]) -> int:
    """Return the number of different photographs in pairs."""
    return len({photograph for pair in pairs for photograph in (pair.first, pair.second)})


def calibrate(scores: FloatArray, same: NDArray[np.bool_], photograph_count: int) -> PairCalibration:
    """Fit what turns (P,) scores into probabilities, both kinds of pairs weighing alike.

    It is the logistic function of fit_logistic, and a bound: N photographs in these pairs show no more than
    (N + 1) / (N + 2), by Laplace's rule of succession, as in fit_probabilities.
    """
    counts = np.array([(~same).sum(), same.sum()])
    slope, offset = fit_logistic(scores, same, 0.5 / counts[same.astype(int)])
    fitted = PairCalibration(
        slope=slope,
        offset=offset,
        max_probability=(photograph_count + 1) / (photograph_count + 2),
        false_match_rate=0.0,
        false_non_match_rate=0.0,
    )
    matches = fitted.compute_log_odds(scores) >= 0
    return replace(
        fitted,
        false_match_rate=float(matches[~same].mean()),
        false_non_match_rate=float((~matches[same]).mean()),
    )


def _measure(calibration: PairCalibration, scores: FloatArray, same: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the mean loss and the accuracy of pairs."""
    log_odds = calibration.compute_log_odds(scores)
    return compute_pair_loss(log_odds, same), float(((log_odds >= 0) == same).mean())
