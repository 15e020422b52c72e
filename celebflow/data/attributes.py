"""attributes.csv: what is known of each photograph's attributes, as yes, no or blank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.data.photos import SPLITS
from celebflow.data.tables import load_table, save_table
from celebflow.errors import CelebflowError
from celebflow.paths import ATTRIBUTES

YES, NO, BLANK = 1, 0, -1
_PATH = "path"  # the first column
_CELL_OF = {YES: "1", NO: "0", BLANK: ""}
_KINDS = {YES: "yes", NO: "no", BLANK: "blank"}
_LABEL_OF = {cell: label for label, cell in _CELL_OF.items()}


@dataclass(frozen=True)
class AttributeTable:
    """The (N, A) labels of N photographs, by their `paths`, and A attributes, by their `names`: YES, NO or BLANK."""

    names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int8]

    def select(self, paths: Sequence[str]) -> NDArray[np.int8]:
        """Return the (M, A) labels of M photographs, in the order of `paths`.

        Raises CelebflowError when the table lacks one of them.
        """
        row_of = {path: row for row, path in enumerate(self.paths)}
        try:
            return self.labels[[row_of[path] for path in paths]]
        except KeyError as error:
            raise CelebflowError(f"{ATTRIBUTES} has no row of {error.args[0]}. Run `dvc repro`.") from None


NO_ATTRIBUTES = AttributeTable((), (), np.empty((0, 0), np.int8))  # of the tasks that read none


def save_attributes(table: AttributeTable, path: Path) -> None:
    """Write splits/attributes.csv, one row per photograph; without any, only the header."""
    rows = zip(table.paths, table.labels.tolist(), strict=True)
    save_table(path, [_PATH, *table.names], ([name, *(_CELL_OF[label] for label in row)] for name, row in rows))


def count_labels(labels: NDArray[np.int8], splits: Sequence[str]) -> NDArray[np.int64]:
    """Return how many of the (N, A) labels of each split and attribute are YES, NO and BLANK: (3, A, 3) counts."""
    of_split = [labels[np.array(splits, str) == split] for split in SPLITS]
    return np.array([[(own == kind).sum(axis=0) for kind in _KINDS] for own in of_split]).transpose(0, 2, 1)


def save_balance(table: AttributeTable, split_of: Mapping[str, str], path: Path) -> None:
    """Write splits/attribute_balance.csv, one row per attribute: how often it is yes, no and blank in each split."""
    header = ["attribute", *(f"{split}_{kind}" for split in SPLITS for kind in _KINDS.values())]
    counts = count_labels(table.labels, [split_of[name] for name in table.paths])
    counts_of = counts.transpose(1, 0, 2).reshape(len(table.names), len(header) - 1).tolist()
    save_table(path, header, ([name, *row] for name, row in zip(table.names, counts_of, strict=True)))


def load_attributes(path: Path) -> AttributeTable:
    """Read what save_attributes wrote; raise CelebflowError when it is damaged or has no row."""
    try:
        rows = list(load_table(path, (_PATH,)))
        if not rows:
            raise ValueError("it has no row")
        names = tuple(name for name in rows[0] if name != _PATH)
        labels = [[_LABEL_OF[row[name]] for name in names] for row in rows]
    except (KeyError, ValueError) as error:
        raise CelebflowError(f"{path} is damaged ({error}). Run `dvc repro` to make it again.") from None
    return AttributeTable(names, tuple(row[_PATH] for row in rows), np.array(labels, np.int8))
