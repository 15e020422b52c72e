"""The text of a comparison says which result is better, for whom, and on which photographs."""

from dataclasses import replace

import pytest

from celebflow.evaluation.comparison import compare_predictions
from celebflow.evaluation.results import Prediction
from celebflow.experiments.comparison_text import format_comparison


def _predict(person: str, *predicted: str) -> list[Prediction]:
    """Return predictions for photographs of one person, each of which is its own group."""
    paths = [f"{person}/{number}.jpg" for number in range(len(predicted))]
    return [Prediction(path, path, person, name, 0.5, 0.5) for path, name in zip(paths, predicted, strict=True)]


A = [*_predict("Zoe", "Bo", "Bo", "Zoe", "Cy"), *_predict("Bo", "Bo", "Bo"), *_predict("Cy", "Cy")]
B = [*_predict("Zoe", "Zoe", "Zoe", "Zoe", "Zoe"), *_predict("Bo", "Cy", "Bo"), *_predict("Di", "Di")]


def test_the_summary_counts_photographs_and_tells_the_difference() -> None:
    text = format_comparison("HEAD", "workspace", "val", compare_predictions(A, B), 20)
    photographs, accuracy, test, verdict = text.split("\n\n")[0].splitlines()
    assert photographs == "A: HEAD, B: workspace, 6 photographs of val in both, 1 missing from A, 1 missing from B."
    for part in ("A 0.5000", "B 0.8333", "difference +0.3333", "95 % interval"):
        assert part in accuracy
    assert test == "Only A is right on 1, only B on 3: p = 0.62."
    assert verdict == "The difference may be chance."


def test_people_are_listed_by_their_gain_and_unchanged_people_are_not() -> None:
    text = format_comparison("HEAD", "workspace", "val", compare_predictions(A, B), 20)
    rows = [line.split() for line in text.split("\n\n")[1].splitlines()]
    assert rows[1:] == [["Zoe", "4", "1", "4", "+3"], ["Bo", "2", "2", "1", "-1"]]


@pytest.mark.parametrize(("max_photographs", "shown", "hidden"), [(20, 3, 0), (3, 3, 0), (1, 1, 2), (-1, 3, 0)])
def test_lists_of_photographs_have_a_maximum(max_photographs: int, shown: int, hidden: int) -> None:
    text = format_comparison("HEAD", "workspace", "val", compare_predictions(A, B), max_photographs)
    fixed, broken = text.split("\n\n")[2:]
    assert [line.split()[0] for line in fixed.splitlines()[1 : shown + 1]] == ["Zoe/0.jpg", "Zoe/1.jpg", "Zoe/3.jpg"][
        :shown
    ]
    assert ("--limit -1" in fixed) == (f"and {hidden} more" in fixed) == (hidden > 0)
    assert [line.split() for line in broken.splitlines()[1:]] == [["Bo/0.jpg", "Bo", "Cy"]]


def test_equal_results_have_no_lists() -> None:
    text = format_comparison("HEAD", "workspace", "val", compare_predictions(A, A), 20)
    assert len(text.split("\n\n")) == 1
    assert "missing" not in text


def test_photographs_that_changed_are_counted() -> None:
    changed = [replace(each, actual="Di") if each.actual == "Bo" else each for each in A]
    text = format_comparison("HEAD", "workspace", "val", compare_predictions(A, changed), 20)
    assert "5 photographs of val in both, 2 left out because their labels or photographs changed." in text


def test_pairs_are_called_pairs_and_both_photographs_are_named() -> None:
    a = Prediction("Zoe/0.jpg\tBo/0.jpg", "Zoe", "different", "same", 0.5, 0.5)
    text = format_comparison("HEAD", "b", "val", compare_predictions([a], [replace(a, predicted="different")]), 20)
    assert "1 pairs of val in both" in text and "Zoe/0.jpg | Bo/0.jpg" in text
    assert "photographs" not in text and "\t" not in text
