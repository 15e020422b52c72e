"""Suspects are the photographs in wrong folders, beside photographs that say why."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from celebflow.classifier.out_of_fold import OutOfFold
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.evaluation.suspects import find_suspects, load_suspects, save_suspects

PEOPLE = ("Ann", "Bo", "Cy")
COUNT = 90
MOVED = {5: 0, 40: 2, 71: 1}  # photograph → the person in whose folder it is; it shows the person number % 3


def _predict(moved: dict[int, int]) -> tuple[OutOfFold, NDArray[np.float64]]:
    """Return predictions of who photographs show, and coordinates around each person's own direction."""
    random = np.random.default_rng(0)
    shown = np.arange(COUNT) % 3
    labels = shown.copy()
    labels[list(moved)] = list(moved.values())
    logits = random.normal(size=(COUNT, 3)).astype(np.float32)
    logits[np.arange(COUNT), shown] += 8
    photos = [
        Photo(f"{PEOPLE[label]}/{number}.jpg", PEOPLE[label], "val", f"{number:064}", f"group {number}")
        for number, label in enumerate(labels)
    ]
    coordinates = np.eye(3)[shown] + random.normal(scale=0.1, size=(COUNT, 3))
    return OutOfFold(PEOPLE, photos, labels, np.zeros(COUNT, np.int64), logits, np.ones(COUNT, bool)), coordinates


def test_photographs_in_wrong_folders_are_found_and_no_others() -> None:
    predicted, coordinates = _predict(MOVED)
    suspects = find_suspects(predicted, coordinates)
    assert {each.path for each in suspects} == {predicted.photos[number].path for number in MOVED}
    for each in suspects:
        number = int(Path(each.path).stem)
        photo = predicted.photos[number]
        assert (each.split, each.sha256) == (photo.split, photo.sha256)
        assert (each.person, each.likelier) == (PEOPLE[MOVED[number]], PEOPLE[number % 3])
        assert each.probability_of_person < 0.1 < 0.8 < each.probability_of_likelier <= 1
    of_person = [each.probability_of_person for each in suspects]
    assert of_person == sorted(of_person), "the surest first"


def test_probabilities_are_calibrated_whatever_the_scale_of_logits() -> None:
    predicted, _ = _predict({number: (number + 1) % 3 for number in range(0, COUNT, 7)})
    one, other = (find_suspects(replace(predicted, logits=scale * predicted.logits)) for scale in (1, 3))
    calibrated = [each.probability_of_likelier for each in one]
    by_path = {each.path: each.probability_of_likelier for each in other}
    assert calibrated == pytest.approx([by_path[each.path] for each in one], abs=1e-3)
    assert np.mean(calibrated) < 0.95, "some labels are wrong"


def test_nobody_is_suspect_where_all_labels_are_right() -> None:
    assert find_suspects(*_predict({})) == []


def test_the_nearest_photographs_are_of_both_people_and_no_near_duplicates() -> None:
    predicted, coordinates = _predict({5: 0})
    coordinates[:3] = coordinates[5]  # 0 is of Ann, 1 of Bo, 2 of Cy, and 5 shows Cy
    (suspect,) = find_suspects(predicted, coordinates)
    assert (suspect.nearest_of_person, suspect.nearest_of_likelier) == ("Ann/0.jpg", "Cy/2.jpg")
    photos = list(predicted.photos)
    photos[0], photos[2] = (replace(photos[number], group="group 5") for number in (0, 2))
    (suspect,) = find_suspects(replace(predicted, photos=photos), coordinates)
    assert suspect.nearest_of_person.startswith("Ann/") and suspect.nearest_of_person != "Ann/0.jpg"
    assert suspect.nearest_of_likelier.startswith("Cy/") and suspect.nearest_of_likelier != "Cy/2.jpg"
    (suspect,) = find_suspects(predicted)
    assert (suspect.nearest_of_person, suspect.nearest_of_likelier) == ("", "")


def test_who_is_not_judged_is_no_suspect() -> None:
    predicted, coordinates = _predict(MOVED)
    judged = np.ones(COUNT, bool)
    judged[[5, 40]] = False
    suspects = find_suspects(replace(predicted, judged=judged), coordinates)
    assert [each.path for each in suspects] == ["Bo/71.jpg"]
    of_cy = np.array([photo.person == "Cy" for photo in predicted.photos])
    suspects = find_suspects(replace(predicted, judged=~of_cy), coordinates)
    assert [each.path for each in suspects if each.person == "Cy"] == [], "a person of whom nobody is judged"


def test_a_person_of_whom_nobody_is_judged_may_leave_no_probability_to_the_others() -> None:
    predicted, _ = _predict(MOVED)
    logits = predicted.logits.copy()
    logits[:5, 2] = 1e4
    of_cy = np.array([photo.person == "Cy" for photo in predicted.photos])
    suspects = find_suspects(replace(predicted, judged=~of_cy, logits=logits))
    assert not {each.path for each in suspects} & {photo.path for photo in predicted.photos[:5]}


def test_the_table_holds_any_name(tmp_path: Path) -> None:
    suspects = [replace(each, person="=Ann, \"the\" 'first'") for each in find_suspects(*_predict(MOVED))]
    save_suspects(suspects, tmp_path / "suspects.csv")
    assert load_suspects(tmp_path / "suspects.csv") == suspects


@pytest.mark.parametrize("content", [None, "", "path,split\na,b\n"])
def test_a_table_that_cannot_be_read_is_made_by_the_command(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "suspects.csv").write_text(content)
    with pytest.raises(CelebflowError, match=r"suspects\.csv.*`celebflow suspects`") as error:
        load_suspects(tmp_path / "suspects.csv")
    assert "dvc repro" not in str(error.value), "no stage makes it"
