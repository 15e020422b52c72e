"""attributes.csv: what is known of each photograph's attributes, as yes, no or blank."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.data.tables import load_table, save_table
from celebflow.errors import CelebflowError

YES, NO, BLANK = 1, 0, -1
_PATH = "path"  # the first column
_CELL_OF = {YES: "1", NO: "0", BLANK: ""}
_LABEL_OF = {cell: label for label, cell in _CELL_OF.items()}


@dataclass(frozen=True)
class AttributeTable:
    """The (N, A) labels of N photographs, by their `paths`, and A attributes, by their `names`: YES, NO or BLANK."""

    names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int8]

    def select(self, paths: Sequence[str]) -> NDArray[np.int8]:
        """Return the (M, A) labels of M photographs of the table, in the order of `paths`."""
        row_of = {path: row for row, path in enumerate(self.paths)}
        return self.labels[[row_of[path] for path in paths]]


NO_ATTRIBUTES = AttributeTable((), (), np.empty((0, 0), np.int8))  # of the tasks that read none


def save_attributes(table: AttributeTable, path: Path) -> None:
    """Write splits/attributes.csv, one row per photograph; without any, only the header."""
    rows = zip(table.paths, table.labels.tolist(), strict=True)
    save_table(path, [_PATH, *table.names], ([name, *(_CELL_OF[label] for label in row)] for name, row in rows))


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
