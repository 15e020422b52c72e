"""Training a model of attributes on parts of train is training on less: the same recipe, nested parts, whole people."""

from dataclasses import replace
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest

from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier import attribute_part_training, attribute_subset_training
from celebflow.classifier.attribute_subset_training import choose_attribute_fractions, train_attributes_on_subsets
from celebflow.classifier.attribute_training import fit_attributes, select_attributes
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.discriminants import fit_ridges
from celebflow.classifier.fits import NOT_KEPT
from celebflow.classifier.subset_training import SubsetResult
from celebflow.data.attributes import BLANK, NO, AttributeTable
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams
from tests.conftest import draw_features
from tests.training import make_train_params

CPU = ComputeParams(device="cpu")
COUNT, PEOPLE = 80, tuple(f"Person {number}" for number in range(20))
RECIPES = {
    "ridge": make_train_params("square_root", "l2_normalize", classifier="ridge"),
    "standardized ridge": make_train_params("standardize", classifier="ridge"),
    "projected logistic": make_train_params("l2_normalize", pca_components=10, classifier="logistic"),
    "linear": make_train_params("l2_normalize", classifier="linear", keep_epoch="best", patience_epochs=1),
}


def _draw() -> tuple[Features, AttributeTable]:
    """Return features of photographs in two views, and labels of them, of which some are blank and one is rare."""
    features = draw_features(COUNT, ("original", "mirrored"), PEOPLE)
    indices = np.sort(features.indices.reshape(-1, 100) % FEATURE_COUNT, axis=1)  # of so many people, beyond the last
    features = replace(features, indices=indices.ravel())
    random = np.random.default_rng(0)
    labels = np.where(random.random((COUNT, 3)) < (0.5, 0.3, 0.0), 1, 0)
    labels[random.random(labels.shape) < 0.1] = BLANK
    labels[:, 2] = NO
    labels[[0, 41], 2] = 1  # of train and val
    names = "Smiling", "=Hat", "Bald"
    return features, AttributeTable(names, tuple(photo.path for photo in features.photos), labels.astype(np.int8))


def _train(params: TrainParams, *fractions: float, repetitions: int = 1) -> list[SubsetResult]:
    return train_attributes_on_subsets(*_draw(), params, CPU, NOT_KEPT, fractions, repetitions)


@pytest.mark.parametrize("name", RECIPES)
def test_on_all_photographs_it_is_the_training_itself(name: str) -> None:
    features, table = _draw()
    params = RECIPES[name].model_copy(update={"keep_epoch": "last", "patience_epochs": None})
    train, val = (select_attributes(features, table, split) for split in ("train", "val"))
    expected = fit_attributes(table.names, train, val, params, CPU, Checkpoints(), lambda _: None).on_val[0]
    *smaller, result = _train(RECIPES[name], 0.25, 0.5, 1.0)
    assert result.count == 40 and all(each.count < 40 for each in smaller)
    assert np.allclose(result.logits, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())
    assert not any(np.allclose(each.logits, expected, rtol=1e-2) for each in smaller)


@pytest.mark.parametrize("name", ["ridge", "projected logistic", "linear"])
def test_a_part_that_shows_one_answer_alone_is_trained_on_as_well(name: str) -> None:
    features, table = _draw()
    labels = table.labels.copy()
    labels[:, 2] = NO
    results = train_attributes_on_subsets(
        features, replace(table, labels=labels), RECIPES[name], CPU, NOT_KEPT, [0.25, 0.5], 2
    )
    assert all(np.isfinite(each.logits).all() for each in results)


def test_what_is_the_same_in_all_repetitions_is_trained_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Mock(side_effect=fit_ridges)
    monkeypatch.setattr(attribute_part_training, "fit_ridges", fit)
    results = _train(RECIPES["ridge"], 0.3, 1.0, repetitions=3)
    assert [each.repetition for each in results] == [0, 0, 1, 1, 2, 2]
    assert [each.count for each in results[1::2]] == [40, 40, 40]
    assert np.array_equal(results[1].logits, results[5].logits)
    assert not np.array_equal(results[0].logits, results[2].logits)
    assert fit.call_count == 4


def test_the_same_seed_gives_the_same() -> None:
    first, again = (_train(RECIPES["ridge"], 0.4, repetitions=2) for _ in range(2))
    assert all(np.array_equal(one.logits, other.logits) for one, other in zip(first, again, strict=True))


def test_parts_are_nested_and_hold_whole_people_and_groups() -> None:
    features, table = _draw()
    photos = [
        replace(photo, person="" if number % 20 < 8 else photo.person) for number, photo in enumerate(features.photos)
    ]
    for number, other in ((0, 1), (2, 9), (10, 11)):  # of nobody known, of somebody, and of two people
        photos[number] = replace(photos[number], group=photos[other].group)
    examples = select_attributes(replace(features, photos=photos), table, "train")
    units = attribute_subset_training._number_units(examples)
    assert len(np.unique(units)) == 12 + 16 - 3
    fractions = [0.1, 0.4, 0.7, 1.0]
    seen = set()
    for seed in range(5):
        masks = attribute_subset_training._choose_parts(units, fractions, seed)
        for mask, fraction in zip(masks, fractions, strict=True):
            for key in ("person", "group"):
                taken, left = ({getattr(photos[row], key) for row in examples.rows[each]} for each in (mask, ~mask))
                assert not (taken & left) - {""}, key
            assert max(10, 40 * fraction) <= mask.sum() < max(10, 40 * fraction) + 4
        for smaller, larger in pairwise(masks):
            assert (smaller <= larger).all() and smaller.sum() < larger.sum()
        assert masks[-1].all()
        seen.add(masks[0].tobytes())
    assert len(seen) > 1, "another seed takes others"


def test_fractions_that_take_as_many_photographs_are_one() -> None:
    features, _ = _draw()
    assert choose_attribute_fractions(features, (1.0, 0.5, 0.1, 0.2, 0.505)) == [0.1, 0.5, 1.0]
    with pytest.raises(CelebflowError, match="40 give only 2 different sizes. Add photographs"):
        choose_attribute_fractions(features, (0.1, 0.2, 1.0))
