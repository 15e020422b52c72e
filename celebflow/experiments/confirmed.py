"""confirmed.csv: labels that somebody has looked at and found right; git tracks it, and no stage depends on it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError


@dataclass(frozen=True, order=True)
class ConfirmedLabel:
    """A photograph, by its content, that shows the person in whose folder it is.

    In another folder, the same photograph has another label, which nobody has confirmed.
    """

    sha256: str
    person: str


def load_confirmed(path: Path) -> set[ConfirmedLabel]:
    """Return the labels in the table, none without one; raise CelebflowError when it is damaged."""
    try:
        return set(load_rows(ConfirmedLabel, path))
    except FileNotFoundError:
        return set()
    except CelebflowError as error:  # also the marks of a conflict in git
        reason = str(error).partition(". Run")[0].partition(": an older")[0]
        raise CelebflowError(f"{reason}. Correct it, or restore it: `git checkout {path}`.") from None


def save_confirmed(labels: Iterable[ConfirmedLabel], path: Path) -> None:
    """Write the table, whole and to the disk; it is sorted, so that git shows few changes."""
    save_rows(ConfirmedLabel, sorted(labels), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
