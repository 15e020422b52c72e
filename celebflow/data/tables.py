"""CSV files, as celebflow writes and reads them."""

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_type_hints

from celebflow.errors import CelebflowError
from celebflow.paths import write_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Where a spreadsheet would see a text to calculate: at the start of a cell, or of what it takes for one where it splits
# lines at semicolons or tabs. Apostrophes may stand there already. Full-width signs count in some languages.
_FORMULA = r"'*[=+\-@＝＋－＠]."
_CELL_START = r"(\A|[;\t\r\n])"
_FORMULA_START = re.compile(f"{_CELL_START}(?={_FORMULA})", re.DOTALL)
_ESCAPED_START = re.compile(f"{_CELL_START}'(?={_FORMULA})", re.DOTALL)
Row = TypeVar("Row", bound="DataclassInstance")


@dataclass(frozen=True)
class _Lines:
    """A file of lines that end with a line feed alone.

    csv.writer quotes a cell that holds a character of the line ends that it writes, and readers of CSV take a carriage
    return for the end of a line, too.
    """

    file: TextIO

    def write(self, line: str) -> int:
        return self.file.write(line.removesuffix("\r\n") + "\n")


def save_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8, and make its folder if it is missing."""
    with write_whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        write_table(file, header, rows)


def write_table(file: TextIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write CSV to an open file; an apostrophe keeps a spreadsheet from taking a text for a formula."""
    writer = csv.writer(_Lines(file), lineterminator="\r\n")
    writer.writerow([escape_cell(name) for name in header])
    writer.writerows([escape_cell(cell) for cell in row] for row in rows)


def load_table(path: Path, needed: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield each row of a CSV file as a dict from column name to cell.

    Raises CelebflowError when the file is damaged, such as one that was cut short, and KeyError when it lacks a needed
    column.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        try:
            if rows.fieldnames is None:
                raise ValueError("it is empty")
            for name in needed:
                if name not in rows.fieldnames:
                    raise KeyError(name)
            names = [unescape_cell(name) for name in rows.fieldnames]
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError("another number of cells than its header")
                yield dict(zip(names, map(unescape_cell, row.values()), strict=True))
        except (csv.Error, ValueError) as error:
            raise CelebflowError(
                f"{path} is damaged at line {rows.line_num} ({error}). Run `dvc repro` to make it again."
            ) from None


def escape_cell(cell: object) -> object:
    """Return what write_table writes for a cell."""
    return _FORMULA_START.sub(r"\1'", cell) if isinstance(cell, str) else cell


def unescape_cell(cell: str) -> str:
    """Return the text of a cell that write_table wrote."""
    return _ESCAPED_START.sub(r"\1", cell) if "'" in cell else cell


def save_rows(kind: type[Row], rows: Iterable[Row], path: Path) -> None:
    """Write instances of a dataclass to a CSV file, one row each; None becomes an empty cell."""
    names = [field.name for field in fields(kind)]
    save_table(path, names, ([getattr(row, name) for name in names] for row in rows))


def load_rows(kind: type[Row], path: Path, *, may_be_empty: bool = True) -> list[Row]:
    """Read what save_rows wrote, for a dataclass whose fields are strings, integers, numbers or None.

    Raises CelebflowError when a column is missing, or the file is damaged, such as one without a row that must have
    some.
    """
    types = get_type_hints(kind)
    try:
        rows = [
            kind(**{name: _parse(types[name], row[name]) for name in types}) for row in load_table(path, list(types))
        ]
        if not rows and not may_be_empty:
            raise ValueError("it has no row")
        return rows
    except KeyError as error:
        raise CelebflowError(
            f"{path.name} lacks the column {error}: an older celebflow wrote it. Run `dvc repro` to make it again."
        ) from None
    except ValueError as error:
        raise CelebflowError(f"{path} is damaged ({error}). Run `dvc repro` to make it again.") from None


def _parse(kind: Any, text: str) -> object:
    if kind is str:
        return sys.intern(text)
    if kind is int:
        return int(text)
    return float(text) if text else None
