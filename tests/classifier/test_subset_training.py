"""Training on parts of train is training on less: the same recipe, nested parts, whole groups."""

from dataclasses import replace
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest

from celebflow.classifier import part_training, subset_training
from celebflow.classifier.fits import NOT_KEPT
from celebflow.classifier.subset_training import SubsetResult, choose_fractions, train_on_subsets
from celebflow.classifier.training import compute_logits
from celebflow.errors import CelebflowError
from celebflow.features.store import Features, select_split
from celebflow.params import ComputeParams, TrainParams
from tests.conftest import draw_features
from tests.training import PEOPLE, make_train_params, train

CPU = ComputeParams(device="cpu")
FAST = {
    "lda": make_train_params("square_root", "l2_normalize", pca_components=10, classifier="lda"),
    "logistic": make_train_params("l2_normalize", pca_components=10, classifier="logistic"),
}
RECIPES = {
    **FAST,
    "standardized": make_train_params("standardize", pca_components=10, classifier="lda"),
    "sparse": make_train_params("l2_normalize", classifier="logistic"),
    "mlp": make_train_params(classifier="mlp", keep_epoch="best"),
}


def _train(features: Features, params: TrainParams, *fractions: float, repetitions: int = 1) -> list[SubsetResult]:
    return train_on_subsets(features, params, CPU, NOT_KEPT, fractions, repetitions)


@pytest.mark.parametrize("name", RECIPES)
def test_on_all_photographs_it_is_the_training_itself(name: str) -> None:
    features = draw_features(60, ("original", "mirrored"))
    params = RECIPES[name].model_copy(update={"keep_epoch": "last"})
    classifier, _ = train(features, params)
    expected, _ = compute_logits(classifier, select_split(features, PEOPLE, "val"), 256)
    *_, result = _train(features, RECIPES[name], 0.2, 0.5, 1.0)
    assert result.count == 30
    assert np.allclose(result.logits, expected, atol=2e-3 * np.abs(expected).max())
    assert np.array_equal(result.logits.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("name", FAST)
def test_inner_products_give_what_features_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features = draw_features(60, ("original", "mirrored"))
    by_products = _train(features, FAST[name], 0.3, 0.6, 1.0, repetitions=2)
    monkeypatch.setattr(part_training, "MAX_VIEWS", 0)
    by_features = _train(features, FAST[name], 0.3, 0.6, 1.0, repetitions=2)
    for one, other in zip(by_products, by_features, strict=True):
        assert (one.repetition, one.count) == (other.repetition, other.count)
        assert np.allclose(one.logits, other.logits, atol=2e-3 * np.abs(other.logits).max())


def test_no_label_of_val_ends_a_training() -> None:
    features = draw_features(60)
    impatient = RECIPES["mlp"].model_copy(update={"patience_epochs": 1})
    (expected,), (found,) = (_train(features, each, 1.0) for each in (RECIPES["mlp"], impatient))
    assert np.array_equal(found.logits, expected.logits)


@pytest.mark.parametrize("name", ["lda", "mlp"])
def test_what_is_the_same_in_all_repetitions_is_trained_on_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = "fit_people" if name == "lda" else "fit_classifier"
    counted = Mock(side_effect=getattr(part_training, fit))
    monkeypatch.setattr(part_training, fit, counted)
    results = _train(draw_features(60), RECIPES[name], 0.3, 1.0, repetitions=3)
    assert [(each.repetition, each.count) for each in results] == [(n, size) for n in range(3) for size in (9, 30)]
    assert np.array_equal(results[1].logits, results[5].logits)
    assert counted.call_count == 4


@pytest.mark.parametrize(("max_views", "by_products"), [(90, True), (89, False)])
def test_inner_products_of_very_many_views_are_not_computed(
    max_views: int, by_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Mock(side_effect=part_training.project_part)
    monkeypatch.setattr(part_training, "project_part", project)
    monkeypatch.setattr(part_training, "MAX_VIEWS", max_views)
    _train(draw_features(60, ("original", "mirrored")), FAST["lda"], 1.0)  # 45 photographs of train and val
    assert project.called == by_products


def test_parts_are_nested_hold_everybody_and_keep_groups_whole() -> None:
    features = draw_features(120)
    photos = [replace(photo, group=f"{n // 6}") for n, photo in enumerate(features.photos)]
    examples = select_split(replace(features, photos=photos), PEOPLE, "train")
    seen = set()
    for seed in range(5):
        masks = subset_training._choose_parts(examples, [0.1, 0.3, 0.7, 1.0], seed)
        groups = np.array([int(photos[row].group) for row in examples.rows])
        for mask in masks:
            assert not set(groups[mask]) & set(groups[~mask])
            assert set(examples.labels[mask]) == {0, 1, 2}
        for smaller, larger in pairwise(masks):
            assert (smaller <= larger).all() and smaller.sum() < larger.sum()
        assert masks[-1].all()
        seen.add(masks[0].tobytes())
    assert len(seen) > 1, "another seed takes others"


def test_fractions_that_take_the_same_photographs_are_one() -> None:
    features = draw_features(60)  # ten photographs of each person in train
    assert choose_fractions(features, (1.0, 0.5, 0.1, 0.15, 0.2, 0.52)) == [0.1, 0.5, 1.0]
    with pytest.raises(CelebflowError, match="at most 10 per person give only 2 different sizes. Add photographs"):
        choose_fractions(features, (0.1, 0.12, 1.0))


def test_the_same_seed_gives_the_same_and_repetitions_differ() -> None:
    features = draw_features(60)
    first, again = (_train(features, FAST["lda"], 0.4, repetitions=2) for _ in range(2))
    assert all(np.array_equal(one.logits, other.logits) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0].logits, first[1].logits)
