"""Labels that somebody has looked at and found right: tables that git tracks, and on which no stage depends."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError


@dataclass(frozen=True, order=True)
class ConfirmedLabel:
    """A photograph, by its content, that shows the person in whose folder it is.

    In another folder, the same photograph has another label, which nobody has confirmed.
    """

    sha256: str
    person: str


@dataclass(frozen=True, order=True)
class ConfirmedAttribute:
    """A photograph, by its content, whose label of an attribute is this answer: yes or no."""

    sha256: str
    attribute: str
    answer: str


CONFIRMED_ATTRIBUTES = Path("confirmed_attributes.csv")
_Label = TypeVar("_Label", ConfirmedLabel, ConfirmedAttribute)


def load_confirmed(path: Path) -> set[ConfirmedLabel]:
    """Return the labels in the table, none without one; raise CelebflowError when it is damaged."""
    return _load(ConfirmedLabel, path)


def load_confirmed_attributes(path: Path) -> set[ConfirmedAttribute]:
    """Do the same for labels of attributes."""
    return _load(ConfirmedAttribute, path)


def _load(kind: type[_Label], path: Path) -> set[_Label]:
    try:
        return set(load_rows(kind, path))
    except FileNotFoundError:
        return set()
    except CelebflowError as error:  # also the marks of a conflict in git
        reason = str(error).partition(". Run")[0].partition(": an older")[0]
        raise CelebflowError(f"{reason}. Correct it, or restore it: `git checkout {path}`.") from None


def save_confirmed(labels: Iterable[ConfirmedLabel], path: Path) -> None:
    """Write the table, whole and to the disk; it is sorted, so that git shows few changes."""
    _save(ConfirmedLabel, labels, path)


def save_confirmed_attributes(labels: Iterable[ConfirmedAttribute], path: Path) -> None:
    """Do the same for labels of attributes."""
    _save(ConfirmedAttribute, labels, path)


def _save(kind: type[_Label], labels: Iterable[_Label], path: Path) -> None:
    save_rows(kind, sorted(labels), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
