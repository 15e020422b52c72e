"""Enrolled people match by a model that never saw them, and the promise for unknown people holds beside them."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from celebflow.classifier.enrollment import (
    EnrolledPeople,
    Enrollment,
    load_enrollment,
    save_enrollment,
    start_enrollment,
)
from celebflow.classifier.enrollment_trials import LeftOutFold, try_enrollment
from celebflow.classifier.gallery import Gallery, LeftOutMatches, average_people
from celebflow.classifier.plda import TwoCovariances
from celebflow.data.duplicates import HashArray
from celebflow.errors import CelebflowError
from celebflow.features.transform import Transform
from tests.models import make_gallery

DIMENSIONS = 12
MODEL = TwoCovariances(np.full(DIMENSIONS, 2.0))


def _draw(random: np.random.Generator, person_count: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the (N, D) coordinates of photographs of new people from the model, and the people, (N,)."""
    people = np.repeat(np.arange(person_count), count)
    vectors = random.normal(scale=np.sqrt(2), size=(person_count, DIMENSIONS))[people]
    return MODEL.equalize(vectors + random.normal(size=vectors.shape)), people


def _draw_gallery(random: np.random.Generator) -> tuple[Gallery, list[LeftOutFold]]:
    """Make the gallery of 20 people whom the model, not fitted to any, left out by fives."""
    known, labels = _draw(random, 20, 12)
    folds = labels % 4
    matches, left_out = np.empty(len(known)), []
    for fold in range(4):
        own = folds != fold
        people = MODEL.describe_people(*average_people(known[own], np.unique(labels[own], return_inverse=True)[1], 15))
        scores = people.score(known[~own])
        matches[~own] = scores.max(axis=1)
        left_out.append(LeftOutFold(MODEL, known[~own], labels[~own], scores))
    preprocessor = make_gallery(3, Transform(32)).preprocessor
    means, counts = average_people(known, labels, 20)
    of_left_out = LeftOutMatches(matches, labels, folds)
    return Gallery(preprocessor, MODEL, means, counts, of_left_out, try_enrollment(left_out, 0)), left_out


def _make_hashes(count: int) -> HashArray:
    return np.random.default_rng(count).integers(2**64, size=(count, 2, 4), dtype=np.uint64)


def _make_enrollment(names: tuple[str, ...], people: np.ndarray, coordinates: np.ndarray) -> Enrollment:
    return Enrollment("", names, people, coordinates, _make_hashes(len(people)))


def test_of_new_people_as_many_match_anybody_as_promised_with_few_and_with_more_photographs() -> None:
    random = np.random.default_rng(0)
    accepted: dict[int, list[float]] = {1: [], 4: []}
    hits = []
    for _ in range(10):
        gallery, _ = _draw_gallery(random)
        unknown, _ = _draw(random, 30, 3)
        for count, rates in accepted.items():
            coordinates, people = _draw(random, 5, 12)
            shown = np.tile(np.arange(12) < count, 5)
            names = tuple("ABCDE")
            enrollment = _make_enrollment(names, people[shown], coordinates[shown])
            enrolled = EnrolledPeople(enrollment, gallery, 0.1)
            rates.append(enrolled.match(unknown, gallery.people.score(unknown)).known.any(axis=1).mean())
            others = coordinates[~shown]
            matches = enrolled.match(others, gallery.people.score(others))
            hits.append(matches.known[np.arange(len(matches.known)), 1 + people[~shown]].mean())
    for rates in accepted.values():
        assert 0.03 < np.mean(rates) < 0.13
    assert np.mean(hits) > 0.4


def test_known_means_that_the_p_value_keeps_the_promise() -> None:
    random = np.random.default_rng(1)
    gallery, _ = _draw_gallery(random)
    coordinates, people = _draw(random, 3, 2)
    enrolled = EnrolledPeople(_make_enrollment(("A", "B", "C"), people, coordinates), gallery, 0.1)
    unknown, _ = _draw(random, 40, 3)
    matches = enrolled.match(unknown, gallery.people.score(unknown))
    np.testing.assert_array_equal(matches.known.any(axis=1), matches.p_values <= 0.1)
    assert 0 < matches.known.any(axis=1).mean() < 1


def test_scores_of_other_people_are_never_those_of_ones_own() -> None:
    """Far apart, everybody matches only their own photographs."""
    centers = 50 * np.eye(DIMENSIONS)[:6]
    people = np.repeat(np.arange(6), 4)
    fold = LeftOutFold(MODEL, centers[people], people, np.zeros((24, 2)))
    trials = try_enrollment([fold], 0)
    assert [trial.photograph_count for trial in trials] == [1, 2, 3], "nobody has more than four photographs"
    own = MODEL.describe_people(centers, np.ones(6, int)).score(centers).diagonal()
    for trial in trials:
        assert len(trial.others) == 3 * 5 * 6 * (4 - trial.photograph_count)
        assert trial.others.max() < own.min() - 100


def test_without_two_photographs_of_anybody_there_are_no_trials() -> None:
    fold = LeftOutFold(MODEL, np.eye(DIMENSIONS)[:3], np.arange(3), np.zeros((3, 2)))
    assert try_enrollment([fold], 0) == ()


