"""Decisions come first, labels change when these are applied, and a kill loses and doubles nothing."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_suspects import AttributeSuspect, save_attribute_suspects
from celebflow.evaluation.suspects import save_suspects
from celebflow.experiments import attribute_labels
from celebflow.experiments.attribute_journal import AttributeAction
from celebflow.experiments.attribute_review import AttributeReview, open_attribute_review
from celebflow.experiments.confirmed import (
    CONFIRMED_ATTRIBUTES,
    ConfirmedAttribute,
    load_confirmed_attributes,
    save_confirmed_attributes,
)
from celebflow.experiments.review import lock_review, open_review
from celebflow.experiments.review_summary import format_summary, list_commands
from tests.experiments.attribute_reviewing import make_attribute_project, read_labels
from tests.experiments.reviewing import serve_review

BEFORE = [["1", "0"], ["0", "1"], ["1", "0"]]


@pytest.fixture
def suspects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[AttributeSuspect]:
    """Return the suspects of a project in the working directory: Hat and =Beard of 0.png, then of 1.png and 2.png."""
    monkeypatch.chdir(tmp_path)
    return make_attribute_project(tmp_path)


def _states(review: AttributeReview) -> list[str]:
    """Return a word for each item: what was decided, in upper case where it is done."""
    words = [item.change.action if item.change else "-" for item in review.items]
    return [word.upper() if item.is_done else word for word, item in zip(words, review.items, strict=True)]


def test_nothing_changes_until_it_is_applied(suspects: list[AttributeSuspect], tmp_path: Path) -> None:
    content = (tmp_path / "data" / "attributes.csv").read_bytes()
    with open_attribute_review() as review:
        actions: tuple[AttributeAction, ...] = ("flip", "blank", "keep", "skip", "flip")
        for row, action in enumerate(actions):
            review.decide(row, action)
        with pytest.raises(CelebflowError, match="no row 6"):
            review.apply([0, 6])
        assert (tmp_path / "data" / "attributes.csv").read_bytes() == content
        assert _states(review) == ["flip", "blank", "keep", "skip", "flip", "-"]
        changed, problems = review.apply([0, 1, 2, 3, 5])
        assert ([item.row for item in changed], problems) == ([0, 1], [])
        assert _states(review) == ["FLIP", "BLANK", "keep", "skip", "flip", "-"]
    assert read_labels(tmp_path) == [["0", ""], *BEFORE[1:]], "what was not listed is not applied"
    assert (tmp_path / ".celebflow" / "review" / "attributes.csv").read_bytes() == content
    assert load_confirmed_attributes(CONFIRMED_ATTRIBUTES) == {ConfirmedAttribute(suspects[2].sha256, "Hat", "no")}


def test_the_next_review_has_what_was_decided_but_asks_again_what_was_skipped(
    suspects: list[AttributeSuspect], tmp_path: Path
) -> None:
    with open_attribute_review() as review:
        actions: tuple[AttributeAction, ...] = ("flip", "blank", "keep", "skip", "flip")
        for row, action in enumerate(actions):
            review.decide(row, action)
        review.apply([0, 1])
    save_attribute_suspects(suspects[1:], paths.SUSPECTS)  # found again without what was flipped
    with open_attribute_review() as review:
        assert _states(review) == ["BLANK", "keep", "-", "flip", "-", "FLIP"]
        assert [item.listed for item in review.items] == [True] * 5 + [False] and review.left_out_count == 0
        with pytest.raises(CelebflowError, match="nothing to undo in this review"):
            review.undo()
        assert [item.row for item in review.undo(5)] == [5]
        review.undo(0)
        review.undo(1)
    assert read_labels(tmp_path) == BEFORE
    assert load_confirmed_attributes(CONFIRMED_ATTRIBUTES) == set()


def test_undo_gives_every_byte_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_attribute_project(tmp_path, no="-1")
    file = tmp_path / "data" / "attributes.csv"
    file.write_bytes(file.read_bytes().replace(b",1,-1\n", b", 1 ,-1\r\n"))
    content = file.read_bytes()
    with open_attribute_review() as review:
        for row in range(6):
            review.decide(row, "flip" if row % 2 else "blank")
        review.apply(range(6))
        assert read_labels(tmp_path) == [["", "1"], ["", "-1"], ["", "1"]]
        with pytest.raises(CelebflowError, match=r"Hat of faces/0.png has been changed. Undo that first"):
            review.decide(0, "keep")
        for _ in range(6):
            review.undo()
        assert _states(review) == ["-"] * 6
    assert file.read_bytes() == content


def test_what_somebody_else_has_changed_since_stays(suspects: list[AttributeSuspect], tmp_path: Path) -> None:
    file = tmp_path / "data" / "attributes.csv"
    with open_attribute_review() as review:
        for row in (0, 2, 4):
            review.decide(row, "flip")
        lines = file.read_text().splitlines()
        lines[1] = lines[1].replace(",1,0", ",,1")
        file.write_text("\n".join(reversed(lines[1:])) and "\n".join([lines[0], *reversed(lines[1:])]))
        (tmp_path / "data" / "faces" / "1.png").write_bytes(b"another")
        changed, problems = review.apply([0, 2, 4])
        assert [item.row for item in changed] == [4] and _states(review)[:5:2] == ["flip", "flip", "FLIP"]
        assert "Hat of faces/0.png has changed since" in problems[0] and "faces/1.png is gone or has" in problems[1]
        assert read_labels(tmp_path) == [["0", "0"], ["0", "1"], ["", "1"]], "whatever the order of the rows"
        file.write_text(file.read_text().replace(",0,0", ",,0"))
        with pytest.raises(CelebflowError, match="changed again since, so this cannot be undone"):
            review.undo(4)
    with open_attribute_review() as review:
        assert [item.suspect.path for item in review.items] == ["faces/2.png"], "only what is as it was when found"
        assert review.left_out_count == 5


@pytest.mark.parametrize("is_made", [False, True])
@pytest.mark.parametrize("is_back", [False, True])
def test_a_kill_between_journal_and_table_is_settled_by_the_table(
    suspects: list[AttributeSuspect], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_made: bool, is_back: bool
) -> None:
    journal = tmp_path / ".celebflow" / "review" / "attributes.jsonl"
    with open_attribute_review() as review:
        review.decide(0, "flip")
        review.decide(1, "blank")
        if is_back:
            review.apply([0, 1])
            review.undo(0)
        else:
            review.apply([0, 1])
    lines = journal.read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["event"] == "finish"
    journal.write_text("".join(lines[:-1]) + lines[-1][:9])  # killed before that was on the disk
    if not is_made:
        backup = tmp_path / ".celebflow" / "review" / "attributes.csv"
        (tmp_path / "data" / "attributes.csv").write_bytes(backup.read_bytes())
    with open_attribute_review() as review:
        expected = {
            (False, False): ["flip", "blank"],
            (False, True): ["FLIP", "BLANK"],
            (True, False): ["FLIP", "BLANK"],
            (True, True): ["-", "BLANK"],
        }
        assert _states(review)[:2] == expected[is_back, is_made]
    assert "finish" in journal.read_text().splitlines()[-1]


def test_a_full_disk_changes_nothing_and_is_told(
    suspects: list[AttributeSuspect], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_attribute_review() as review:
        review.decide(0, "flip")

        def fail(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(attribute_labels.LabelTable, "write", lambda *_: fail(0))
            changed, problems = review.apply([0])
        assert changed == [] and "space" in problems[0]
        assert _states(review)[0] == "flip" and read_labels(tmp_path) == BEFORE
        assert [item.row for item in review.apply([0])[0]] == [0]
    assert read_labels(tmp_path)[0] == ["0", "0"]


def test_the_same_photograph_twice_is_kept_at_once(suspects: list[AttributeSuspect], tmp_path: Path) -> None:
    one, *others = suspects
    copy = replace(others[3], path="faces/2.png", sha256=one.sha256)  # the same content, attribute and answer
    (tmp_path / "data" / "faces" / "2.png").write_bytes((tmp_path / "data" / "faces" / "0.png").read_bytes())
    save_attribute_suspects([one, others[0], copy], paths.SUSPECTS)
    with open_attribute_review() as review:
        assert [item.row for item in review.decide(0, "keep")] == [0, 2]
        assert [item.row for item in review.undo(2)] == [0, 2]
    save_confirmed_attributes([ConfirmedAttribute(one.sha256, "Hat", "yes")], CONFIRMED_ATTRIBUTES)
    with open_attribute_review() as review:
        assert _states(review) == ["keep", "-", "keep"], "by another clone of the project"


def test_what_to_run_depends_on_what_was_done(suspects: list[AttributeSuspect]) -> None:
    with open_attribute_review() as review:
        assert list_commands(review) == []
        review.decide(0, "keep")
        assert [each.split()[:3] for each in list_commands(review)] == [["git", "add", "confirmed_attributes.csv"]]
        review.decide(1, "flip")
        review.decide(2, "blank")
        review.apply([1])
        commands = list_commands(review)
        assert (commands[0], commands[2]) == ("dvc add data", "dvc repro")
        assert commands[1].startswith("git add data.dvc confirmed_attributes.csv && git commit")
        text = format_summary(review)
        assert text.startswith("Kept 1, flipped 1, left blank 0. Decided, but not applied: 1;")
        assert "Still open: 3." in text and text.endswith("\n  dvc repro")
        review.journal.tell()
        review.undo(1)
        assert "Undone: 1 of an earlier review." in format_summary(review)


def test_a_second_review_and_a_table_of_another_task_are_refused(suspects: list[AttributeSuspect]) -> None:
    for second in (open_attribute_review, open_review):
        if second is open_review:
            save_suspects([], paths.SUSPECTS)
        with (
            open_attribute_review() if second is open_attribute_review else lock_review(),
            pytest.raises(CelebflowError, match="Another `celebflow review` is open"),
            second(),
        ):
            pass
    save_suspects([], paths.SUSPECTS)
    with pytest.raises(CelebflowError, match="`celebflow suspects`"), open_attribute_review():
        pass
    save_attribute_suspects(suspects, paths.SUSPECTS)
    with pytest.raises(CelebflowError, match="`celebflow suspects`"), open_review():
        pass
    paths.SUSPECTS.unlink()
    with (
        pytest.raises(CelebflowError, match=r"suspects.csv is missing. Run `celebflow suspects`"),
        open_attribute_review(),
    ):
        pass


def test_a_damaged_journal_is_told_and_touches_nothing(suspects: list[AttributeSuspect], tmp_path: Path) -> None:
    journal = tmp_path / ".celebflow" / "review" / "attributes.jsonl"
    journal.parent.mkdir(parents=True)
    for line in ('{"event": "finish", "numbers": [1]}', '{"event": "begin", "edits": [{"number": 3}]}', "[]", "{}"):
        journal.write_text(f"{line}\n")
        with pytest.raises(CelebflowError, match=r"attributes.jsonl is damaged at line 1"), open_attribute_review():
            pass
    assert read_labels(tmp_path) == BEFORE


def test_paths_that_lead_elsewhere_are_neither_shown_nor_changed(
    suspects: list[AttributeSuspect], tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes((tmp_path / "data" / "faces" / "0.png").read_bytes())
    save_attribute_suspects([replace(suspects[0], path="../secret.png"), suspects[1]], paths.SUSPECTS)
    with open_attribute_review() as review:
        assert [item.suspect.path for item in review.items] == ["faces/0.png"] and review.left_out_count == 1
        for path in ("../secret.png", "", "/etc/hostname"):
            with pytest.raises(CelebflowError, match="is no photograph"):
                review.locate_other(path)


@pytest.mark.parametrize(("code", "status"), [(errno.EACCES, 507), (errno.EROFS, 507), (errno.EIO, 409)])
def test_what_the_system_refuses_is_a_message_and_the_review_goes_on(
    suspects: list[AttributeSuspect], tmp_path: Path, code: int, status: int
) -> None:
    real = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.name == "attributes.csv" and target.parent.name == "data":
            raise OSError(code, os.strerror(code), str(self), None, str(target))
        return real(self, target)

    with open_attribute_review() as review, serve_review(review) as client:
        review.decide(0, "flip")
        review.apply([0])
        changed = read_labels(tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", refuse)
            response = client.post("undo", {"row": 0})
        assert response.status_code == status
        assert os.strerror(code) in response.json()["message"] and "attributes.csv" in response.json()["message"]
        assert review.journal.unfinished == [] and read_labels(tmp_path) == changed
        assert client.post("undo", {"row": 0}).status_code == 200
    assert read_labels(tmp_path) == BEFORE
