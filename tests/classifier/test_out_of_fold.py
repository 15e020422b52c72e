"""Out of fold, no classifier has seen the photograph that it predicts, nor its label."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from celebflow.classifier import out_of_fold_training, part_training
from celebflow.classifier.discriminants import average_logits
from celebflow.classifier.fits import NOT_KEPT
from celebflow.classifier.out_of_fold import OutOfFold
from celebflow.classifier.out_of_fold_training import assign_folds, predict_out_of_fold
from celebflow.data.photos import UNKNOWN, Photo
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams, View
from tests.conftest import draw_features
from tests.training import make_train_params

CPU = ComputeParams(device="cpu")
RECIPES = {
    "lda": make_train_params("square_root", "l2_normalize", pca_components=10, classifier="lda"),
    "logistic": make_train_params("l2_normalize", classifier="logistic"),
    "linear": make_train_params("l2_normalize", classifier="linear", epochs=5, learning_rate=0.1),
    "mlp": make_train_params(pca_components=10, classifier="mlp", epochs=20, learning_rate=0.01, keep_epoch="best"),
}


def _draw(*views: View, people: tuple[str, ...] = ("Ann", "Bo", "Cy")) -> Features:
    """Return features of 60 photographs, of which half are the same in all photographs of a person."""
    features = draw_features(60, views or ("original",), people)
    positions = features.indices.reshape(60, -1, 100).copy()
    values = features.values.reshape(positions.shape).copy()
    for photograph in range(60):
        positions[photograph, :, :50] = np.arange(50) + 50 * (photograph % len(people))
        values[photograph, :, :50] = 1
        positions[photograph, :, 50:] = np.sort(positions[photograph, :, 50:] % 20_000 + 5000)
    return replace(features, indices=positions.ravel(), values=values.ravel())


def _predict(
    features: Features, params: TrainParams, fold_count: int = 4, *, share_preprocessor: bool = True
) -> OutOfFold:
    return predict_out_of_fold(features, params, CPU, NOT_KEPT, fold_count, share_preprocessor=share_preprocessor)


def _relabel(features: Features, **people: str) -> Features:
    """Return the features of photographs in other folders, by the number in the photograph's name."""
    renamed = {f"{number.removeprefix('n')}.jpg": person for number, person in people.items()}
    photos = [replace(photo, person=renamed.get(photo.path, photo.person)) for photo in features.photos]
    return replace(features, photos=photos)


@pytest.mark.parametrize("name", RECIPES)
def test_people_are_recognized_in_photographs_that_are_in_a_wrong_folder(name: str) -> None:
    features = _draw("original", "mirrored")
    predicted = _predict(_relabel(features, n0="Bo", n7="Cy", n11="Ann"), RECIPES[name])
    assert [photo.path for photo in predicted.photos] == [photo.path for photo in features.photos]
    found = [predicted.class_names[label] for label in predicted.logits.argmax(axis=1)]
    assert found == [photo.person for photo in features.photos]
    assert predicted.accuracy == 57 / 60
    assert predicted.judged.all()


@pytest.mark.parametrize("name", RECIPES)
def test_a_label_does_not_change_its_own_prediction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folds: NDArray[np.int64] = np.arange(60) // 3 % 4
    monkeypatch.setattr(out_of_fold_training, "assign_folds", lambda *_: folds)
    features = _draw("original", "mirrored")
    before, after = (_predict(each, RECIPES[name]).logits for each in (features, _relabel(features, n7="Ann")))
    own_fold = folds == folds[7]
    assert np.array_equal(before[own_fold], after[own_fold])
    assert not np.allclose(before[~own_fold], after[~own_fold])


