"""The tables that users put beside their photographs: which there are, and how they are read."""

import csv
import io
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from celebflow.data.files import STANDARD_INPUT, read_file, read_stream
from celebflow.data.formats import PhotographError, identify_format
from celebflow.errors import CelebflowError, escape_controls
from celebflow.params import TaskName

PAIRS_TABLE, LFW_PAIRS, PEOPLE_TABLE = "pairs.csv", "pairs.txt", "people.csv"
ATTRIBUTES_TABLE, CELEBA_ATTRIBUTES, CELEBA_PEOPLE = "attributes.csv", "list_attr_celeba.txt", "identity_CelebA.txt"
# What may lie in the folder of photographs, and the task that reads it.
TABLES: dict[str, TaskName] = {
    PAIRS_TABLE: "verification",
    LFW_PAIRS: "verification",
    PEOPLE_TABLE: "verification",
    ATTRIBUTES_TABLE: "attributes",
    CELEBA_ATTRIBUTES: "attributes",
    CELEBA_PEOPLE: "attributes",
}
# What columns are called that say in which split a row is, in lower case.
SPLIT_COLUMNS = {"split", "splits", "partition", "subset", "fold"}
_MAX_LISTED = 10
_MAX_SHOWN = 100  # characters
# What is saved or downloaded in place of a table, and what to do.
_OTHER_CONTENT = {
    "Git LFS": "is a pointer of Git LFS, not the table itself. Run git lfs pull.",
    "ZIP": "is a spreadsheet or an archive. Save it as {kind} in UTF-8.",
    "web page": "is a web page. Download the table again.",
}


def is_given(file: Path) -> bool:
    """Tell whether there is a table to read, even if it is a link to a file that is missing; a pipe would never end."""
    return file.is_file() or (file.is_symlink() and not file.is_fifo())


def read_rows(file: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV file that a user wrote, with their line numbers.

    Raises CelebflowError when the file cannot be read, lacks a needed column, has one that may be meant for an optional
    one, or rows of different lengths.
    """
    lines = read_cells(file)
    _, header = next(lines, (1, []))
    require_columns(file, header, needed, optional)
    if doubled := [name for name in (*needed, *optional) if header.count(name) > 1]:
        raise CelebflowError(
            f"{file}, line 1: {header.count(doubled[0])} columns are named {doubled[0]}. Remove all but one."
        )
    # Other columns that may be meant for an optional one.
    likely = {other: _find_meant(other, optional) for other in header if other not in (*needed, *optional)}
    for number, cells in lines:
        if len(cells) != len(header):
            raise CelebflowError(
                f"{file}, line {number}: another number of cells than the first line. Correct that line."
            )
        row = dict(zip(header, cells, strict=True))
        for other, meant in likely.items():
            if meant and meant not in row and row[other].strip():
                raise CelebflowError(
                    f"{file}, line {number}: the column {show_text(other)} would not be read. Rename it to {meant}, "
                    "with numbers from 1, or remove it."
                )
        yield number, row


def _find_meant(column: str, names: Sequence[str]) -> str | None:
    """Return which of the names of columns that celebflow reads another column is likely meant for."""
    simple = column.strip().casefold()
    return next((name for name in names if simple == name or {simple, name} <= SPLIT_COLUMNS), None)


def require_columns(file: Path, header: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    """Raise CelebflowError when the first line of a table does not name every needed column."""
    if missing := [name for name in needed if name not in header]:
        written = f" It begins with {show_text(','.join(header))}." if header else " It is empty."
        raise CelebflowError(
            f"{file} lacks the column {', '.join(missing)}. Its first line must name the columns, with commas "
            f"between them: {','.join(needed)}"
            + (f", and perhaps {','.join(optional)}." if optional else ".")
            + written
        )


def read_cells(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row of a CSV file, with the number of its first line; empty lines are left out.

    Raises CelebflowError when the file cannot be read, is no table, or has a quotation mark that none closes.
    """
    rows = csv.reader(io.StringIO(_read_text(file, "CSV"), newline=""), strict=True)
    while True:
        start = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise CelebflowError(
                f"{file}, line {start}: the row that begins there cannot be read ({error}). Look for a quotation mark "
                "that none closes, or save the table as CSV again."
            ) from None
        if row is None:
            return
        if row:
            yield start, row


def read_words(file: Path, split: Callable[[str], list[str]] = str.split) -> list[list[str]]:
    """Return the words of each line of a text file, as `split` finds them; raise CelebflowError when it is not one."""
    return [split(line) for line in _read_text(file, "text").splitlines()]


def _read_text(file: Path, kind: str) -> str:
    """Return the text in a file or pipe; raise CelebflowError when there is none, or something else."""
    try:
        is_input = str(file) == STANDARD_INPUT  # as a command names it; a table in a folder has that before its name
        content = read_stream(sys.stdin.buffer) if is_input else read_file(file, pipes=True)
    except PhotographError as error:
        raise CelebflowError(f"{file} cannot be read: it {error}. Put the table there, as {kind} in UTF-8.") from None
    except OSError as error:
        raise CelebflowError(f"{file} cannot be read ({error.strerror}). Check that path.") from None
    if explanation := _OTHER_CONTENT.get(identify_format(content) or ""):
        raise CelebflowError(f"{file} {explanation.format(kind=kind)}")
    if (len(content) > 1 and content[:2].count(0) == 1) or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CelebflowError(f"{file} cannot be read: it is likely in UTF-16. Save it as {kind} in UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CelebflowError(
            f"{file} cannot be read: line {line} is not in UTF-8 (byte {content[error.start]:#04x}). Save it as {kind} "
            "in UTF-8."
        ) from None


def explain_similar_name(path: str) -> str:
    """Say which table a file with the photographs may be meant for, by its path; otherwise return an empty text."""
    stem = path.rpartition("/")[2].partition(".")[0].casefold()
    meant = [table for table in TABLES if table.partition(".")[0].casefold() == stem]
    if not meant:
        return ""
    return (
        f"may be meant for a table of the task {TABLES[meant[0]]}: that is {' or '.join(meant)}, by exactly this name, "
        "directly in the folder of photographs"
    )


def describe_problems(file: Path, problems: Sequence[str], remedy: str) -> str:
    """Return a message that lists what is wrong with a table, but no more than the eye takes in."""
    more = f"\n  and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
    listing = "\n".join(f"  {problem}" for problem in problems[:_MAX_LISTED])
    return f"{file} is not valid:\n{listing}{more}\n{remedy}"


def simplify_path(path: str) -> str:
    """Return what paths have in common that are likely meant to be the same: other systems write them in other ways."""
    text = unicodedata.normalize("NFC", path.strip().replace("\\", "/")).casefold()
    return text.removeprefix("./").removeprefix("data/")


def show_text(text: str) -> str:
    """Return a text of any length and content as part of a message."""
    return _shorten(text) or "''"


def quote_text(text: str) -> str:
    """Return the same in quotation marks."""
    return f"'{_shorten(text)}'"


def _shorten(text: str) -> str:
    return escape_controls(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…", keep="")
