"""photos.csv: one row per photograph."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.data.tables import load_rows, save_rows

SPLITS = ("train", "val", "test")
UNKNOWN = "unknown"  # the split of people who are not to be known


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph; `path` is relative to the data folder, with forward slashes.

    `person` is the first folder of the path; for the task attributes, the person whom the table names, or empty.
    `group` is the smallest SHA-256 among the photograph and its near-duplicates. Where the split is UNKNOWN, `person`
    is the folder of all unknown people, with the person's folder in it.
    """

    path: str
    person: str
    split: str
    sha256: str
    group: str


def list_people(photos: Iterable[Photo]) -> list[str]:
    """Return the class names: the sorted folder names, without those of unknown people."""
    return sorted({photo.person for photo in photos if photo.split != UNKNOWN})


def number_groups(photos: Iterable[Photo]) -> NDArray[np.int64]:
    """Return the (N,) groups of near-duplicates of N photographs, counted from 0."""
    numbers: NDArray[np.int64] = np.unique([photo.group for photo in photos], return_inverse=True)[1]
    return numbers


def save_photos(photos: Iterable[Photo], path: Path) -> None:
    """Write photos.csv."""
    save_rows(Photo, photos, path)


def load_photos(path: Path) -> list[Photo]:
    """Read what save_photos wrote; raise CelebflowError when a column is missing."""
    return load_rows(Photo, path)
