"""The workspace's suspects → decisions of a person, and photographs that move within data/ accordingly."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from celebflow import paths
from celebflow.errors import CelebflowError, describe_system_error
from celebflow.evaluation.suspects import Suspect, load_suspects
from celebflow.experiments.confirmed import load_confirmed, save_confirmed
from celebflow.experiments.review_items import Item, list_items
from celebflow.experiments.review_journal import Action, Change, Journal, Step
from celebflow.experiments.review_moves import holds, is_inside, list_people
from celebflow.experiments.review_steps import Steps


@contextmanager
def open_review(left_out_person: str | None = None) -> Iterator["Review"]:
    """Open the review of the workspace's suspects, and keep others from it; what a kill interrupted is settled first.

    Nobody is moved to `left_out_person`, the folder of people who are not to be known. Raises CelebflowError when there
    is no table of suspects, when a file is damaged, and when another process reviews them.
    """
    suspects = load_suspects(paths.SUSPECTS)
    with lock_review() as folder:
        journal = Journal(folder / "journal.jsonl")
        try:
            yield Review(paths.project(), suspects, journal, left_out_person)
        finally:
            journal.close()


@contextmanager
def lock_review() -> Iterator[Path]:
    """Yield the folder of what reviews keep; raise CelebflowError when another process reviews suspects."""
    folder = paths.review()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "review.lock", timeout=0):
            yield folder
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
        self._root = root
        self._data = root / paths.DATA
        if not self._data.is_dir():
            raise CelebflowError(f"{paths.DATA} is missing. Run `dvc pull`, or `dvc checkout`.")
        self.people = list_people(self._data, left_out_person)
        self._steps = Steps(root, journal, self._follow)
        self._steps.settle()
        self._before = journal.take_number()
        self.items, self.left_out_count = list_items(root, suspects, list(journal.changes.values()))

    def decide(self, row: int, action: Action, to: str = "") -> list[Item]:
        """Note a decision in the place of an earlier one, and return the items that it changes; no photograph moves.

        Raises CelebflowError when there is no such row or person, and when the photograph has been moved.
        """
        self._steps.settle()
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
            changed = [each for each in self.items if each.change is None and each.label == item.label]
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
        self._steps.settle()
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
        self._steps.settle()
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
                problems.append(f"{item.suspect.path}: {describe_system_error(error)}")
        return changed, problems

    def locate(self, item: Item) -> Path:
        """Return where the photograph of an item is."""
        return item.locate(self._root)

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

    def _confirm(self, item: Item, is_right: bool) -> None:
        file = self._root / paths.CONFIRMED
        labels = load_confirmed(file)  # git may have changed it meanwhile
        save_confirmed(labels | {item.label} if is_right else labels - {item.label}, file)

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
        if not is_inside(target, self._data):
            raise CelebflowError(f"{item.suspect.path} is no place in {paths.DATA}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._steps.take(change.number, source, target.parent, target.name, back=True)

    def _apply(self, suspect: Suspect, change: Change) -> None:
        source = self._data / suspect.path
        if not is_inside(source, self._data) or not holds(source, suspect.sha256):
            raise CelebflowError(
                f"{suspect.path} is gone or has changed since `celebflow suspects`. It stays as it is."
            )
        folder = self._data / change.to if change.action == "move" else paths.deleted()
        if change.action == "delete":
            folder.mkdir(exist_ok=True)
        if change.action == "move" and change.to not in list_people(self._data):
            raise CelebflowError(f"{suspect.path} stays where it is: there is no folder {change.to} any more.")
        self._steps.take(change.number, source, folder, PurePosixPath(suspect.path).name, back=False)

    def _follow(self, step: Step) -> None:
        """Note in the items what a step has done."""
        for item in self.items:
            if item.change and item.change.number == step.number:
                item.change = self.journal.changes.get(step.number)
                if step.back:
                    path = (self._root / step.target).relative_to(self._data).as_posix()
                    item.suspect = replace(item.suspect, path=path)
