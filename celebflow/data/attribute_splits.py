"""Split photographs with attributes, so that train, val and test have each attribute equally often."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.data.attributes import BLANK, NO, YES, AttributeTable, count_labels
from celebflow.data.given_attributes import read_given_attributes
from celebflow.data.photos import SPLITS, Photo
from celebflow.data.splits import Split, leave_out_unknown
from celebflow.data.units import join_units
from celebflow.params import PrepareParams

_MAX_LISTED = 3


def split_by_attributes(photos: Sequence[Photo], people: Sequence[str], params: PrepareParams, folder: Path) -> Split:
    """Read the attributes, and assign each photograph a split; return the photographs sorted by path.

    All photographs of a person, where people are known, and near-duplicates stay together. Iterative stratification
    (Sechidis et al., 2011) of these units by what they hold (yes or no of each attribute, and how many photographs)
    gives each split its fraction of each; where a split lacks a kind, single units are then moved. Names and the order
    of files do not matter. Photographs of unknown people and `people`, the folders, are not used.

    Raises CelebflowError when the attributes are missing or not valid.
    """
    used, notes = leave_out_unknown(photos)
    given = read_given_attributes(folder, used)
    units = sorted(join_units(given.photos), key=lambda unit: _rank(params.seed, unit))
    labels_of = dict(zip(given.table.paths, given.table.labels, strict=True))
    marks = np.array([_mark([labels_of[photo.path] for photo in unit]) for unit in units])
    numbers = _stratify(units, marks, params)
    _complete(numbers, marks[:, : 2 * len(given.table.names)], np.array([len(unit) for unit in units]))
    split_of = {photo.path: SPLITS[number] for unit, number in zip(units, numbers, strict=True) for photo in unit}
    assigned = [replace(photo, split=split_of[photo.path]) for photo in given.photos]
    counts = count_labels(given.table.labels, [photo.split for photo in assigned])
    notes += [*given.notes, *_describe(assigned, given.table, counts)]
    return Split(assigned, notes=notes, attributes=given.table)


def _rank(seed: int, unit: Sequence[Photo]) -> str:
    return hashlib.sha256(f"{seed} {min(photo.group for photo in unit)}".encode()).hexdigest()


def _mark(rows: Sequence[NDArray[np.int8]]) -> NDArray[np.bool_]:
    """Return which attributes are yes and no in a unit with these rows of labels, and its size to a factor of two."""
    labels = np.array(rows)
    size_class = np.arange(32) == len(rows).bit_length()
    return np.concatenate([(labels == YES).any(axis=0), (labels == NO).any(axis=0), size_class])


def _stratify(units: Sequence[Sequence[Photo]], marks: NDArray[np.bool_], params: PrepareParams) -> NDArray[np.int64]:
    """Return the number of each unit's split; each split gets a unit at least, if there are three."""
    from iterstrat.ml_stratifiers import IterativeStratification

    fractions = np.array([1 - params.val_fraction - params.test_fraction, params.val_fraction, params.test_fraction])
    # NumPy keeps the stream of RandomState as it is, on every platform.
    numbers: NDArray[np.int64] = IterativeStratification(marks, fractions, np.random.RandomState(params.seed))
    for number in range(len(SPLITS)):
        counts = np.bincount(numbers, minlength=len(SPLITS))
        if not counts[number] and counts.max() > 1:
            movable = np.flatnonzero(numbers == counts.argmax()).tolist()
            numbers[min(movable, key=lambda unit: len(units[unit]))] = number
    return numbers


def _complete(numbers: NDArray[np.int64], kinds: NDArray[np.bool_], sizes: NDArray[np.int64]) -> None:
    """Move units to splits that lack one of the kinds (units, K), as long as fewer are then lacking in all.

    Stratification gives train two or three of three units that have a rare kind. The move that helps most is made
    first; among equal ones, that of the smallest unit.
    """
    while True:
        counts = np.array([kinds[numbers == number].sum(axis=0) for number in range(len(SPLITS))])  # (3, K)
        moves = []
        for number in range(len(SPLITS)):
            lacking = counts[number] == 0
            for unit in np.flatnonzero((numbers != number) & kinds[:, lacking].any(axis=1)):
                lost = (counts[numbers[unit]] == 1) & kinds[unit]
                gain = int((lacking & kinds[unit]).sum()) - int(lost.sum())
                is_last = (numbers == numbers[unit]).sum() == 1
                if gain > 0 and not is_last:
                    moves.append((-gain, int(sizes[unit]), int(unit), number))
        if not moves:
            return
        _, _, moved, to = min(moves)
        numbers[moved] = to


def _describe(photos: Sequence[Photo], table: AttributeTable, counts: NDArray[np.int64]) -> list[str]:
    """Return sentences about the size of each split, the attributes, and how evenly the splits share them."""
    notes = []
    for split in SPLITS:
        own = [photo for photo in photos if photo.split == split]
        people = {photo.person for photo in own} - {""}
        without = sum(not photo.person for photo in own)
        nobody = f", of which {without} show nobody known" if people and without else ""
        notes.append(f"{split}: {f'{len(people)} people, ' if people else ''}{len(own)} photographs{nobody}.")
    blank_count = int((table.labels == BLANK).sum())
    notes.append(f"There are {len(table.names)} attributes. {blank_count} of {table.labels.size} labels are blank.")
    yes, known = counts[..., 0], counts[..., :2].sum(axis=2)
    fractions = np.divide(yes, known, out=np.full(yes.shape, np.nan), where=known > 0)  # (3, A)
    spreads = np.nan_to_num(np.nanmax(fractions, axis=0) - np.nanmin(fractions, axis=0))
    most = [column for column in np.argsort(-spreads, kind="stable")[:_MAX_LISTED] if spreads[column] > 0]
    if most:
        listing = "; ".join(
            f"{table.names[column]} "
            + ", ".join(f"{value:.3f} in {split}" for split, value in zip(SPLITS, fractions[:, column], strict=True))
            for column in most
        )
        notes.append(f"The fraction of yes differs most between the splits for {listing}.")
    absent = [
        f"{split} has no {kind} of {table.names[column]}"
        for number, split in enumerate(SPLITS)
        for column in range(len(table.names))
        for kind, count in zip(("yes", "no"), counts[number, column, :2], strict=True)
        if count == 0
    ]
    if absent:
        notes.append(
            f"Some splits lack a kind: {'; '.join(absent)}. Add photographs of other people, choose another "
            "prepare.seed, or raise prepare.val_fraction and prepare.test_fraction."
        )
    return notes
