"""The text about suspect labels of attributes lists the surest, and each is beside the photographs most like it."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier.attribute_out_of_fold import AttributesOutOfFold
from celebflow.classifier.fits import NOT_KEPT
from celebflow.evaluation.attribute_suspects import AttributeCount, AttributeSuspect, find_nearest_labeled
from celebflow.experiments import attribute_suspects
from celebflow.experiments.attribute_suspects import AttributeCheck, format_attribute_check
from celebflow.experiments.confirmed import CONFIRMED_ATTRIBUTES, ConfirmedAttribute, save_confirmed_attributes
from celebflow.experiments.label_checks import describe_next_step, format_workspace
from celebflow.params import Params
from tests.conftest import draw_features

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
    ("given", "step"),
    [
        (["attributes.csv"], "celebflow review"),
        (["list_attr_celeba.txt"], "in data/list_attr_celeba.txt, then: dvc add data"),
        (["attributes.csv", "list_attr_celeba.txt"], "celebflow review"),
    ],
)
def test_the_next_step_is_a_review_where_labels_can_be_left_blank(
    given: list[str], step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in given:
        (Path("data") / name).touch()
    assert step in describe_next_step(_make_check([]))


def test_attributes_of_which_many_labels_are_suspect_are_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    step = describe_next_step(_make_check([Mock()]))
    assert step.startswith("More than 5% of the labels of Hat are suspect: probably a matter of opinion")
    assert "\n" not in describe_next_step(_make_check([]))


def test_confirmed_labels_are_no_suspects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suspects = [
        AttributeSuspect(
            f"{number}.jpg", "val", f"{number:064}", "Hat", given, "no" if given == "yes" else "yes", 0, 1, 1
        )
        for number, given in enumerate(("yes", "no", "yes"))
    ]
    assert attribute_suspects._leave_out_confirmed(suspects) == suspects
    labels = {ConfirmedAttribute(f"{0:064}", "Hat", "yes"), ConfirmedAttribute(f"{1:064}", "Hat", "yes")}
    save_confirmed_attributes({*labels, ConfirmedAttribute(f"{2:064}", "=Beard", "yes")}, CONFIRMED_ATTRIBUTES)
    assert attribute_suspects._leave_out_confirmed(suspects) == suspects[1:], (
        "the same photograph, attribute and answer"
    )
    check = AttributeCheck(suspects[1:], 150, 70, 0.9, COUNTS, confirmed_count=1)
    assert "Left out: 1, which were confirmed (confirmed_attributes.csv)" in format_attribute_check(check, 20)


def test_suspects_name_the_photographs_with_each_label_that_they_resemble() -> None:
    suspects = [
        AttributeSuspect(f"{number}.jpg", "val", "0" * 64, "Hat", given, likelier, 0.1, 0.9, 1)
        for number, (given, likelier) in enumerate((("yes", "no"), ("no", "yes"), ("no", "yes")))
    ]
    shown, nearest = [suspects[1], suspects[0]], [{"no": "a", "yes": "b"}, {"no": "c"}]
    named = attribute_suspects._name_nearest(suspects, shown, nearest)
    assert [(each.nearest_of_given, each.nearest_of_likelier) for each in named] == [("", "c"), ("a", "b"), ("", "")]


@pytest.mark.parametrize("max_compared", [60, 20])
def test_photographs_are_compared_by_their_direction_and_of_very_many_a_sample(
    max_compared: int, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = draw_features(60)
    positions, values = features.indices.reshape(60, -1), features.values.reshape(60, -1)
    values *= 1 + np.arange(60)[:, None] % 7
    labels = np.random.default_rng(0).integers(0, 2, (60, 1))
    logits, judged = np.zeros((60, 1), np.float32), np.ones((60, 1), bool)
    predicted = AttributesOutOfFold(("Hat",), features.photos, labels, np.zeros(60, np.int64), logits, judged)
    suspects = [
        AttributeSuspect(f"{number}.jpg", "val", "0" * 64, "Hat", "yes", "no", 0.1, 0.9, rank)
        for rank, number in enumerate((4, 31, 59), 1)
    ]
    find = Mock(wraps=find_nearest_labeled)
    monkeypatch.setattr(attribute_suspects, "find_nearest_labeled", find)
    monkeypatch.setattr(attribute_suspects, "_MAX_COMPARED", max_compared)
    found = attribute_suspects._find_nearest(suspects, predicted, params, features, NOT_KEPT)
    _, _, rows, similarities = find.call_args.args
    assert {4, 31, 59} <= {*rows.tolist()} and 17 <= len(rows) <= max_compared
    assert len(found) == 3
    dense = np.zeros((60, FEATURE_COUNT))
    np.put_along_axis(dense, positions.astype(np.int64), values, axis=1)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    np.testing.assert_allclose(similarities, (dense @ dense.T)[np.ix_(rows, rows)], atol=1e-5)
