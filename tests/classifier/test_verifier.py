"""A verifier is fitted from inner products, saved without pickle, and calibrated on the pairs of val."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy.special import expit
from sklearn.decomposition import PCA

from celebflow.classifier.cards import VERIFIER
from celebflow.classifier.checkpoints import open_checkpoints
from celebflow.classifier.components import fit_components
from celebflow.classifier.model import load_classifier
from celebflow.classifier.pair_calibration import PairCalibration, format_probability
from celebflow.classifier.plda import fit_two_covariances
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.projection import make_projection
from celebflow.classifier.vectors import Vectors
from celebflow.classifier.verifier import Verifier, load_verifier
from celebflow.classifier.verifier_training import calibrate, score_split, train_verifier
from celebflow.data.pairs import Pair, save_pairs
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.params import ComputeParams, PreprocessingParams, TrainParams
from tests.conftest import draw_features

SETTINGS = PreprocessingParams(square_root=True, l2_normalize=True)
PARAMS = TrainParams(
    classifier="plda", preprocessing=SETTINGS.model_copy(update={"pca_components": 12}), lda_shrinkage=0.1
)
PEOPLE = tuple(f"p{number}" for number in range(10))


@pytest.fixture(scope="module")
def features() -> Features:
    """Return two views of the photographs of ten people; each person is in one split."""
    drawn = draw_features(80, ("original", "mirrored"), PEOPLE)
    # Each person of val and test has features in common with some of train.
    split_of = {**dict.fromkeys(PEOPLE, "train"), "p1": "val", "p6": "val", "p4": "test", "p8": "test"}
    return replace(drawn, photos=[replace(photo, split=split_of[photo.person]) for photo in drawn.photos])


@pytest.fixture(scope="module")
def pairs(features: Features) -> list[Pair]:
    """Return the pairs of neighboring photographs of one person, and of as many of two people, in each split."""
    found = []
    for split in ("train", "val", "test"):
        photos = sorted((photo for photo in features.photos if photo.split == split), key=lambda photo: photo.person)
        for first, second in pairwise(photos):
            found.append(Pair(first.path, second.path, int(first.person == second.person), split, 0))
        for first, second in zip(photos, photos[8:], strict=False):
            found.append(Pair(first.path, second.path, 0, split, 0))
    return found


def train(features: Features, pairs: list[Pair], folder: Path, params: TrainParams = PARAMS) -> Verifier:
    """Train a verifier as the stage does, in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save_pairs(pairs, Path("splits/pairs.csv"))
        with open_checkpoints(features, params, ComputeParams()) as checkpoints:
            verifier, history = train_verifier(features, params, ComputeParams(), checkpoints, lambda _: None)
    assert len(history) == 1
    return verifier


def test_components_are_those_of_scikit_learn(features: Features) -> None:
    preprocessor = Preprocessor(SETTINGS, features.origin.feature_count)
    rows = np.arange(60)
    vectors = Vectors(preprocessor, features, rows)
    products = vectors.compute_products()
    dense = np.mean([preprocessor.normalize(features.gather(rows, view)).to_dense() for view in range(2)], axis=0)
    np.testing.assert_allclose(products, dense @ dense.T, atol=1e-5)
    components = fit_components(products, 10, 0)
    expected = PCA(10, svd_solver="full").fit_transform(dense)
    found = components.project(products)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-3)
    projecting = make_projection(vectors, components)
    views = [projecting(features.gather(rows, view)).numpy() for view in range(2)]
    np.testing.assert_allclose(np.mean(views, axis=0), found, atol=1e-4)


def test_copies_of_photographs_leave_fewer_components(features: Features) -> None:
    preprocessor = Preprocessor(SETTINGS, features.origin.feature_count)
    products = Vectors(preprocessor, features, np.repeat(np.arange(5), 4)).compute_products()
    components = fit_components(products, 15, 0)
    assert components.weights.shape[1] == 4
    assert np.isfinite(components.project(products)).all()


@pytest.mark.parametrize("classifier", ["plda", "lda"])
def test_a_saved_verifier_scores_as_before_and_tells_people_apart(
    features: Features, pairs: list[Pair], classifier: str, tmp_path: Path
) -> None:
    params = PARAMS.model_copy(update={"classifier": classifier})
    verifier = train(features, pairs, tmp_path, params)
    verifier.save(tmp_path / "one.safetensors")
    train(features, pairs, tmp_path, params).save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    loaded = load_verifier(tmp_path / "one.safetensors")
    assert loaded.card == verifier.card
    scores, same = score_split(verifier, features, pairs, "test")
    np.testing.assert_array_equal(score_split(loaded, features, pairs, "test")[0], scores)
    assert np.mean(scores[same]) > np.mean(scores[~same])
    assert ((loaded.card.calibration.compute_log_odds(scores) >= 0) == same).mean() > 0.8


def test_a_photograph_s_coordinates_do_not_depend_on_others(
    features: Features, pairs: list[Pair], tmp_path: Path
) -> None:
    verifier = train(features, pairs, tmp_path)
    together = verifier.embed_rows(features, np.arange(10))
    alone = np.concatenate([verifier.embed_rows(features, np.array([row])) for row in range(10)])
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_nobody_of_val_and_test_is_trained_on(features: Features, pairs: list[Pair], tmp_path: Path) -> None:
    verifier = train(features, pairs, tmp_path)
    rows = np.array([row for row, photo in enumerate(features.photos) if photo.split == "train"])
    kept = {features.photos[row].path for row in rows}
    values = features.values.copy()
    for row, photo in enumerate(features.photos):
        if photo.path not in kept:
            values[features.offsets[2 * row] : features.offsets[2 * row + 2]] *= 7
    other = train(replace(features, values=values), pairs, tmp_path)
    np.testing.assert_array_equal(other.model.between, verifier.model.between)
    for name, value in verifier.preprocessor.state_dict().items():
        np.testing.assert_array_equal(other.preprocessor.state_dict()[name], value)
    assert other.card.people_count == 6


