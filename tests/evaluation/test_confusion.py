"""Confusions equal scikit-learn's, and of many people those with the most errors stay."""

from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from celebflow.data.tables import load_table
from celebflow.evaluation.confusion import count_confusions, save_confusion

NAMES = [f"person {number:03}" for number in range(100)]


def _draw(person_count: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(0)
    return [(NAMES[first], NAMES[second]) for first, second in random.integers(person_count, size=(400, 2))]


def test_counts_equal_scikit_learns() -> None:
    pairs = _draw(12)
    found = count_confusions(pairs, NAMES[:12], 12, 11)
    assert (found.names, found.merged_count) == (NAMES[:12], 0)
    np.testing.assert_array_equal(found.counts, confusion_matrix(*zip(*pairs, strict=True), labels=NAMES[:12]))


def test_of_many_people_those_with_the_most_errors_stay() -> None:
    pairs = [("Ann", "Bo"), ("Ann", "Ann"), ("Cy", "Cy"), ("Cy", "Cy"), ("Di", "Bo"), ("Ed", "Ann")]
    found = count_confusions(pairs, ["Ann", "Bo", "Cy", "Di", "Ed"], 4, 2)
    assert (found.names, found.merged_count) == (["Ann", "Bo", "3 others"], 3)
    assert found.counts.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 2]]


def test_the_file_for_plots_has_sixty_names_at_most_and_every_photograph(tmp_path: Path) -> None:
    save_confusion(_draw(100), NAMES, tmp_path / "confusion.csv")
    rows = list(load_table(tmp_path / "confusion.csv"))
    assert len({row[side] for row in rows for side in ("actual", "predicted")}) == 60
    assert sum(int(row["count"]) for row in rows) == 400
    assert "41 others" in {row["actual"] for row in rows}
