"""Decisions come first, photographs move when these are applied, and a kill loses and doubles nothing."""

import errno
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from celebflow import paths
from celebflow.data.files import read_file
from celebflow.errors import CelebflowError
from celebflow.evaluation.suspects import Suspect, save_suspects
from celebflow.experiments import review_moves
from celebflow.experiments.confirmed import ConfirmedLabel, load_confirmed, save_confirmed
from celebflow.experiments.review import Review, open_review
from celebflow.experiments.review_journal import Action, Step
from celebflow.experiments.review_summary import format_summary, list_commands
from tests.experiments.reviewing import list_photographs, make_project


@pytest.fixture
def suspects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Suspect]:
    """Return the suspects of a project in the working directory: Ann/0.png, Bo_Ek/0.png, Cy/0.png, Ann/1.png …."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, 2)


def _states(review: Review) -> list[str]:
    """Return a word for each item: what was decided, in upper case where it is done."""
    words = [item.change.action if item.change else "-" for item in review.items]
    return [word.upper() if item.is_moved else word for word, item in zip(words, review.items, strict=True)]


def test_nothing_moves_until_it_is_applied(suspects: list[Suspect], tmp_path: Path) -> None:
    before = list_photographs(tmp_path)
    with open_review() as review:
        assert review.people == ["Ann", "Bo_Ek", "Cy"]
        review.decide(0, "move", "Cy")
        review.decide(1, "delete")
        review.decide(2, "keep")
        review.decide(3, "skip")
        with pytest.raises(CelebflowError, match="no row 6"):
            review.apply([0, 6])
        assert list_photographs(tmp_path) == before
        assert _states(review) == ["move", "delete", "keep", "skip", "-", "-"]
        changed, problems = review.apply([0, 1, 2, 3, 4])
        assert ([item.row for item in changed], problems) == ([0, 1], [])
        assert _states(review) == ["MOVE", "DELETE", "keep", "skip", "-", "-"]
    after = list_photographs(tmp_path)
    assert after["data/Cy/0-2.png"] == before["data/Ann/0.png"], "the name was taken"
    assert after["data/Cy/0.png"] == before["data/Cy/0.png"]
    assert after[".celebflow/review/deleted/0.png"] == before["data/Bo_Ek/0.png"]
    assert "data/Ann/0.png" not in after and "data/Bo_Ek/0.png" not in after
    assert Counter(after.values()) == Counter(before.values())
    assert load_confirmed(paths.CONFIRMED) == {ConfirmedLabel(suspects[2].sha256, "Cy")}


def test_the_next_review_has_what_was_decided_but_asks_again_what_was_skipped(suspects: list[Suspect]) -> None:
    with open_review() as review:
        actions: tuple[Action, ...] = ("move", "delete", "keep", "skip", "move")
        for row, action in enumerate(actions):
            review.decide(row, action, "Cy" if action == "move" else "")
        review.apply([0])
    with open_review() as review:
        assert _states(review) == ["MOVE", "delete", "keep", "-", "move", "-"]
        assert all(item.listed for item in review.items) and review.left_out_count == 0
        with pytest.raises(CelebflowError, match="nothing to undo in this review"):
            review.undo()
        review.decide(5, "skip")
        assert [item.row for item in review.undo()] == [5]
    # The table is made anew: what still waits and what can be undone stay, although it lists other photographs.
    save_suspects(suspects[5:], paths.SUSPECTS)
    with open_review() as review:
        assert _states(review) == ["-", "MOVE", "delete", "move"]
        assert [item.listed for item in review.items] == [True, False, False, False]


def test_everything_can_be_undone_last_first_also_after_it_was_applied(suspects: list[Suspect], tmp_path: Path) -> None:
    before = list_photographs(tmp_path)
    with open_review() as review:
        review.decide(0, "move", "Cy")
        review.decide(1, "delete")
        review.decide(2, "keep")
        review.decide(3, "skip")
        review.apply([0, 1])
        assert list_commands(review)[0] == "dvc add data"
        for row in (3, 2, 1):
            assert [item.row for item in review.undo()] == [row]
        (tmp_path / "data" / "Ann" / "0.png").write_bytes(b"somebody has put another file there")
        [item] = review.undo()
        assert item.suspect.path == "Ann/0-2.png"
        with pytest.raises(CelebflowError, match="nothing to undo"):
            review.undo()
        assert _states(review) == ["-"] * 6
        assert list_commands(review) == [], "all is as it was"
        review.decide(0, "delete")
        review.apply([0])
    (tmp_path / "data" / "Ann" / "0.png").unlink()
    with open_review() as review:
        [item] = [item for item in review.items if item.is_moved]
        review.undo(item.row)
    after = list_photographs(tmp_path)
    after["data/Ann/0.png"] = after.pop("data/Ann/0-2.png")
    assert after == before
    assert load_confirmed(paths.CONFIRMED) == set()


def test_a_decision_takes_the_place_of_an_earlier_one(suspects: list[Suspect]) -> None:
    with open_review() as review:
        review.decide(0, "keep")
        review.decide(0, "move", "Cy")
        assert load_confirmed(paths.CONFIRMED) == set()
        review.decide(0, "move", "Bo_Ek")
        review.apply([0])
        with pytest.raises(CelebflowError, match="has been moved. Undo that first"):
            review.decide(0, "keep")
    assert Path("data/Bo_Ek/0-2.png").exists()


@pytest.mark.parametrize("to", ["", "Ann", "Nobody", "../Cy", "Cy/", ".", "Cy\0", "/"])
def test_only_people_with_a_folder_can_be_chosen(suspects: list[Suspect], to: str) -> None:
    with open_review() as review:
        with pytest.raises(CelebflowError, match="nobody here"):
            review.decide(0, "move", to)
        for row in (-1, 6):
            with pytest.raises(CelebflowError, match="no row"):
                review.decide(row, "delete")
        assert _states(review) == ["-"] * 6


def test_people_who_are_not_to_be_known_cannot_be_chosen(suspects: list[Suspect]) -> None:
    with open_review("Cy") as review:
        assert review.people == ["Ann", "Bo_Ek"]


def test_photographs_that_are_gone_changed_or_elsewhere_are_left_out(suspects: list[Suspect], tmp_path: Path) -> None:
    Path("data/Ann/0.png").unlink()
    Path("data/Bo_Ek/0.png").write_bytes(b"another")
    shutil.copy("data/Cy/0.png", "outside.png")
    outside = Suspect("../outside.png", "val", suspects[2].sha256, "Cy", "Ann", 0.1, 0.9)
    absolute = Suspect(str(tmp_path / "outside.png"), "val", suspects[2].sha256, "Cy", "Ann", 0.1, 0.9)
    save_suspects([*suspects, outside, absolute], paths.SUSPECTS)
    with open_review() as review:
        assert review.left_out_count == 4
        assert [item.suspect for item in review.items] == suspects[2:]
        for other in ("../outside.png", "", str(tmp_path / "outside.png")):
            with pytest.raises(CelebflowError, match="no photograph"):
                review.locate_other(other)


def test_what_was_kept_is_not_asked_again_but_elsewhere_it_is(suspects: list[Suspect]) -> None:
    ann, bo, *_ = suspects
    save_confirmed([ConfirmedLabel(ann.sha256, "Ann"), ConfirmedLabel(bo.sha256, "Cy")], paths.CONFIRMED)
    with open_review() as review:
        assert _states(review) == ["keep", "-", "-", "-", "-", "-"], "git brought it"
        review.undo(0)
        assert load_confirmed(paths.CONFIRMED) == {ConfirmedLabel(bo.sha256, "Cy")}


def test_a_photograph_that_has_come_back_is_asked_about_again(suspects: list[Suspect], tmp_path: Path) -> None:
    with open_review() as review:
        review.decide(0, "move", "Cy")
        review.apply([0])
    save_suspects([replace(suspects[0], path="Cy/0-2.png", person="Cy", likelier="Ann")], paths.SUSPECTS)
    with open_review() as review:
        assert _states(review)[0] == "-", "in its new folder it has another label"
        review.decide(0, "move", "Ann")
        review.apply([0])
    Path("data/Ann/0-2.png").rename("data/Ann/0.png")
    save_suspects(suspects, paths.SUSPECTS)
    with open_review() as review:
        assert _states(review)[:6] == ["-"] * 6 and review.left_out_count == 0
        review.decide(0, "delete")
        review.apply([0])
        review.undo()
    assert (tmp_path / "data" / "Ann" / "0.png").exists()


def test_copies_in_one_folder_are_kept_together(suspects: list[Suspect]) -> None:
    shutil.copy("data/Ann/0.png", "data/Ann/copy.png")
    copy = Suspect("Ann/copy.png", "val", suspects[0].sha256, "Ann", "Cy", 0.1, 0.9)
    save_suspects([*suspects, copy], paths.SUSPECTS)
    with open_review() as review:
        assert [item.row for item in review.decide(0, "keep")] == [0, 6]
        assert [item.row for item in review.undo()] == [0, 6]
        review.decide(0, "keep")
        review.decide(6, "delete")
        assert _states(review)[0] == "-" and _states(review)[6] == "delete"
    assert load_confirmed(paths.CONFIRMED) == set()


def test_what_changes_before_it_is_applied_stays_and_the_rest_is_done(suspects: list[Suspect]) -> None:
    with open_review() as review:
        for row in range(4):
            review.decide(row, "move", review.items[row].suspect.likelier)
        Path("data/Ann/0.png").write_bytes(b"edited")
        Path("data/Bo_Ek/0.png").unlink()
        shutil.rmtree("data/Ann", ignore_errors=False)
        changed, problems = review.apply(range(4))
        assert [item.row for item in changed] == []
        assert len(problems) == 4
        assert "Ann/0.png is gone or has changed" in problems[0]
        assert "there is no folder Ann any more" in problems[2]
        assert Path("data/Cy/0.png").exists()


def test_a_photograph_that_is_gone_from_its_new_place_cannot_return(suspects: list[Suspect]) -> None:
    with open_review() as review:
        review.decide(0, "move", "Cy")
        review.apply([0])
        Path("data/Cy/0-2.png").unlink()
        with pytest.raises(CelebflowError, match=r"data/Cy/0-2\.png is gone"):
            review.undo()
    with open_review() as review:
        assert review.left_out_count == 1


def test_a_journal_that_was_changed_leads_to_no_place_outside_of_the_data(suspects: list[Suspect]) -> None:
    with open_review() as review:
        decisions: tuple[tuple[Action, str], ...] = (("move", "Cy"), ("delete", ""))
        for row, (action, to) in enumerate(decisions):
            review.decide(row, action, to)
        review.apply([0, 1])
    journal = paths.review() / "journal.jsonl"
    changed = re.sub(r'"path": "(\w+)/0.png"', r'"path": "../\1.png"', journal.read_text())
    journal.write_text(changed)
    with open_review() as review:
        outside = [item for item in review.items if item.is_moved]
        assert len(outside) == 2
        for item in outside:
            with pytest.raises(CelebflowError, match="no place in data"):
                review.undo(item.row)
    journal.write_text(changed.replace(".celebflow/review/deleted/", "").replace("data/Cy/", ""))
    Path("data/Cy/0-2.png").rename("0-2.png")
    (paths.deleted() / "0.png").rename("0.png")
    with open_review() as review:
        assert not any(item.is_moved for item in review.items)


def test_two_reviews_at_once_are_refused(suspects: list[Suspect]) -> None:
    with open_review(), pytest.raises(CelebflowError, match="Another `celebflow review` is open"), open_review():
        pass
    with open_review():
        pass


def test_what_a_review_needs_is_told(suspects: list[Suspect]) -> None:
    shutil.move("data", "elsewhere")
    with pytest.raises(CelebflowError, match="data is missing"), open_review():
        pass
    paths.SUSPECTS.unlink()
    with pytest.raises(CelebflowError, match=r"suspects\.csv is missing. Run `celebflow suspects`"), open_review():
        pass


@pytest.mark.parametrize("line", ["{", "[]", '{"event": "other"}', '{"event": "begin", "number": 9}', "\x00"])
def test_a_damaged_journal_is_told_and_a_line_cut_short_is_dropped(suspects: list[Suspect], line: str) -> None:
    with open_review() as review:
        review.decide(0, "delete")
    journal = paths.review() / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + line.encode())
    with open_review() as review:
        assert _states(review) == ["delete", *["-"] * 5]
        review.decide(1, "delete")
    assert [json.loads(each)["event"] for each in journal.read_text().splitlines()] == ["decide", "decide"]
    journal.write_bytes(whole + line.encode() + b"\n")
    with pytest.raises(CelebflowError, match=r"journal\.jsonl is damaged at line 2"), open_review():
        pass


def test_a_disk_that_fails_leaves_no_part_of_a_line(suspects: list[Suspect], monkeypatch: pytest.MonkeyPatch) -> None:
    with open_review() as review:
        review.decide(0, "delete")
        write = os.write

        def fill(number: int, content: bytes) -> int:
            if len(content) < 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(number, content[: len(content) // 2])

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "write", fill)
            review.decide(1, "delete")

        def lose(number: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
            patch.setattr(os, "fsync", lose)
            review.decide(1, "delete")
    with open_review() as review:
        assert _states(review)[:2] == ["delete", "-"]
        review.decide(2, "delete")
    with open_review() as review:
        assert _states(review) == ["delete", "-", "delete", "-", "-", "-"]


def _rename(suspects: list[Suspect], name: str) -> list[Suspect]:
    """Give the first photograph of each person this name."""
    renamed = [replace(each, path=f"{each.person}/{name}", nearest_of_person="") for each in suspects[:3]]
    for old, new in zip(suspects, renamed, strict=False):
        Path("data", old.path).rename(Path("data", new.path))
    save_suspects([*renamed, *suspects[3:]], paths.SUSPECTS)
    return renamed


def test_names_that_are_as_long_as_can_be_move_and_return(suspects: list[Suspect], tmp_path: Path) -> None:
    _rename(suspects, "n" * 251 + ".png")
    before = list_photographs(tmp_path)
    with open_review() as review:
        review.decide(0, "move", "Cy")
        review.decide(1, "delete")
        review.decide(2, "delete")
        assert review.apply([0, 1, 2])[1] == []
        moved = {file.name for folder in (Path("data/Cy"), paths.deleted()) for file in folder.glob("n*")}
        assert moved == {"n" * 251 + ".png", "n" * 249 + "-2.png"}
    with open_review() as review:
        for row in range(3):
            review.undo(row)
    assert list_photographs(tmp_path) == before


def test_a_name_that_the_disk_cannot_have_is_told_and_the_review_goes_on(
    suspects: list[Suspect], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rename(suspects, "n" * 251 + ".png")
    before = list_photographs(tmp_path)
    monkeypatch.setattr(review_moves, "_MAX_NAME_BYTES", 300)  # more than the disk has
    with open_review() as review:
        for row in (0, 1, 3):
            review.decide(row, "move", "Cy")
        changed, problems = review.apply([0, 1, 3])
        assert [item.row for item in changed] == [3]
        assert len(problems) == 2 and all("-2.png" in each and "too long" in each for each in problems)
        review.undo()
        assert list_photographs(tmp_path) == before
        review.decide(0, "keep")
    with open_review() as review:
        assert _states(review) == ["keep", "move", "-", "-", "-", "-"]


def test_a_journal_with_a_step_to_an_impossible_name_opens_again(suspects: list[Suspect], tmp_path: Path) -> None:
    before = list_photographs(tmp_path)
    with open_review() as review:
        change = review.decide(0, "move", "Cy")[0].change
        assert change is not None
        review.journal.begin(Step(change.number, "data/Ann/0.png", f"data/Cy/{'n' * 256}", back=False))
    with open_review() as review:
        assert review.apply([0])[1] == []
        review.undo(0)
    assert list_photographs(tmp_path) == before


@pytest.mark.parametrize(
    "code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EIO]
)
@pytest.mark.parametrize("fails", ["open", "replace"])
def test_whatever_the_system_refuses_is_told_and_the_review_goes_on(
    suspects: list[Suspect], tmp_path: Path, code: int, fails: str
) -> None:
    before = list_photographs(tmp_path)
    real = os.open

    def refuse(path: Path, *_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code), str(path))

    def open_file(path: Path, flags: int, *arguments: Any, **named: Any) -> int:
        return refuse(path) if flags & os.O_EXCL else real(path, flags, *arguments, **named)

    with open_review() as review:
        review.decide(0, "move", "Cy")
        review.decide(1, "delete")
        with pytest.MonkeyPatch.context() as patch:
            if fails == "open":
                patch.setattr(os, "open", open_file)
                patch.setattr(Path, "lstat", refuse)
            else:
                patch.setattr(Path, "replace", refuse)
            changed, problems = review.apply([0, 1])
        assert changed == [] and review.journal.unfinished is None
        assert all(os.strerror(code) in each for each in problems)
        assert [each.partition(": ")[0] for each in problems] == ["Ann/0.png", "Bo_Ek/0.png"]
        assert list_photographs(tmp_path) == before
        assert [item.row for item in review.apply([0, 1])[0]] == [0, 1]
        review.undo()
        review.undo()
    assert list_photographs(tmp_path) == before


def test_a_step_that_could_not_be_noted_is_settled_before_the_next(suspects: list[Suspect], tmp_path: Path) -> None:
    before = list_photographs(tmp_path)
    real, written = os.write, []

    def fill(number: int, content: bytes) -> int:
        written.append(content)
        if len(written) == 2:  # the first step is begun, and its end finds no space
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(number, content)

    with open_review() as review:
        review.decide(0, "move", "Cy")
        review.decide(1, "move", "Cy")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", fill)
            assert len(review.apply([0, 1])[1]) == 1
        assert _states(review)[:2] == ["MOVE", "MOVE"]
        review.undo(0)
        review.undo(1)
    assert list_photographs(tmp_path) == before


def test_a_photograph_in_a_folder_that_cannot_be_read_is_not_forgotten(
    suspects: list[Suspect], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_photographs(tmp_path)
    with open_review() as review:
        review.decide(0, "move", "Cy")
        review.apply([0])
    journal = paths.review() / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))  # killed before it was noted
    real = read_file

    def refuse(path: Path) -> bytes:
        if path.parent.name in closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr("celebflow.experiments.review_moves.read_file", refuse)
    closed = {"Ann", "Cy"}
    with pytest.raises(CelebflowError, match=r"Ann/0\.png.*Cy/0-2\.png.*Make both folders readable"), open_review():
        pass
    closed = {"Cy"}
    with open_review() as review:
        assert review.journal.unfinished is None and review.left_out_count == 3
        review.decide(0, "keep")
    closed = set()
    with open_review() as review:
        [item] = [item for item in review.items if item.is_moved]
        review.undo(item.row)
    assert list_photographs(tmp_path) == before


class _Killed(BaseException):
    """The process is dead: from now on, nothing changes the disk."""


@contextmanager
def _kill_at(step: int) -> Iterator[list[str]]:
    """Let the disk be changed `step` times only; yield the names of the functions that changed it."""
    done: list[str] = []

    with pytest.MonkeyPatch.context() as patch:

        def guard(owner: Any, name: str) -> None:
            real = getattr(owner, name)

            def call(*arguments: Any, **named: Any) -> Any:
                if name == "open" and not arguments[1] & os.O_CREAT:
                    return real(*arguments, **named)
                if len(done) >= step:
                    raise _Killed
                done.append(name)
                return real(*arguments, **named)

            patch.setattr(owner, name, call)

        for owner, names in ((os, ("write", "open", "ftruncate")), (Path, ("replace", "unlink", "mkdir"))):
            for name in names:
                guard(owner, name)
        yield done


def _work(review: Review) -> None:
    """Decide, apply and undo, all of which changes the disk."""
    review.decide(0, "move", "Cy")
    review.decide(1, "delete")
    review.decide(2, "keep")
    review.apply([0, 1])
    review.undo()
    review.undo()
    review.decide(4, "move", "Cy")
    review.apply([4])


def test_a_kill_at_any_moment_loses_and_doubles_nothing(suspects: list[Suspect], tmp_path: Path) -> None:
    before = list_photographs(tmp_path)
    changes = set()
    for step in range(1000):
        with open_review() as review:
            ended = False
            with _kill_at(step) as done:
                try:
                    _work(review)
                    ended = True
                except _Killed:
                    pass
        changes |= set(done)
        with open_review() as review:
            after = list_photographs(tmp_path)
            assert Counter(after.values()) == Counter(before.values()), f"killed after {done}"
            assert review.journal.unfinished is None
            assert review.left_out_count == 0, "the journal knows where each photograph is"
            for item in review.items:
                assert review.locate(item).exists()
            # Whatever was done can be undone, and then all is as before.
            for item in review.items:
                if item.change:
                    review.undo(item.row)
        assert Counter(list_photographs(tmp_path)) == Counter(before), f"killed after {done}"
        if ended:
            break
        shutil.rmtree(tmp_path / ".celebflow")
        paths.CONFIRMED.unlink(missing_ok=True)
    assert ended and step > 20
    assert changes >= {"write", "open", "replace"}


def test_the_end_says_what_was_done_and_what_to_run(suspects: list[Suspect]) -> None:
    with open_review() as review:
        assert format_summary(review) == "Kept 0, moved 0, deleted 0. Still open: 6."
        review.decide(2, "keep")
        assert list_commands(review) == ['git add confirmed.csv && git commit -m "Review of suspect labels"']
        review.decide(0, "move", "Cy")
        review.decide(1, "delete")
        review.decide(3, "delete")
        review.apply([0, 1])
    with open_review() as review:  # it was killed, and nobody was told
        text = format_summary(review)
        assert text.startswith("Kept 1, moved 1, deleted 1. Decided, but not applied: 1;")
        assert "Still open: 2." in text and ".celebflow/review/deleted" in text
        assert text.splitlines()[-3:] == [
            "  dvc add data",
            '  git add data.dvc confirmed.csv && git commit -m "Review of suspect labels"',
            "  dvc repro",
        ]
        review.journal.tell()
    with open_review() as review:
        assert list_commands(review) == []
        review.undo(0)
        assert "Undone: 1 of an earlier review." in format_summary(review)
        assert list_commands(review)[0] == "dvc add data"
