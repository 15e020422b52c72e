"""CSV files as celebflow writes and reads them."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path


def save_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8, and its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def load_table(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file, each by the names in the header."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
