"""The labels in data/attributes.csv → the same table with some of them changed, and every other byte as it was."""

import csv
import errno
import io
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from celebflow.data.given_tables import ATTRIBUTES_TABLE, CELEBA_ATTRIBUTES, is_given, read_cells
from celebflow.data.tables import unescape_cell
from celebflow.errors import CelebflowError
from celebflow.experiments.review_moves import sync_folder

_MARK = b"\xef\xbb\xbf"  # with which spreadsheets begin a table in UTF-8
_PHOTOGRAPH = "photograph"
_ANSWER_OF = {"1": "yes", "0": "no", "-1": "no", "": "blank"}


@dataclass(frozen=True)
class Place:
    """A cell of the table, by the path of the photograph and the attribute."""

    path: str
    attribute: str


class LabelTable:
    """The table as it is on the disk, and the labels of some photographs.

    Raises CelebflowError when it is no table that prepare reads.
    """

    def __init__(self, folder: Path, asked: Collection[str], known: Collection[str]) -> None:
        """Read the table in the folder of photographs; `asked` are the paths whose labels are wanted, of those `known`.

        As prepare reads it, a row names a photograph by its path, or by what the path of no other ends with.
        """
        self.file = folder / ATTRIBUTES_TABLE
        if not is_given(self.file) and is_given(folder / CELEBA_ATTRIBUTES):
            raise CelebflowError(
                f"A review changes {self.file}, and the labels are in {CELEBA_ATTRIBUTES}, which has no blanks. Write "
                f"{self.file} of it, with the columns {_PHOTOGRAPH}, perhaps person, and one per attribute."
            )
        header = next(read_cells(self.file), (1, []))[1]  # or the reason why it cannot be read
        names = [unescape_cell(cell).strip() for cell in header]
        if _PHOTOGRAPH not in names:
            raise CelebflowError(f"{self.file} lacks the column {_PHOTOGRAPH}. Run `dvc repro`, which says more.")
        self.content = self.file.read_bytes()
        self._lines = io.StringIO(self.content.decode("utf-8-sig"), newline="").readlines()
        self._columns = {name: column for column, name in enumerate(names)}
        self._width = len(names)
        self._rows: dict[str, tuple[int, int]] = {}  # the lines of a photograph's row
        self._no = "0"
        self._find_rows(set(asked), set(known), self._columns[_PHOTOGRAPH])

    def _find_rows(self, asked: set[str], known: set[str], column: int) -> None:
        paths_of_name: dict[str, list[str]] = {}
        for path in known:
            paths_of_name.setdefault(path.rpartition("/")[2], []).append(path)
        reader = csv.reader(self._lines, strict=True)
        try:
            while True:
                start = reader.line_num
                cells = next(reader, None)
                if cells is None:
                    return
                if start == 0 or len(cells) != self._width:
                    continue
                if "-1" in cells:
                    self._no = "-1"  # as the table spells it
                path = _find_path(cells[column], known, paths_of_name)
                if path in asked and self._rows.setdefault(path, (start, reader.line_num)) != (start, reader.line_num):
                    raise CelebflowError(f"{self.file} has two rows of {path}. Remove one of them.")
        except csv.Error as error:
            raise CelebflowError(f"{self.file} cannot be read ({error}). Run `dvc repro`, which says more.") from None

    def read(self, place: Place) -> str | None:
        """Return the text of a cell, or None when there is no such row or column."""
        lines, column = self._rows.get(place.path), self._columns.get(place.attribute)
        return None if lines is None or column is None else self._parse(lines)[column]

    def answer(self, place: Place) -> str | None:
        """Return what a label says: yes, no or blank; None when there is no such label."""
        text = self.read(place)
        return None if text is None else _ANSWER_OF.get(text.strip())

    def spell(self, answer: str) -> str:
        """Return the text of a cell that says yes, no or blank, as this table spells no."""
        return {"yes": "1", "no": self._no, "blank": ""}[answer]

    def write(self, texts: Mapping[Place, str], part: Path) -> None:
        """Put a table with other texts in these cells into the place of this one, at once; `part` is for its making.

        What the file was linked to, such as DVC's cache, stays as it is.
        """
        changes: dict[str, dict[int, str]] = {}
        for place, text in texts.items():
            changes.setdefault(place.path, {})[self._columns[place.attribute]] = text
        lines = list(self._lines)
        for path, cells in changes.items():
            start, end = self._rows[path]
            lines[start:end] = [self._rewrite((start, end), cells), *[""] * (end - start - 1)]
        mark = _MARK if self.content.startswith(_MARK) else b""
        with part.open("wb") as file:
            file.write(mark + "".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            part.replace(self.file)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise CelebflowError(f"{self.file.parent} is on another disk. Correct {self.file} yourself.") from None
            raise
        finally:
            part.unlink(missing_ok=True)
        sync_folder(self.file.parent)

    def _parse(self, lines: tuple[int, int]) -> list[str]:
        return next(csv.reader(self._lines[slice(*lines)], strict=True))

    def _rewrite(self, lines: tuple[int, int], texts: Mapping[int, str]) -> str:
        """Return a row with other texts in some columns, between the same quotation marks where it has any."""
        row = "".join(self._lines[slice(*lines)])
        body = row.rstrip("\r\n")
        cells = self._parse(lines) if '"' in body else body.split(",")
        for column, text in texts.items():
            cells[column] = text
        if '"' not in body:
            return ",".join(cells) + row[len(body) :]
        written = io.StringIO()
        csv.writer(written, lineterminator="").writerow(cells)
        return written.getvalue() + row[len(body) :]


def _find_path(cell: str, known: set[str], paths_of_name: Mapping[str, list[str]]) -> str:
    """Return the path of the photograph that a cell names, as prepare finds it; an empty text where that is not one."""
    texts = cell, unescape_cell(cell)
    for text in texts:
        if text in known:
            return text
    for text in texts:
        places = [path for path in paths_of_name.get(text.rpartition("/")[2], ()) if f"/{path}".endswith(f"/{text}")]
        if places:
            return places[0] if len(places) == 1 else ""
    return ""