def test_without_an_error_pairs_with_scores_alike_get_the_targets_as_probabilities() -> None:
    for count in (10, 1000):
        scores = np.concatenate([np.full(count, 50.0), np.full(count, -50.0)]) + np.linspace(0, 1, 2 * count)
        calibration = calibrate(scores, np.arange(2 * count) < count, 10**9)
        highest = 1 / (1 + np.exp(-calibration.compute_log_odds(np.array([50.5]))[0]))
        assert highest == pytest.approx((count + 1) / (count + 2), abs=1 / (count + 2) / 2)
        assert (calibration.false_match_rate, calibration.false_non_match_rate) == (0, 0)


def test_no_probability_claims_more_than_the_photographs_of_val_show() -> None:
    """A val split without an error, however far apart its scores are, and pairs more extreme than its own."""
    scores = np.linspace(-1000, 1000, 200)
    same = scores > 0
    calibration = calibrate(scores, same, 98)
    probabilities = expit(calibration.compute_log_odds(np.array([-1e6, -1000, 0.1, 1000, 1e6])))
    assert probabilities.max() == pytest.approx(0.99)
    assert probabilities.min() == pytest.approx(0.01)
    ascending = calibration.compute_log_odds(np.linspace(-20, 20, 99) / calibration.slope)
    assert (np.diff(ascending) > 0).all(), "the order of pairs stays"
    assert (ascending >= 0).sum() == (np.linspace(-20, 20, 99) + calibration.offset >= 0).sum()
    unbounded = replace(calibration, max_probability=1.0).compute_log_odds(np.array([3.0]))
    expected = 0.5 + 0.98 * (expit(unbounded) - 0.5)
    np.testing.assert_allclose(expit(calibration.compute_log_odds(np.array([3.0]))), expected)


def test_calibrated_probabilities_match_frequencies() -> None:
    random = np.random.default_rng(0)
    same = random.random(20_000) < 0.5
    scores = 3 * random.normal(size=20_000) + 4 * np.where(same, 1, -1) + 10
    log_odds = calibrate(scores, same, 10**9).compute_log_odds(scores)
    np.testing.assert_allclose(log_odds, 2 * 4 / 9 * (scores - 10), atol=0.15)


@pytest.mark.parametrize(
    ("log_odds", "text"),
    [(0.0, "50.0%"), (2.0, "88.1%"), (9.0, "99.99%"), (-9.0, "0.01%"), (30.0, "more than 99.9999%"), (-30.0, "less")],
)
def test_probabilities_have_as_many_digits_as_tell_them_apart(log_odds: float, text: str) -> None:
    assert format_probability(log_odds).startswith(text)


@pytest.mark.parametrize(
    ("slope", "max_probability"),
    [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (float("inf"), 1.0), (1.0, 0.5), (1.0, 1.1), (1.0, float("nan"))],
)
def test_a_calibration_that_cannot_be_used_is_refused(slope: float, max_probability: float) -> None:
    with pytest.raises(ValueError, match="not a valid calibration"):
        PairCalibration(slope, 0.0, max_probability, 0.0, 0.0)


def test_files_that_are_no_verifier_are_refused_with_the_reason(
    features: Features, pairs: list[Pair], tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    train(features, pairs, tmp_path).save(file)
    with pytest.raises(CelebflowError, match="task verification.*celebflow verify"):
        load_classifier(file)
    state, content = load_file(file), file.read_bytes()
    card = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"][VERIFIER.key])
    changed = {**state, "model.between": state["model.between"] * np.nan}
    for tensors, values, message in (
        (state, {**card, "format": 0}, "another version"),
        (state, {**card, "calibration": {}}, "is not a verifier"),
        ({name: value for name, value in state.items() if name != "model.between"}, card, "do not match its card"),
        (changed, card, "not finite"),
    ):
        save_file(tensors, file, {VERIFIER.key: json.dumps(values)})
        with pytest.raises(CelebflowError, match=message):
            load_verifier(file)
    save_file(state, file, {"celebflow": "{}"})
    with pytest.raises(CelebflowError, match="task recognition"):
        load_verifier(file)
    file.write_bytes(content[:-100])
    with pytest.raises(CelebflowError, match="is not a verifier"):
        load_verifier(file)


def test_the_model_is_fitted_as_the_direct_way_fits_it(features: Features, pairs: list[Pair], tmp_path: Path) -> None:
    verifier = train(features, pairs, tmp_path)
    rows = np.array([row for row, photo in enumerate(features.photos) if photo.split == "train"])
    preprocessor = Preprocessor(SETTINGS, features.origin.feature_count)
    dense = np.mean([preprocessor.normalize(features.gather(rows, view)).to_dense() for view in range(2)], axis=0)
    coordinates = PCA(12, svd_solver="full").fit_transform(dense.astype(np.float64))
    people = np.unique([features.photos[row].person for row in rows], return_inverse=True)[1]
    direct = fit_two_covariances(coordinates, people, 0.1, 0.5)
    np.testing.assert_allclose(verifier.model.between, direct.model.between, rtol=0.02)
