"""The workspace's suspects → decisions of a person, and photographs that move within data/ accordingly."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from celebflow import paths
from celebflow.errors import CelebflowError, describe_shortage
from celebflow.evaluation.suspects import Suspect, load_suspects
from celebflow.experiments.confirmed import ConfirmedLabel, load_confirmed, save_confirmed
from celebflow.experiments.review_journal import Action, Change, Journal, Step
from celebflow.experiments.review_moves import (
    holds,
    is_inside,
    list_free_places,
    list_people,
    move,
    remove_placeholder,
)


@dataclass
class Item:
    """A suspect and what was decided about it; of an earlier review, where it is not `listed` in the table."""

    row: int
    suspect: Suspect
    change: Change | None = None
    listed: bool = True

    @property
    def is_moved(self) -> bool:
        """Tell whether the photograph is where it was decided."""
        return self.change is not None and bool(self.change.place)

    @property
    def waits(self) -> bool:
        """Tell whether the photograph is to be moved."""
        return self.change is not None and self.change.action in ("move", "delete") and not self.is_moved


@contextmanager
def open_review(left_out_person: str | None = None) -> Iterator["Review"]:
    """Open the review of the workspace's suspects, and keep others from it; what a kill interrupted is settled first.

    Nobody is moved to `left_out_person`, the folder of people who are not to be known. Raises CelebflowError when there
    is no table of suspects, when a file is damaged, and when another process reviews them.
    """
    suspects = load_suspects(paths.SUSPECTS)
    folder = paths.review()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "review.lock", timeout=0):
            journal = Journal(folder / "journal.jsonl")
            try:
                yield Review(paths.project(), suspects, journal, left_out_person)
            finally:
                journal.close()
    except Timeout:
        raise CelebflowError(
            "Another `celebflow review` is open in this project. Use its page, or end it with Ctrl-C first."
        ) from None


class Review:
    """The suspects and what becomes of them; one thread at a time.

    `left_out_count` are suspects whose photographs are gone, or have changed since. `people` are those who have a
    folder.
    """

    def __init__(
        self, root: Path, suspects: Sequence[Suspect], journal: Journal, left_out_person: str | None = None
    ) -> None:
        self.journal = journal
        self.items: list[Item] = []
        self.left_out_count = 0
        self._root = root
        self._data = root / paths.DATA
        if not self._data.is_dir():
            raise CelebflowError(f"{paths.DATA} is missing. Run `dvc pull`, or `dvc checkout`.")
        self.people = list_people(self._data, left_out_person)
        self._settle()
        self._before = journal.take_number()
        self._list_items(suspects)

    def decide(self, row: int, action: Action, to: str = "") -> list[Item]:
        """Note a decision in the place of an earlier one, and return the items that it changes; no photograph moves.

        Raises CelebflowError when there is no such row or person, and when the photograph has been moved.
        """
        self._settle()
        item = self.find(row)
        if item.is_moved:
            raise CelebflowError(f"{item.suspect.path} has been moved. Undo that first.")
        if action != "move":
            to = ""
        elif to not in self.people or to == item.suspect.person:
            raise CelebflowError(f"{to or 'nobody'} is nobody here to whom it could move.")
        changed = self._take_back(item, item.change) if item.change else [item]
        if action == "keep":
            self._confirm(item, True)
            changed = [each for each in self.items if each.change is None and _label(each) == _label(item)]
        if action == "skip":
            change = Change(self.journal.take_number(), action, item.suspect)
        else:
            change = self.journal.decide(action, item.suspect, to)
        for each in changed if action == "keep" else [item]:
            each.change = change
        return changed

    def undo(self, row: int | None = None) -> list[Item]:
        """Take a decision back, or the last of this review; return the items that it changes.

        A photograph that was moved returns, under a free name where its own is taken. Raises CelebflowError when there
        is nothing to undo, or the photograph is no longer where it was moved.
        """
        self._settle()
        if row is not None:
            item = self.find(row)
        else:
            recent = [each for each in self.items if each.change and each.change.number > self._before]
            if not recent:
                raise CelebflowError("There is nothing to undo in this review. The changes list earlier ones.")
            item = max(recent, key=lambda each: each.change.number if each.change else 0)
        if item.change is None:
            raise CelebflowError("Nothing was decided here.")
        return self._take_back(item, item.change)

    def apply(self, rows: Sequence[int]) -> tuple[list[Item], list[str]]:
        """Move the photographs of those rows that wait for it; return the changed items and what could not be done."""
        self._settle()
        changed, problems = [], []
        items = [self.find(row) for row in dict.fromkeys(rows)]  # or nothing is moved at all
        for item in items:
            change = item.change
            if change is None or not item.waits:
                continue
            try:
                self._apply(item.suspect, change)
                changed.append(item)
            except CelebflowError as error:
                problems.append(str(error))
            except OSError as error:
                problems.append(describe_shortage(error) or f"{item.suspect.path}: {error.strerror}.")
        return changed, problems

    def locate(self, item: Item) -> Path:
        """Return where the photograph of an item is."""
        return self._root / item.change.place if item.change and item.is_moved else self._data / item.suspect.path

    def locate_other(self, path: str) -> Path:
        """Return where a photograph is that the table names; raise CelebflowError when it is not one of the data.

        It may be a suspect itself, and have been moved.
        """
        for item in self.items:
            if item.is_moved and item.suspect.path == path:
                return self.locate(item)
        place = self._data / path
        if not path or not is_inside(place, self._data):
            raise CelebflowError(f"{path} is no photograph in {paths.DATA}.")
        return place

    def find(self, row: int) -> Item:
        """Return the item of a row; raise CelebflowError when there is none."""
        if not 0 <= row < len(self.items):
            raise CelebflowError(f"There is no row {row}. Load the page again.")
        return self.items[row]

    def _list_items(self, suspects: Sequence[Suspect]) -> None:
        """Put together the suspects with what was decided, then earlier changes that can be undone."""
        confirmed = load_confirmed(self._root / paths.CONFIRMED)
        changes = list(self.journal.changes.values())
        moves = {(each.suspect.path, each.suspect.sha256): each for each in changes if each.action != "keep"}
        keeps = {(each.suspect.sha256, each.suspect.person): each for each in changes if each.action == "keep"}
        for suspect in suspects:
            change = moves.pop((suspect.path, suspect.sha256), None)
            if change is not None and change.place and not holds(self._root / change.place, suspect.sha256):
                change = None  # it has come back since, by a later review or as another version of the data
            if change is None and ConfirmedLabel(suspect.sha256, suspect.person) in confirmed:
                change = keeps.get((suspect.sha256, suspect.person)) or Change(0, "keep", suspect)
            self._add_item(suspect, change, listed=True)
        for change in moves.values():
            self._add_item(change.suspect, change, listed=False)

    def _add_item(self, suspect: Suspect, change: Change | None, listed: bool) -> None:
        item = Item(len(self.items), suspect, change, listed)
        place = self.locate(item)
        is_deleted = change is not None and change.action == "delete" and item.is_moved
        if is_inside(place, self.deleted if is_deleted else self._data) and holds(place, suspect.sha256):
            self.items.append(item)
        else:
            self.left_out_count += listed

    @property
    def deleted(self) -> Path:
        """Return where photographs are that were deleted, from where they can return."""
        return paths.review() / "deleted"

    def _confirm(self, item: Item, is_right: bool) -> None:
        file = self._root / paths.CONFIRMED
        labels = load_confirmed(file)  # git may have changed it meanwhile
        save_confirmed(labels | {_label(item)} if is_right else labels - {_label(item)}, file)

    def _take_back(self, item: Item, change: Change) -> list[Item]:
        changed = [each for each in self.items if each.change is change]
        if change.action == "keep":
            self._confirm(item, False)
        if item.is_moved:
            self._return(item, change)
        elif change.number in self.journal.changes:
            self.journal.take_back(change.number)
        for each in changed:
            each.change = None
        return changed

    def _return(self, item: Item, change: Change) -> None:
        source = self.locate(item)
        if not holds(source, item.suspect.sha256):
            raise CelebflowError(f"{change.place} is gone or has changed since, so this cannot be undone.")
        target = self._data / item.suspect.path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._move(change.number, source, target.parent, target.name, back=True)

    def _apply(self, suspect: Suspect, change: Change) -> None:
        source = self._data / suspect.path
        if not is_inside(source, self._data) or not holds(source, suspect.sha256):
            raise CelebflowError(
                f"{suspect.path} is gone or has changed since `celebflow suspects`. It stays as it is."
            )
        folder = self._data / change.to if change.action == "move" else self.deleted
        if change.action == "delete":
            folder.mkdir(exist_ok=True)
        if change.action == "move" and change.to not in list_people(self._data):
            raise CelebflowError(f"{suspect.path} stays where it is: there is no folder {change.to} any more.")
        self._move(change.number, source, folder, PurePosixPath(suspect.path).name, back=False)

    def _move(self, number: int, source: Path, folder: Path, name: str, back: bool) -> None:
        """Move a photograph to a free place in a folder; each step is in the journal before it is done."""
        for target in list_free_places(folder, name):
            step = Step(number, self._name(source), self._name(target), back)
            self.journal.begin(step)
            try:
                move(source, target)
            except FileExistsError:  # somebody has just made it
                self.journal.give_up()
                continue
            except BaseException:
                self._settle()
                raise
            self._finish(step)
            return

    def _settle(self) -> None:
        """Find out how far an interrupted step got, by what is on the disk, and note that.

        A photograph is in one of two places at any moment, because the system renames it at once.
        """
        step = self.journal.unfinished
        if step is None:
            return
        source, target = self._root / step.source, self._root / step.target
        sha256 = self.journal.changes[step.number].suspect.sha256
        if holds(target, sha256) and not holds(source, sha256):
            self._finish(step)
        else:
            remove_placeholder(target)
            self.journal.give_up()

    def _finish(self, step: Step) -> None:
        self.journal.finish()
        for item in self.items:
            if item.change and item.change.number == step.number:
                item.change = self.journal.changes.get(step.number)
                if step.back:
                    path = (self._root / step.target).relative_to(self._data).as_posix()
                    item.suspect = replace(item.suspect, path=path)

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._root)).as_posix()


def _label(item: Item) -> ConfirmedLabel:
    return ConfirmedLabel(item.suspect.sha256, item.suspect.person)
