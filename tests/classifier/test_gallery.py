"""Matches of left-out people come from models without them, and the threshold keeps its promise for new people."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier import gallery as gallery_module
from celebflow.classifier.gallery import MIN_ENROLLMENT_PEOPLE, Gallery, LeftOutMatches, average_people, fit_gallery
from celebflow.classifier.plda import TwoCovariances, fit_two_covariances
from celebflow.features.store import LabeledFeatures, select_split
from tests.conftest import draw_features

PEOPLE = ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus")


def _select(count: int = 8, names: tuple[str, ...] = PEOPLE) -> LabeledFeatures:
    features = draw_features(count * 2 * len(names), people=names)
    return select_split(features, sorted(set(names)), "train")


def _fit(train: LabeledFeatures, person_count: int = len(PEOPLE)) -> Gallery:
    gallery = fit_gallery(train, person_count, 0.5, seed=3)
    assert gallery is not None
    return gallery


def test_left_out_matches_are_those_of_models_without_the_people() -> None:
    train = _select()
    gallery = _fit(train)
    features = train.features
    dense = np.sqrt(features.gather(train.rows).to_dense())
    unit = (dense / np.linalg.norm(dense, axis=1, keepdims=True)).astype(np.float64)
    left_out = gallery.left_out
    np.testing.assert_array_equal(left_out.people, train.labels)
    assert len(set(left_out.folds.tolist())) == 5
    for fold in range(5):
        known = left_out.folds != fold
        assert not set(left_out.people[known]) & set(left_out.people[~known])
        pca = PCA(min(len(unit) // 2, known.sum() - 1), svd_solver="full").fit(unit[known])
        people, labels = np.unique(train.labels[known], return_inverse=True)
        fitted = fit_two_covariances(pca.transform(unit[known]), labels, 0.1, 0.5)
        means, counts = average_people(fitted.project(pca.transform(unit[known])), labels, len(people))
        scores = fitted.model.describe_people(means, counts).score(fitted.project(pca.transform(unit[~known])))
        np.testing.assert_allclose(left_out.scores[~known], scores.max(axis=1), rtol=0.02, atol=0.05)


def test_known_people_match_better_than_those_who_were_left_out() -> None:
    train = _select(12)
    gallery = _fit(train)
    val = select_split(train.features, PEOPLE, "val")
    scores = gallery.people.score(gallery.embed_rows(train.features, val.rows))
    assert (scores.argmax(axis=1) == val.labels).mean() > 0.8
    assert np.median(scores.max(axis=1)) > np.median(gallery.left_out.scores)


def test_a_match_is_the_greatest_with_everybody_even_if_the_model_is_fitted_to_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = tuple("ABCDEFGHIJ")
    train = _select(6, names)
    given: list[Any] = []
    leave_out = gallery_module._leave_people_out

    def keep(*arguments: Any) -> Any:
        given.extend(arguments)
        return leave_out(*arguments)

    monkeypatch.setattr(gallery_module, "_MAX_PEOPLE", 8)
    monkeypatch.setattr(gallery_module, "_leave_people_out", keep)
    gallery = _fit(train, len(names))
    assert len(set(gallery.left_out.people.tolist())) == 8 and (gallery.counts == 6).all()
    among_some, _ = leave_out(*given[:4])
    gained = gallery.left_out.scores - among_some.scores
    assert gained.min() > -1e-3 and gained.max() > 0.1


@settings(deadline=None, max_examples=100)
@given(
    left_out=st.lists(st.integers(-9, 9), min_size=1, max_size=60),
    scores=st.lists(st.integers(-9, 9), min_size=1, max_size=9),
    rate=st.floats(0.01, 0.99),
)
def test_the_threshold_is_the_lowest_with_a_p_value_that_keeps_the_rate(
    left_out: list[int], scores: list[int], rate: float
) -> None:
    count = len(left_out)
    matches = LeftOutMatches(np.array(left_out, float), np.arange(count), np.zeros(count, int))
    values = np.array(scores, float)
    p_values = matches.compute_p_values(values)
    np.testing.assert_allclose(
        p_values, [(1 + sum(each >= score for each in left_out)) / (count + 1) for score in scores]
    )
    known = values >= matches.choose_threshold(rate)
    if matches.can_promise(rate):
        np.testing.assert_array_equal(known, p_values <= rate)
    else:
        np.testing.assert_array_equal(known, values > max(left_out))


def test_of_new_people_as_many_reach_the_threshold_as_promised() -> None:
    """The people of many draws come from one two-covariance model."""
    random = np.random.default_rng(0)
    model = TwoCovariances(np.full(6, 2.0))

    def draw(person_count: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        people = np.repeat(np.arange(person_count), count)
        vectors = random.normal(scale=np.sqrt(2), size=(person_count, 6))[people]
        return model.equalize(vectors + random.normal(size=vectors.shape)), people

    rates = []
    for _ in range(40):
        known, labels = draw(20, 6)
        matches = np.empty(len(known))
        folds = labels % 5
        for fold in range(5):
            own = folds != fold
            people = model.describe_people(
                *average_people(known[own], np.unique(labels[own], return_inverse=True)[1], 16)
            )
            matches[~own] = people.score(known[~own]).max(axis=1)
        everybody = model.describe_people(*average_people(known, labels, 20))
        unknown, _ = draw(20, 6)
        threshold = LeftOutMatches(matches, labels, folds).choose_threshold(0.1)
        rates.append((everybody.score(unknown).max(axis=1) >= threshold).mean())
    assert np.mean(rates) == pytest.approx(0.1, abs=0.04)


def test_a_gallery_is_the_same_each_time_and_once_saved() -> None:
    train = _select()
    gallery, again = _fit(train), _fit(train)
    state = gallery.state()
    for name, tensor in again.state().items():
        np.testing.assert_array_equal(tensor, state[name])
    loaded = Gallery.from_state(state, FEATURE_COUNT)
    rows = train.rows[:5]
    expected = gallery.people.score(gallery.embed_rows(train.features, rows))
    np.testing.assert_array_equal(loaded.people.score(loaded.embed_rows(train.features, rows)), expected)
    del state["means"]
    with pytest.raises(KeyError):
        Gallery.from_state(state, FEATURE_COUNT)


def test_without_two_photographs_of_anybody_nobody_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    train = _select()
    first = np.unique(train.labels, return_index=True)[1]
    alone = LabeledFeatures(train.features, train.rows[first], train.labels[first])
    assert fit_gallery(alone, len(PEOPLE), 0.5, 0) is None
    assert "nobody has two photographs" in capsys.readouterr().out
    assert fit_gallery(_select(names=("Ann", "Bo")), 2, 0.5, 0) is None


@pytest.mark.parametrize("count", [MIN_ENROLLMENT_PEOPLE - 1, MIN_ENROLLMENT_PEOPLE])
def test_enrollment_is_tried_with_as_many_people_as_enroll_says(count: int) -> None:
    gallery = _fit(_select(names=PEOPLE[:count]), count)
    assert bool(gallery.trials) == (count == MIN_ENROLLMENT_PEOPLE)


def test_a_sample_of_many_photographs_holds_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_module, "_MAX_PHOTOGRAPHS", 16)
    train = _select(12)
    gallery = _fit(train)
    assert len(gallery.left_out.scores) == 16
    counts = np.bincount(gallery.left_out.people)
    assert counts.min() >= 2 and counts.max() <= 3
    np.testing.assert_array_equal(gallery.counts, np.bincount(train.labels))


def test_with_more_people_than_the_sample_holds_nobody_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gallery_module, "_MAX_PHOTOGRAPHS", len(PEOPLE) - 1)
    assert fit_gallery(_select(), len(PEOPLE), 0.5, 0) is None
    assert "nobody has two photographs" in capsys.readouterr().out
