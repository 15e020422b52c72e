"""The tables that users put beside their photographs: which there are, and how they are read."""

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from celebflow.errors import CelebflowError
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
_MAX_LISTED = 10


def is_given(file: Path) -> bool:
    """Tell whether there is a table to read, even if it is a link to a file that is missing; a pipe would never end."""
    return file.is_file() or (file.is_symlink() and not file.is_fifo())


def read_rows(file: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV file that a user wrote, with their line numbers.

    Raises CelebflowError when the file cannot be read, lacks a needed column, or has rows of different lengths.
    """
    lines = read_cells(file)
    _, header = next(lines, (1, []))
    require_columns(file, header, needed, optional)
    for number, cells in lines:
        if len(cells) != len(header):
            raise CelebflowError(
                f"{file}, line {number}: another number of cells than the first line. Correct that line."
            )
        yield number, dict(zip(header, cells, strict=True))


def require_columns(file: Path, header: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    """Raise CelebflowError when the first line of a table does not name every needed column."""
    if missing := [name for name in needed if name not in header]:
        raise CelebflowError(
            f"{file} lacks the column {', '.join(missing)}. Its first line must name the columns, with commas "
            f"between them: {','.join(needed)}" + (f", and perhaps {','.join(optional)}." if optional else ".")
        )


def read_cells(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line of a CSV file, with its number; lines without any are left out.

    Raises CelebflowError when the file cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as content:
            rows = csv.reader(content)
            for row in rows:
                if row:
                    yield rows.line_num, row
    except OSError as error:
        raise CelebflowError(f"{file} cannot be read ({error.strerror}). Check that path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CelebflowError(f"{file} cannot be read ({error}). Save it as CSV in UTF-8.") from None


def read_words(file: Path) -> list[list[str]]:
    """Return the words of each line of a text file, which spaces separate; raise CelebflowError when it is not one."""
    try:
        return [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise CelebflowError(f"{file} cannot be read ({error.strerror}). Check that path.") from None
    except UnicodeDecodeError as error:
        raise CelebflowError(f"{file} cannot be read ({error}). Save it as text in UTF-8.") from None


def describe_problems(file: Path, problems: Sequence[str], remedy: str) -> str:
    """Return a message that lists what is wrong with a table, but no more than the eye takes in."""
    more = f"\n  and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
    listing = "\n".join(f"  {problem}" for problem in problems[:_MAX_LISTED])
    return f"{file} is not valid:\n{listing}{more}\n{remedy}"


def simplify_path(path: str) -> str:
    """Return what paths have in common that are likely meant to be the same: other systems write them in other ways."""
    text = unicodedata.normalize("NFC", path.strip().replace("\\", "/")).casefold()
    return text.removeprefix("./").removeprefix("data/")
