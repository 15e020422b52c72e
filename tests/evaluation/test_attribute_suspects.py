"""Suspect labels of attributes are the flipped ones, beside photographs with both labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from celebflow.classifier.attribute_out_of_fold import AttributesOutOfFold
from celebflow.data.attributes import BLANK, NO, YES
from celebflow.data.photos import Photo
from celebflow.data.tables import load_rows
from celebflow.evaluation.attribute_suspects import (
    AttributeCount,
    AttributeSuspect,
    count_suspects,
    find_attribute_suspects,
    find_nearest_labeled,
    save_attribute_suspects,
)

NAMES = ("Glasses", "=Rare", "Hard")
COUNT = 200
FLIPPED = [(5, 0), (40, 0), (71, 0), (12, 1), (150, 1)]


def _predict(flipped: list[tuple[int, int]]) -> AttributesOutOfFold:
    """Return answers that are surely right for the first two attributes, and often wrong for the third."""
    random = np.random.default_rng(0)
    shown = np.stack([np.arange(COUNT) % 2, np.arange(COUNT) % 20 == 0, random.random(COUNT) < 0.5], axis=1).astype(int)
    logits = random.normal(size=shown.shape) + np.array([6, 6, 1]) * (2 * shown - 1)
    labels = shown.astype(np.int64)
    for place in flipped:
        labels[place] = YES + NO - labels[place]
    splits = ("train", "train", "val", "test")
    photos = [Photo(f"{row}.jpg", "", splits[row % 4], f"{row:064}", f"group {row}") for row in range(COUNT)]
    judged = np.ones(labels.shape, bool)
    return AttributesOutOfFold(NAMES, photos, labels, np.zeros(COUNT, np.int64), logits.astype(np.float32), judged)


def _name_places(suspects: list[AttributeSuspect]) -> list[tuple[int, int]]:
    return [(int(Path(each.path).stem), NAMES.index(each.attribute)) for each in suspects]


def _leave_out_hard(suspects: list[AttributeSuspect]) -> list[AttributeSuspect]:
    return [each for each in suspects if each.attribute != "Hard"]


def test_flipped_labels_come_first_and_of_easy_attributes_no_others() -> None:
    predicted = _predict(FLIPPED)
    suspects = find_attribute_suspects(predicted)
    assert {*_name_places(_leave_out_hard(suspects))} == {*FLIPPED}
    assert {*_name_places(suspects[:3])} < {*FLIPPED}
    for each, (row, attribute) in zip(suspects, _name_places(suspects), strict=True):
        photo = predicted.photos[row]
        assert (each.split, each.sha256) == (photo.split, photo.sha256)
        assert (each.given, each.likelier) == (
            ("yes", "no") if predicted.labels[row, attribute] == YES else ("no", "yes")
        )
        assert each.probability_of_given + each.probability_of_likelier == pytest.approx(1)
        assert each.probability_of_given < 0.5
    of_given = [each.probability_of_given for each in suspects]
    assert of_given == sorted(of_given), "the surest first"
    for name in NAMES:
        assert [each.rank for each in suspects if each.attribute == name] == list(
            range(1, sum(each.attribute == name for each in suspects) + 1)
        )


def test_clean_labels_give_few_suspects() -> None:
    suspects = find_attribute_suspects(_predict([]))
    assert {each.attribute for each in suspects} <= {"Hard"}
    assert len(suspects) < 0.2 * COUNT


def test_a_network_that_is_too_sure_has_as_many_suspects() -> None:
    predicted = _predict(FLIPPED)
    for scale, shift in ((1, 0), (4, 0), (1, 1)):
        changed = replace(predicted, logits=scale * predicted.logits + np.float32(shift))
        suspects = find_attribute_suspects(changed)
        assert {*_name_places(_leave_out_hard(suspects))} == {*FLIPPED}
        assert all(each.probability_of_given < 0.5 for each in suspects)
        expected = len(find_attribute_suspects(predicted))
        assert len(suspects) == pytest.approx(expected, abs=2), "they are calibrated"


def test_blanks_and_labels_that_nobody_judged_are_never_listed() -> None:
    predicted = _predict(FLIPPED)
    labels, judged = predicted.labels.copy(), predicted.judged.copy()
    labels[5, 0] = BLANK
    labels[80:, 2] = BLANK
    judged[labels == BLANK] = False
    judged[12, 1] = False
    suspects = find_attribute_suspects(replace(predicted, labels=labels, judged=judged))
    places = _name_places(suspects)
    assert {*FLIPPED} - {(5, 0), (12, 1)} <= {*places}
    assert all(judged[place] for place in places)


@pytest.mark.parametrize("answer", [YES, NO])
def test_an_attribute_of_one_answer_has_no_suspects(answer: int) -> None:
    predicted = _predict(FLIPPED)
    labels, judged = predicted.labels.copy(), predicted.judged.copy()
    judged[labels[:, 0] != answer, 0] = False
    judged[:, 2] = False
    suspects = find_attribute_suspects(replace(predicted, judged=judged))
    assert {each.attribute for each in suspects} == {"=Rare"}


def test_suspects_are_counted_by_attribute_and_label() -> None:
    predicted = _predict(FLIPPED)
    judged = predicted.judged.copy()
    judged[:, 2] = False
    judged[:10, 1] = False
    predicted = replace(predicted, judged=judged)
    counts = count_suspects(predicted, find_attribute_suspects(predicted))
    assert counts == [
        AttributeCount("Glasses", COUNT, 1, 2),  # 40 showed no
        AttributeCount("=Rare", COUNT - 10, 2, 0),
        AttributeCount("Hard", 0, 0, 0),
    ]
    assert [each.suspects for each in counts] == [3, 2, 0]


def test_the_nearest_have_both_labels_and_are_of_train_and_neither_suspect_nor_the_same() -> None:
    predicted = _predict(FLIPPED)
    suspects = [each for each in find_attribute_suspects(predicted) if each.attribute == "Glasses"]
    (number,) = [number for number, each in enumerate(suspects) if each.path == "5.jpg"]
    # From the nearest: itself, a near-duplicate, a suspect, photographs of val and test, then no, no, and yes of train.
    order = [5, 9, 40, 6, 7, 8, 12, 13, 17]
    similarities = np.zeros((COUNT, COUNT))
    similarities[5, order] = np.linspace(1, 0.5, len(order))
    photos = list(predicted.photos)
    photos[9] = replace(photos[9], group="group 5")
    predicted = replace(predicted, photos=photos)
    found = find_nearest_labeled(suspects, predicted, np.arange(COUNT), similarities)
    assert found[number] == {"yes": "13.jpg", "no": "8.jpg"}
    rows = np.array([5, 8, 12, 40, 71])  # a sample, in which nobody has glasses, but for suspects
    found = find_nearest_labeled(suspects, predicted, rows, similarities[np.ix_(rows, rows)])
    assert found[number] == {"no": "8.jpg"}


def test_the_table_holds_any_name(tmp_path: Path) -> None:
    suspects = find_attribute_suspects(_predict(FLIPPED))
    save_attribute_suspects(suspects, tmp_path / "suspects.csv")
    assert load_rows(AttributeSuspect, tmp_path / "suspects.csv") == suspects
    assert "'=Rare" in (tmp_path / "suspects.csv").read_text()