@pytest.mark.parametrize("name", ["lda", "mlp"])
def test_the_same_data_and_seed_give_the_same_predictions(name: str) -> None:
    features = _draw()
    first, second = (_predict(features, RECIPES[name]).logits for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", ["lda", "mlp"])
def test_people_whom_a_classifier_has_not_seen_are_not_judged(name: str) -> None:
    features = _draw()
    photos = [replace(photo, group="same") if photo.person == "Cy" else photo for photo in features.photos]
    predicted = _predict(replace(features, photos=photos), RECIPES[name])
    is_cy = np.array([photo.person == "Cy" for photo in photos])
    assert np.array_equal(predicted.judged, ~is_cy)
    assert (predicted.logits[~is_cy].argmax(axis=1) == predicted.labels[~is_cy]).all()
    assert (predicted.logits[is_cy].argmax(axis=1) != predicted.labels[is_cy]).all()
    assert (predicted.logits[is_cy, 2] < predicted.logits[is_cy, :2].min(axis=1) - 100).all()
    assert predicted.accuracy == 1, "of those who are judged"


@pytest.mark.parametrize("name", ["lda", "mlp"])
def test_a_fold_with_all_photographs_of_a_person_alone_is_not_judged(name: str) -> None:
    features = _draw()
    photos = [replace(photo, group="same") if photo.person == "Cy" else photo for photo in features.photos]
    predicted = _predict(replace(features, photos=photos), RECIPES[name], 60)
    assert [photo.person for photo in predicted.photos] == [photo.person for photo in photos]
    assert np.array_equal(predicted.judged, [photo.person != "Cy" for photo in photos])


@pytest.mark.parametrize("name", ["lda", "mlp"])
def test_who_is_compared_with_nobody_is_not_judged(name: str) -> None:
    features = _draw(people=("Ann", "Bo"))
    photos = [replace(photo, group="same") if photo.person == "Bo" else photo for photo in features.photos]
    folds = assign_folds(photos, 4, RECIPES[name].seed)
    fold_of_bo = folds[[photo.person for photo in photos].index("Bo")]
    predicted = _predict(replace(features, photos=photos), RECIPES[name])
    assert np.array_equal(predicted.judged, folds != fold_of_bo)
    assert predicted.accuracy == 1


def test_near_duplicates_alone_cannot_be_judged() -> None:
    features = _draw()
    photos = [replace(photo, group=photo.person) for photo in features.photos]
    with pytest.raises(CelebflowError, match="near-duplicates"):
        _predict(replace(features, photos=photos), RECIPES["lda"])


def test_people_whom_a_classifier_has_not_seen_are_last_whatever_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_training, "average_logits", lambda *given: average_logits(*given) - np.float32(1e5))
    features = _draw()
    photos = [replace(photo, group="same") if photo.person == "Cy" else photo for photo in features.photos]
    assert _predict(replace(features, photos=photos), RECIPES["lda"]).accuracy == 1


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_no_held_out_label_ends_a_training(name: str) -> None:
    params = RECIPES[name].model_copy(update={"keep_epoch": "last"})
    impatient = params.model_copy(update={"patience_epochs": 1})
    expected, found = (_predict(_draw(), each).logits for each in (params, impatient))
    assert np.array_equal(found, expected)


def test_unknown_people_are_left_out() -> None:
    features = _draw()
    photos = [
        replace(photo, split=UNKNOWN, person="others") if n < 6 else photo for n, photo in enumerate(features.photos)
    ]
    predicted = _predict(replace(features, photos=photos), RECIPES["lda"])
    assert predicted.class_names == ("Ann", "Bo", "Cy")
    assert predicted.photos == photos[6:]
    assert predicted.accuracy == 1


@pytest.mark.parametrize(("people", "fold_count"), [(("Ann", "Bo"), 1), (("Ann",), 5)])
def test_one_fold_or_person_is_an_error(people: tuple[str, ...], fold_count: int) -> None:
    with pytest.raises(CelebflowError, match="at least two"):
        _predict(_draw(people=people), RECIPES["lda"], fold_count)


def _make_photos(groups_of: dict[str, list[str]]) -> list[Photo]:
    return [
        Photo(f"{person}/{number}.jpg", person, "train", "", group)
        for person, groups in groups_of.items()
        for number, group in enumerate(groups)
    ]


def test_folds_keep_groups_together_and_divide_each_person() -> None:
    groups_of = {"Ann": [*"aabcd"], "Bo": [*"ef"], "Cy": [*"ghijklm"], "Di": [*"nad"]}
    photos = _make_photos(groups_of)
    for seed in range(20):
        folds = assign_folds(photos, 3, seed)
        fold_of = dict(zip([photo.group for photo in photos], folds.tolist(), strict=True))
        assert [fold_of[photo.group] for photo in photos] == folds.tolist()
        for person in ("Ann", "Bo", "Cy"):
            assert len({fold_of[group] for group in groups_of[person]}) == min(3, len(set(groups_of[person])))
        assert max(Counter(fold_of.values()).values()) - min(Counter(fold_of.values()).values()) <= 1
    assert len({assign_folds(photos, 3, seed).tobytes() for seed in range(5)}) > 1


@pytest.mark.parametrize("name", ["lda", "mlp"])
def test_without_a_shared_preprocessor_nothing_of_a_fold_is_known_beforehand(name: str) -> None:
    features = _draw()
    params = RECIPES[name]
    folds = _predict(features, params, share_preprocessor=False).folds
    in_train = np.array([photo.split == "train" for photo in features.photos])
    changed_row = int(np.flatnonzero((folds == 0) & in_train)[0])
    values = features.values.reshape(60, -1).copy()
    values[changed_row, ::2] *= 50
    changed = replace(features, values=values.ravel())
    others = (folds == 0) & (np.arange(60) != changed_row)
    first, second = (_predict(each, params, share_preprocessor=False).logits[others] for each in (features, changed))
    assert np.allclose(first, second, atol=1e-4)
