"""Two results are compared on the photographs that both have."""

from dataclasses import replace

import numpy as np
import pytest

from celebflow.errors import CelebflowError
from celebflow.evaluation.comparison import Change, PersonHits, compare_predictions
from celebflow.evaluation.pair_results import DIFFERENT, SAME
from celebflow.evaluation.results import ATTRIBUTE_SEPARATOR, PATH_SEPARATOR, Prediction
from celebflow.evaluation.significance import Interval


def _predict(names: dict[str, str], group: str = "") -> list[Prediction]:
    return [Prediction(path, group or path, path.split("/")[0], name, 0.5, 0.5) for path, name in names.items()]


def test_changes_are_listed_by_photograph_and_counted_by_person() -> None:
    a = _predict({"Ann/1": "Ann", "Ann/2": "Bo", "Bo/1": "Bo", "Bo/2": "Bo", "Cy/1": "Ann", "only a": "x"})
    b = _predict({"Ann/1": "Ann", "Ann/2": "Ann", "Bo/1": "Cy", "Bo/2": "Bo", "Cy/1": "Bo", "Cy/2": "Cy"})
    found = compare_predictions(a, b)
    assert (found.count, found.missing_from_a, found.missing_from_b) == (5, 1, 1)
    assert found.fixed == [Change(a[1], b[1])]
    assert found.broken == [Change(a[2], b[2])]
    assert found.people == [PersonHits("Ann", 2, 1, 2), PersonHits("Bo", 2, 2, 1), PersonHits("Cy", 1, 0, 0)]
    assert (found.accuracy_a, found.accuracy_b, found.overall.difference) == (0.6, 0.6, 0.0)
    assert found.verdict() == "The difference may be chance."


def _draw(fixed: int, broken: int, count: int = 300) -> tuple[list[Prediction], list[Prediction]]:
    correct = {f"Ann/{number}": "Ann" for number in range(count)}
    a = correct | {f"Ann/{number}": "Bo" for number in range(fixed)}
    b = correct | {f"Ann/{number}": "Bo" for number in range(count - broken, count)}
    return _predict(a), _predict(b)


@pytest.mark.parametrize(
    ("fixed", "broken", "verdict"),
    [
        (30, 8, "B is better than A."),
        (8, 30, "B is worse than A."),
        (12, 8, "The difference may be chance."),
        (0, 0, "The difference may be chance."),
    ],
)
def test_a_clear_verdict_needs_evidence(fixed: int, broken: int, verdict: str) -> None:
    found = compare_predictions(*_draw(fixed, broken))
    assert (found.overall.only_a, found.overall.only_b) == (broken, fixed)
    assert found.verdict() == verdict
    assert found.overall.difference == pytest.approx((fixed - broken) / 300)


def test_photographs_of_one_group_are_little_evidence() -> None:
    a, b = _draw(30, 8)
    apart = compare_predictions(a, b).overall.interval
    together = [replace(prediction, group="one") for prediction in b[:30]] + b[30:]
    interval = compare_predictions(a, together).overall.interval
    assert interval.low <= 0 < apart.low
    assert np.isfinite([interval.low, interval.high]).all()


def test_pairs_with_one_person_are_little_evidence_whichever_side_the_person_is_on() -> None:
    """B is right about 30 more pairs of different people, all of them with Ann, or all with somebody else."""

    def compare(second: str) -> Interval:
        a, b = (
            [
                Prediction(f"First {row}/0.jpg{PATH_SEPARATOR}{name}/0.jpg", "", DIFFERENT, answer, 0.5, 0.5)
                for row in range(300)
                for name in [second if row < 30 and second else f"Second {row}"]
                for answer in [SAME if wrong and row < 30 else DIFFERENT]
            ]
            for wrong in (True, False)
        )
        return compare_predictions(a, b).overall.interval

    assert compare("Ann").low == 0 < compare("").low


@pytest.mark.parametrize("path", ["Ann/1", f"Ann/1{ATTRIBUTE_SEPARATOR}Hat"])
def test_what_changed_between_two_results_is_not_compared(path: str) -> None:
    one, other = "1" * 64, "2" * 64
    kept = Prediction(path.replace("1", "0"), one, "yes", "yes", 0.5, 0.5)
    before = Prediction(path, one, "yes", "no", 0.5, 0.5)
    for after, changed_count in (
        (replace(before, actual="no"), 1),
        (replace(before, group=other), 1),
        (replace(before, group="Ann"), 0),
        (before, 0),
    ):
        found = compare_predictions([kept, before], [kept, after])
        assert (found.count, found.changed_count) == (2 - changed_count, changed_count)
        assert (found.missing_from_a, found.missing_from_b, found.fixed, found.broken) == (0, 0, [], [])
    with pytest.raises(CelebflowError, match="in common.*1 have the same paths, but their labels or photographs"):
        compare_predictions([before], [replace(before, actual="no")])


def test_results_without_common_photographs_are_an_error() -> None:
    with pytest.raises(CelebflowError, match="no photograph of this split in common"):
        compare_predictions(_predict({"Ann/1": "Ann"}), _predict({"Ann/2": "Ann"}))


def test_results_of_two_tasks_are_not_compared() -> None:
    photograph, pair = _predict({"Ann/1": "Ann"}), _predict({"Ann/1\tAnn/2": "same"})
    for one, other in ((photograph, pair), (pair, photograph)):
        with pytest.raises(CelebflowError) as caught:
            compare_predictions(one, other)
        for part in ("task recognition", "task verification", "Only results of one task"):
            assert part in str(caught.value)
