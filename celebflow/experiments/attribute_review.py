"""The workspace's suspect labels of attributes → decisions of a person, and data/attributes.csv changed accordingly."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from celebflow import paths
from celebflow.data.photos import load_photos
from celebflow.errors import CelebflowError, describe_system_error
from celebflow.evaluation.attribute_suspects import AttributeSuspect, load_attribute_suspects
from celebflow.experiments.attribute_journal import AttributeAction, AttributeChange, AttributeJournal, Edit
from celebflow.experiments.attribute_labels import LabelTable, Place
from celebflow.experiments.confirmed import (
    CONFIRMED_ATTRIBUTES,
    ConfirmedAttribute,
    load_confirmed_attributes,
    save_confirmed_attributes,
)
from celebflow.experiments.lookup import require
from celebflow.experiments.review import lock_review
from celebflow.experiments.review_moves import holds, is_inside

_BACKUP = "attributes.csv"  # in the folder of reviews: the table before the last change


@dataclass
class AttributeItem:
    """A suspect label and what was decided about it; of an earlier review, where it is not `listed` in the table."""

    row: int
    suspect: AttributeSuspect
    change: AttributeChange | None = None
    listed: bool = True

    @property
    def is_done(self) -> bool:
        """Tell whether the label was changed."""
        return self.change is not None and self.change.is_done

    @property
    def waits(self) -> bool:
        """Tell whether the label is to be changed."""
        return self.change is not None and self.change.action in ("flip", "blank") and not self.is_done

    @property
    def label(self) -> ConfirmedAttribute:
        """Return what is confirmed when somebody keeps it."""
        return ConfirmedAttribute(self.suspect.sha256, self.suspect.attribute, self.suspect.given)

    @property
    def place(self) -> Place:
        """Return the cell of the label."""
        return Place(self.suspect.path, self.suspect.attribute)

    @property
    def nearest(self) -> tuple[str, str]:
        """Return the photographs that resemble this one most, with the given label and with the other."""
        return self.suspect.nearest_of_given, self.suspect.nearest_of_likelier


@contextmanager
def open_attribute_review() -> Iterator["AttributeReview"]:
    """Open the review of the workspace's suspects, and keep others from it; what a kill interrupted is settled first.

    Raises CelebflowError when there is no table of suspects or labels, when a file is damaged, and when another process
    reviews them.
    """
    suspects = load_attribute_suspects(paths.SUSPECTS)
    require(paths.PHOTOS)
    known = {photo.path for photo in load_photos(paths.PHOTOS)}
    with lock_review() as folder:
        journal = AttributeJournal(folder / "attributes.jsonl")
        try:
            yield AttributeReview(paths.project(), suspects, known, journal)
        finally:
            journal.close()


class AttributeReview:
    """The suspects and what becomes of them; one thread at a time.

    `left_out_count` are suspects whose photographs are gone, or have changed since, as may have their labels.
    """

    def __init__(
        self, root: Path, suspects: Sequence[AttributeSuspect], known: Collection[str], journal: AttributeJournal
    ) -> None:
        self.journal = journal
        self.items: list[AttributeItem] = []
        self.left_out_count = 0
        self._root = root
        self._data = root / paths.DATA
        if not self._data.is_dir():
            raise CelebflowError(f"{paths.DATA} is missing. Run `dvc pull`, or `dvc checkout`.")
        self._known = known
        self._asked = {each.path for each in (*suspects, *(change.suspect for change in journal.changes.values()))}
        self._settle()
        self._before = journal.take_number()
        self._list_items(suspects)

    def decide(self, row: int, action: AttributeAction) -> list[AttributeItem]:
        """Note a decision in the place of an earlier one, and return the items that it changes; no label changes.

        Raises CelebflowError when there is no such row, and when the label has been changed.
        """
        self._settle()
        item = self.find(row)
        if item.is_done:
            raise CelebflowError(f"{item.suspect.attribute} of {item.suspect.path} has been changed. Undo that first.")
        changed = self._take_back(item, item.change) if item.change else [item]
        if action == "keep":
            self._confirm(item, True)
            changed = [each for each in self.items if each.change is None and each.label == item.label]
        if action == "skip":
            change = AttributeChange(self.journal.take_number(), action, item.suspect)
        else:
            change = self.journal.decide(action, item.suspect)
        for each in changed if action == "keep" else [item]:
            each.change = change
        return changed

    def undo(self, row: int | None = None) -> list[AttributeItem]:
        """Take a decision back, or the last of this review; return the items that it changes.

        Raises CelebflowError when there is nothing to undo, or a label is no longer what it was changed to.
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

    def apply(self, rows: Sequence[int]) -> tuple[list[AttributeItem], list[str]]:
        """Change the labels of those rows that wait for it, all at once; return these items and what was not done.

        The table as it was is kept in the folder of reviews.
        """
        self._settle()
        waiting = [item for item in (self.find(row) for row in dict.fromkeys(rows)) if item.waits]
        if not waiting:
            return [], []
        table = self._load()
        changed, edits, texts, problems = [], [], {}, []
        for item in waiting:
            change, suspect, text = item.change, item.suspect, table.read(item.place)
            place = self._data / suspect.path
            if change is None or text is None or table.answer(item.place) != suspect.given:
                problems.append(f"{suspect.attribute} of {suspect.path} has changed since, and stays as it is.")
            elif not is_inside(place, self._data) or not holds(place, suspect.sha256):
                problems.append(f"{suspect.path} is gone or has changed since `celebflow suspects`.")
            else:
                after = table.spell(suspect.likelier if change.action == "flip" else "blank")
                edits.append(Edit(change.number, text, after))
                texts[item.place] = after
                changed.append(item)
        if edits:
            try:
                self._edit(table, edits, texts, is_back=False)
            except OSError as error:
                return [], [*problems, describe_system_error(error)]
        return changed, problems

    def locate(self, item: AttributeItem) -> Path:
        """Return where the photograph of an item is."""
        return self._data / item.suspect.path

    def locate_other(self, path: str) -> Path:
        """Return where a photograph is that the table names; raise CelebflowError when it is not one of the data."""
        place = self._data / path
        if not path or not is_inside(place, self._data):
            raise CelebflowError(f"{path} is no photograph in {paths.DATA}.")
        return place

    def find(self, row: int) -> AttributeItem:
        """Return the item of a row; raise CelebflowError when there is none."""
        if not 0 <= row < len(self.items):
            raise CelebflowError(f"There is no row {row}. Load the page again.")
        return self.items[row]

    def _load(self) -> LabelTable:
        return LabelTable(self._data, self._asked, self._known)

    def _list_items(self, suspects: Sequence[AttributeSuspect]) -> None:
        """List the suspects with what was decided, then earlier changes that can be undone."""
        table = self._load()
        confirmed = load_confirmed_attributes(self._root / CONFIRMED_ATTRIBUTES)
        keeps, others = {}, {}
        for change in self.journal.changes.values():
            suspect = change.suspect
            if change.action == "keep":
                keeps[ConfirmedAttribute(suspect.sha256, suspect.attribute, suspect.given)] = change
            elif not change.is_done or table.read(Place(suspect.path, suspect.attribute)) == change.after:
                others[suspect.path, suspect.sha256, suspect.attribute, suspect.given] = change

        @cache
        def is_there(path: str, sha256: str) -> bool:
            place = self._data / path
            return is_inside(place, self._data) and holds(place, sha256)

        def add(suspect: AttributeSuspect, change: AttributeChange | None, listed: bool) -> None:
            item = AttributeItem(len(self.items), suspect, change, listed)
            if listed and change is None and item.label in confirmed:
                item.change = keeps.get(item.label) or AttributeChange(0, "keep", suspect)
            is_given = item.is_done or table.answer(item.place) == suspect.given
            if is_given and is_there(suspect.path, suspect.sha256):
                self.items.append(item)
            else:
                self.left_out_count += listed

        for suspect in suspects:
            key = suspect.path, suspect.sha256, suspect.attribute, suspect.given
            add(suspect, others.pop(key, None), True)
        for change in others.values():
            add(change.suspect, change, False)

    def _confirm(self, item: AttributeItem, is_right: bool) -> None:
        file = self._root / CONFIRMED_ATTRIBUTES
        labels = load_confirmed_attributes(file)  # git may have changed it meanwhile
        save_confirmed_attributes(labels | {item.label} if is_right else labels - {item.label}, file)

    def _take_back(self, item: AttributeItem, change: AttributeChange) -> list[AttributeItem]:
        changed = [each for each in self.items if each.change is change]
        if change.action == "keep":
            self._confirm(item, False)
        if change.is_done:
            table = self._load()
            if table.read(item.place) != change.after:
                name = f"{item.suspect.attribute} of {item.suspect.path}"
                raise CelebflowError(f"{name} has been changed again since, so this cannot be undone.")
            edit = Edit(change.number, change.after, change.before)
            self._edit(table, [edit], {item.place: change.before}, is_back=True)
        elif change.number in self.journal.changes:
            self.journal.take_back(change.number)
        for each in changed:
            each.change = None
        return changed

    def _edit(self, table: LabelTable, edits: Sequence[Edit], texts: dict[Place, str], *, is_back: bool) -> None:
        """Change cells of the table; what is to be done is in the journal before."""
        with paths.write_whole(paths.review() / _BACKUP) as part:
            part.write_bytes(table.content)
        self.journal.begin(edits, is_back=is_back)
        try:
            table.write(texts, paths.review() / f"{_BACKUP}.new")
        finally:
            self._settle()

    def _settle(self) -> None:
        """Find out which interrupted edits were made, by what is in the table, and note that.

        The system puts the new table into the place of the old one at once.
        """
        if not self.journal.unfinished:
            return
        table, suspects = self._load(), {number: each.suspect for number, each in self.journal.changes.items()}
        made = [
            edit.number
            for edit in self.journal.unfinished
            if table.read(Place(suspects[edit.number].path, suspects[edit.number].attribute)) == edit.after
        ]
        self.journal.finish(made)
        for item in self.items:
            if item.change and item.change.number in made:
                item.change = self.journal.changes.get(item.change.number)