def test_a_person_is_judged_by_the_trial_with_as_many_photographs_or_fewer() -> None:
    gallery, _ = _draw_gallery(np.random.default_rng(2))
    assert [trial.photograph_count for trial in gallery.trials] == [1, 2, 3, 5, 10]
    assert [gallery.find_trial(count).photograph_count for count in (1, 2, 4, 9, 50)] == [1, 2, 3, 5, 10]


def test_people_are_added_removed_and_the_same_once_saved(tmp_path: Path) -> None:
    gallery = make_gallery(3, Transform(32))
    file = tmp_path / "models" / "enrolled.safetensors"
    assert load_enrollment(file, gallery) is None
    random = np.random.default_rng(0)
    first, second, third = random.normal(size=(3, 2, 4))
    hashes = _make_hashes(6)
    enrollment = start_enrollment(gallery).add("Ann", first, hashes[:2]).add("Bo\n", second, hashes[2:4])
    enrollment = enrollment.add("Ann", third, hashes[4:])
    assert (enrollment.names, enrollment.counts.tolist()) == (("Ann", "Bo\n"), [4, 2])
    assert enrollment.find_photograph(third[1]) == "Ann" and enrollment.find_photograph(third[1] + 1) is None
    save_enrollment(enrollment, file)
    loaded = load_enrollment(file, gallery)
    assert loaded is not None and loaded.names == enrollment.names
    np.testing.assert_array_equal(loaded.people, enrollment.people)
    np.testing.assert_array_equal(loaded.coordinates, np.vstack([first, second, third]))
    np.testing.assert_array_equal(loaded.hashes, hashes)
    left = loaded.remove("Ann")
    assert (left.names, left.people.tolist()) == (("Bo\n",), [0, 0])
    np.testing.assert_array_equal(left.coordinates, second)
    assert left.find_near_duplicate(hashes[3], 0) == "Bo\n" and left.find_near_duplicate(hashes[4], 0) is None
    save_enrollment(left.remove("Bo\n"), file)
    assert not file.exists(), "without anybody there is no file"


def test_people_of_another_classifier_are_refused_by_name(tmp_path: Path) -> None:
    gallery = make_gallery(3, Transform(32))
    file = tmp_path / "enrolled.safetensors"
    save_enrollment(start_enrollment(gallery).add("Ann", np.ones((1, 4)), _make_hashes(1)), file)
    for other in (replace(gallery, means=gallery.means + 1e-9), None):
        with pytest.raises(CelebflowError, match=r"enrolled\.safetensors.*\(Ann\).*celebflow enroll"):
            load_enrollment(file, other)


def test_a_file_of_an_earlier_version_lacks_hashes_and_is_read(tmp_path: Path) -> None:
    gallery = make_gallery(3, Transform(32))
    file = tmp_path / "enrolled.safetensors"
    tensors = {"people": torch.zeros(2, dtype=torch.int64), "coordinates": torch.ones(2, 4, dtype=torch.float64)}
    card = {"format": 1, "fingerprint": start_enrollment(gallery).fingerprint, "names": ["Ann"]}
    save_file(tensors, file, {"celebflow_enrollment": json.dumps(card)})
    loaded = load_enrollment(file, gallery)
    assert loaded is not None and loaded.find_near_duplicate(_make_hashes(1)[0], 48) is None
    assert loaded.add("Ann", np.zeros((1, 4)), _make_hashes(1)).find_near_duplicate(_make_hashes(1)[0], 48) == "Ann"


@pytest.mark.parametrize("damage", ["cut", "pickle", "no card", "people", "nan", "names", "empty", "nobody", "hashes"])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, damage: str) -> None:
    gallery = make_gallery(3, Transform(32))
    file = tmp_path / "enrolled.safetensors"
    enrollment = start_enrollment(gallery).add("Ann", np.ones((2, 4)), _make_hashes(2))
    save_enrollment(enrollment, file)
    tensors = {"people": torch.zeros(2, dtype=torch.int64), "coordinates": torch.ones(2, 4, dtype=torch.float64)}
    card = {"format": 1, "fingerprint": enrollment.fingerprint, "names": ["Ann"]}
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "pickle":
        file.write_bytes(pickle.dumps({"people": 1}))
    else:
        tensors["people"] += damage == "people"
        tensors["coordinates"][1, 0] = float("nan") if damage == "nan" else 1.0
        if damage == "empty":
            tensors = {"people": tensors["people"][:0], "coordinates": tensors["coordinates"][:0]}
        if damage == "hashes":
            tensors["hashes"] = torch.zeros(1, 2, 4, dtype=torch.int64)
        if damage == "nobody":
            card["names"] = ["Ann", "Bo"]  # of whom there is no photograph
        if damage == "names":
            del card["names"]
        save_file(tensors, file, None if damage == "no card" else {"celebflow_enrollment": json.dumps(card)})
    with pytest.raises(CelebflowError, match=r"enrolled\.safetensors.*Remove it"):
        load_enrollment(file, gallery)
