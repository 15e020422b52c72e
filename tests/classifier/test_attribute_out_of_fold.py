"""Out of fold, no model has seen the photograph that it answers for, its person, nor their labels."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from celebflow.classifier import attribute_out_of_fold, attribute_part_training
from celebflow.classifier.attribute_out_of_fold import (
    AttributesOutOfFold,
    assign_unit_folds,
    predict_attributes_out_of_fold,
)
from celebflow.classifier.fits import NOT_KEPT
from celebflow.data.attributes import BLANK, NO, YES, AttributeTable
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams
from tests.conftest import draw_features
from tests.training import make_train_params

CPU = ComputeParams(device="cpu")
COUNT, PEOPLE = 64, tuple(f"Person {number}" for number in range(16))
SIGNAL = 30  # features of each attribute and answer
RECIPES = {
    "ridge": make_train_params("square_root", "l2_normalize", classifier="ridge"),
    "standardized ridge": make_train_params("standardize", classifier="ridge"),
    "logistic": make_train_params("l2_normalize", classifier="logistic", logistic_c=10.0),
    "projected logistic": make_train_params("l2_normalize", pca_components=30, classifier="logistic", logistic_c=10.0),
    "linear": make_train_params("l2_normalize", classifier="linear", epochs=4, learning_rate=0.1),
    "mlp": make_train_params(
        "l2_normalize", pca_components=30, classifier="mlp", epochs=10, learning_rate=0.01, keep_epoch="best"
    ),
}
FEW = ("ridge", "linear")  # those that predict by products, and by a model for each fold


def _draw() -> tuple[Features, AttributeTable]:
    """Return features of photographs in two views, of which some say both answers, and the labels that they say.

    The first attribute is of the person, as glasses may be, and the second of the photograph.
    """
    features = draw_features(COUNT, ("original", "mirrored"), PEOPLE)
    random = np.random.default_rng(1)
    numbers = np.arange(COUNT)
    labels = np.stack([numbers % len(PEOPLE) % 2, random.random(COUNT) < 0.4], axis=1).astype(np.int8)
    positions = np.sort(features.indices.reshape(COUNT, 2, 100) % 20_000 + 5000, axis=2)
    values = features.values.reshape(positions.shape).copy()
    for attribute in range(2):
        own = slice(attribute * SIGNAL, (attribute + 1) * SIGNAL)
        first = 1000 * attribute + 500 * labels[:, attribute, None, None].astype(np.int64)
        positions[:, :, own] = first + np.arange(SIGNAL)
        values[:, :, own] = 1
    table = AttributeTable(("Glasses", "=Smiling"), tuple(photo.path for photo in features.photos), labels)
    return replace(features, indices=positions.astype(np.uint16).ravel(), values=values.ravel()), table


def _relabel(table: AttributeTable, labels: dict[tuple[int, int], int]) -> AttributeTable:
    """Return the table with other labels of photographs and attributes, by their numbers."""
    changed = table.labels.copy()
    for place, label in labels.items():
        changed[place] = label
    return replace(table, labels=changed)


def _flip(table: AttributeTable, *places: tuple[int, int]) -> AttributeTable:
    return _relabel(table, {place: YES + NO - int(table.labels[place]) for place in places})


def _predict(
    features: Features, table: AttributeTable, params: TrainParams, fold_count: int = 4
) -> AttributesOutOfFold:
    return predict_attributes_out_of_fold(features, table, params, CPU, NOT_KEPT, fold_count)


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"standardized ridge"}))
def test_what_photographs_show_is_answered_whatever_their_labels_say(name: str) -> None:
    features, table = _draw()
    predicted = _predict(features, _flip(table, (0, 0), (7, 1), (30, 0)), RECIPES[name])
    assert predicted.names == table.names and predicted.photos == features.photos
    assert ((predicted.logits >= 0) == (table.labels == YES)).all()
    assert ((predicted.probabilities >= 0.5) == (table.labels == YES)).all()
    assert predicted.judged.all() and predicted.unjudged_count == 0
    assert predicted.accuracy == pytest.approx(1 - 3 / (2 * COUNT))


@pytest.mark.parametrize("name", RECIPES)
def test_labels_of_a_fold_do_not_change_its_own_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folds: NDArray[np.int64] = np.arange(COUNT) % len(PEOPLE) % 4
    monkeypatch.setattr(attribute_out_of_fold, "assign_unit_folds", lambda *_: folds)
    features, table = _draw()
    changed = _relabel(_flip(table, (5, 0), (5, 1), (21, 1)), {(37, 0): BLANK})
    before, after = (_predict(features, each, RECIPES[name]).logits for each in (table, changed))
    own_fold = folds == folds[5]
    assert np.array_equal(before[own_fold], after[own_fold])
    assert not np.allclose(before[~own_fold], after[~own_fold])


@pytest.mark.parametrize("name", ["ridge", "projected logistic"])
def test_products_give_what_a_model_for_each_fold_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features, table = _draw()
    table = _relabel(table, {(number, 0): BLANK for number in range(10)})
    by_products = _predict(features, table, RECIPES[name]).logits
    monkeypatch.setattr(attribute_part_training, "MAX_RIDGE_PHOTOGRAPHS", 0)
    monkeypatch.setattr(attribute_part_training, "can_project_parts", lambda *_: False)
    monkeypatch.setattr(attribute_part_training, "_predict_by_ridges", None)
    np.testing.assert_allclose(by_products, _predict(features, table, RECIPES[name]).logits, rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("name", FEW)
def test_the_same_data_and_seed_give_the_same_answers(name: str) -> None:
    first, second = (_predict(*_draw(), RECIPES[name]).logits for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", FEW)
def test_blanks_are_neither_learned_from_nor_judged(name: str) -> None:
    features, table = _draw()
    random = np.random.default_rng(2)
    blank = random.random(table.labels.shape) < 0.3
    places = [(int(row), int(column)) for row, column in zip(*np.nonzero(blank), strict=True)]
    predicted = _predict(features, _relabel(table, dict.fromkeys(places, BLANK)), RECIPES[name])
    assert np.array_equal(predicted.judged, ~blank)
    assert predicted.unjudged_count == 0, "blanks are no labels"
    assert predicted.accuracy == 1
    assert (((predicted.logits >= 0) == (table.labels == YES))[blank]).mean() > 0.9, "they are answered, too"


@pytest.mark.parametrize("common", [NO, YES])
@pytest.mark.parametrize("name", FEW)
def test_an_answer_that_a_model_has_not_seen_is_not_judged(name: str, common: int) -> None:
    features, table = _draw()
    alike = dict.fromkeys(((number, 0) for number in range(COUNT)), common)
    predicted = _predict(features, _relabel(table, alike), RECIPES[name])
    assert not predicted.judged[:, 0].any() and predicted.judged[:, 1].all()
    assert predicted.unjudged_count == COUNT
    one_person = {(number, 0): YES + NO - common for number in range(3, COUNT, len(PEOPLE))}
    predicted = _predict(features, _relabel(table, alike | one_person), RECIPES[name])
    assert np.array_equal(predicted.judged[:, 0], predicted.folds != predicted.folds[3])


def test_labels_that_are_all_alike_cannot_be_judged() -> None:
    features, table = _draw()
    all_no = _relabel(table, {(row, column): NO for row in range(COUNT) for column in range(2)})
    with pytest.raises(CelebflowError, match="No label can be judged.*two people or more"):
        _predict(features, all_no, RECIPES["ridge"])


def test_one_fold_judges_nothing() -> None:
    with pytest.raises(CelebflowError, match="two folds"):
        _predict(*_draw(), RECIPES["ridge"], 1)


def test_people_and_near_duplicates_are_in_one_fold_and_folds_are_alike_in_size() -> None:
    random = np.random.default_rng(0)
    people = [f"Person {number}" for number in range(12) for _ in range(1 + number % 5)] + [""] * 10
    photos = [Photo(f"{row}.jpg", person, "train", "", f"group {row}") for row, person in enumerate(people)]
    for row, other in ((3, 20), (21, 40), (41, 42)):  # of two people, of a person and nobody known, of nobody known
        photos[row] = replace(photos[row], group=photos[other].group)
    photos = [photos[row] for row in random.permutation(len(photos))]
    for seed in range(20):
        folds = assign_unit_folds(photos, 3, seed)
        for key in ("person", "group"):
            folds_of: dict[str, set[int]] = {}
            for photo, fold in zip(photos, folds.tolist(), strict=True):
                if getattr(photo, key):
                    folds_of.setdefault(getattr(photo, key), set()).add(fold)
            assert {len(found) for found in folds_of.values()} == {1}, key
        counts = np.bincount(folds, minlength=3)
        assert counts.max() - counts.min() <= 1
        order = random.permutation(len(photos))
        assert np.array_equal(assign_unit_folds([photos[row] for row in order], 3, seed), folds[order])
    assert len({assign_unit_folds(photos, 3, seed).tobytes() for seed in range(5)}) > 1
