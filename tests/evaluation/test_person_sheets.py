"""Faults of photographs, and what makes people hard to recognize, are found where they are, and only there."""

import numpy as np
import pytest

from celebflow.classifier.out_of_fold import OutOfFold
from celebflow.data.photos import Photo
from celebflow.evaluation.person_sheets import build_sheets, compare_faults, find_faults
from celebflow.evaluation.quality import Quality
from celebflow.evaluation.suspects import Suspect

NAMES = ("Ann", "Bo", "Cy", "Di")


def _predict(counts: list[int], wrong: dict[int, int]) -> OutOfFold:
    """Return predictions of so many photographs of each person; those of some rows are another person's."""
    labels = np.repeat(np.arange(len(counts)), counts)
    logits = np.zeros((len(labels), len(NAMES)), np.float32)
    logits[np.arange(len(labels)), labels] = 4
    for row, other in wrong.items():
        logits[row, other] = 8
    photos = [Photo(f"{NAMES[label]}/{row}", NAMES[label], "train", str(row), "") for row, label in enumerate(labels)]
    return OutOfFold(NAMES, photos, labels, np.zeros(len(labels), np.int64), logits, np.ones(len(labels), bool))


def _quality(brightness: float = 0.5, sharpness: float = 0.1, size: float = 90, turn: float | None = 0.1) -> Quality:
    return Quality(brightness, sharpness, size, turn)


def test_faults_are_the_worst_tenth_of_what_varies() -> None:
    qualities = [_quality(brightness=number / 100, turn=None) for number in range(100)]
    faults = find_faults(qualities)
    assert list(faults) == ["dark"], "the others are all alike, or cannot be measured"
    assert np.flatnonzero(faults["dark"]).tolist() == list(range(10))
    qualities = [_quality(sharpness=number, size=200 - number, turn=number / 10) for number in range(100)]
    faults = find_faults(qualities)
    assert np.flatnonzero(faults["blurred"]).tolist() == list(range(10))
    assert np.flatnonzero(faults["small"]).tolist() == np.flatnonzero(faults["turned"]).tolist() == list(range(90, 100))


def test_errors_among_faulty_photographs_are_compared_with_the_others() -> None:
    predicted = _predict([25] * 4, dict.fromkeys((0, 1, 2, 3, 40), 3))
    dark, small = np.arange(100) < 10, np.arange(100) >= 90
    first, second = compare_faults(predicted, {"small": small, "dark": dark})
    assert (first.fault, first.error_rate, first.is_clear) == ("dark", 0.4, True)
    assert first.other_error_rate == pytest.approx(1 / 90)
    assert (second.fault, second.error_rate, second.is_clear) == ("small", 0.0, False)


def test_a_sheet_says_whom_a_person_is_taken_for_and_why() -> None:
    # Ann has few photographs, some of Bo's are dark, Di has an error without a reason, and Cy has none.
    predicted = _predict([6, 40, 40, 40], {0: 2, 1: 2, 2: 3, 3: 2, 10: 0, 90: 1})
    dark = np.isin(np.arange(126), [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 50, 51])
    suspects = [Suspect("Ann/0", "train", "", "Ann", "Cy", 0.1, 0.9)]
    ann, bo, di, cy = build_sheets(predicted, {"dark": dark}, suspects)
    assert (ann.person, ann.photograph_count, ann.error_count, ann.suspect_count) == ("Ann", 6, 4, 1)
    assert ann.taken_for == [("Cy", 3), ("Di", 1)]
    few, alike = ann.reasons
    assert "few photographs (6, where the median is 40)" in few and "looks like Cy" in alike
    assert (bo.person, bo.reasons) == ("Bo", ["10 of 40 are dark"])
    assert (di.person, di.error_count, di.reasons) == ("Di", 1, [])
    assert (cy.person, cy.error_count, cy.taken_for, cy.reasons) == ("Cy", 0, [], [])


def test_photographs_that_were_not_judged_are_no_errors() -> None:
    predicted = _predict([10] * 4, {0: 1})
    predicted.judged[0] = False
    sheets = {sheet.person: sheet for sheet in build_sheets(predicted, {}, [])}
    assert sheets["Ann"].error_count == 0
