"""The suspects of a review, each with what was decided about it, now or by an earlier review."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from celebflow import paths
from celebflow.evaluation.suspects import Suspect
from celebflow.experiments.confirmed import ConfirmedLabel, load_confirmed
from celebflow.experiments.review_journal import Change
from celebflow.experiments.review_moves import holds, is_inside


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

    @property
    def label(self) -> ConfirmedLabel:
        """Return what is confirmed when somebody keeps it."""
        return ConfirmedLabel(self.suspect.sha256, self.suspect.person)

    @property
    def nearest(self) -> tuple[str, str]:
        """Return the photographs that resemble this one most, of the person in whose folder it is and of the other."""
        return self.suspect.nearest_of_person, self.suspect.nearest_of_likelier

    def locate(self, root: Path) -> Path:
        """Return where the photograph is, in a project."""
        return root / (self.change.place if self.change and self.is_moved else paths.DATA / self.suspect.path)


def list_items(root: Path, suspects: Sequence[Suspect], changes: Sequence[Change]) -> tuple[list[Item], int]:
    """Return the suspects with what was decided, then earlier changes that can be undone.

    Suspects whose photographs are gone, or have changed since, are left out; return their number, too.
    """
    items: list[Item] = []
    left_out_count = 0
    for item in _join(root, suspects, changes):
        place = item.locate(root)
        is_deleted = item.change is not None and item.change.action == "delete" and item.is_moved
        if is_inside(place, paths.deleted() if is_deleted else root / paths.DATA) and holds(place, item.suspect.sha256):
            item.row = len(items)
            items.append(item)
        else:
            left_out_count += item.listed
    return items, left_out_count


def _join(root: Path, suspects: Sequence[Suspect], changes: Sequence[Change]) -> Iterator[Item]:
    confirmed = load_confirmed(root / paths.CONFIRMED)
    moves = {(each.suspect.path, each.suspect.sha256): each for each in changes if each.action != "keep"}
    keeps = {(each.suspect.sha256, each.suspect.person): each for each in changes if each.action == "keep"}
    for suspect in suspects:
        change = moves.pop((suspect.path, suspect.sha256), None)
        if change is not None and change.place and not holds(root / change.place, suspect.sha256):
            change = None  # it has come back since, by a later review or as another version of the data
        if change is None and ConfirmedLabel(suspect.sha256, suspect.person) in confirmed:
            change = keeps.get((suspect.sha256, suspect.person)) or Change(0, "keep", suspect)
        yield Item(-1, suspect, change)
    for change in moves.values():
        yield Item(-1, change.suspect, change, listed=False)
