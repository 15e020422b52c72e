"""The text about suspect labels of attributes lists the surest, and counts those of each attribute."""

from pathlib import Path

import pytest

from celebflow.evaluation.attribute_suspects import AttributeCount, AttributeSuspect
from celebflow.experiments.attribute_suspects import AttributeCheck, format_attribute_check
from celebflow.experiments.label_checks import describe_next_step, format_workspace

COUNTS = [AttributeCount("1e5", 60, 1, 0), AttributeCount("Beard", 50, 0, 0), AttributeCount("Hat", 40, 2, 1)]


def _make_check(suspects: list[AttributeSuspect], unjudged_count: int = 0) -> AttributeCheck:
    return AttributeCheck(suspects, 150, 70, 0.9, COUNTS if suspects else [], unjudged_count)


def test_the_text_lists_the_surest_and_counts_each_attribute() -> None:
    names = ["Hat", "1e5", "Hat", "Hat"]
    suspects = [
        AttributeSuspect(f"{number}.jpg", "val", "0" * 64, name, "yes", "no", 0.1, 0.9, 1)
        for number, name in enumerate(names)
    ]
    text = format_workspace(_make_check(suspects), 2)
    assert text.startswith("4 of 150 labels of 70 photographs are suspect (2.7%). Accuracy of the predictions")
    assert text.splitlines()[3].split() == ["0.jpg", "Hat", "yes", "no", "90.0%", "val"]
    assert "1.jpg      1e5          yes" in text and "2.jpg" not in text
    assert "and 2 more; --limit -1 lists all" in text
    assert [line.split() for line in text.splitlines()[-2:]] == [
        ["Hat", "3", "2", "1", "40"],
        ["1e5", "1", "1", "0", "60"],
    ]
    assert "3.jpg" in format_attribute_check(_make_check(suspects), -1)
    without = format_attribute_check(_make_check([]), 20)
    assert without.count("\n") == 0 and "Not judged" not in without
    assert "Not judged: 7" in format_attribute_check(_make_check([], 7), 20)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["attributes.csv"], "attributes.csv"),
        (["list_attr_celeba.txt"], "list_attr_celeba.txt"),
        (["attributes.csv", "list_attr_celeba.txt"], "attributes.csv"),
    ],
)
def test_the_file_with_the_labels_is_named(
    given: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in given:
        (Path("data") / name).touch()
    assert f"data/{named}, then: dvc add data" in describe_next_step(_make_check([]))
