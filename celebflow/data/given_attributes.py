"""What users, or CelebA, say about the attributes of photographs."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.data.attributes import BLANK, NO, YES, AttributeTable
from celebflow.data.files import find_files
from celebflow.data.given_tables import (
    ATTRIBUTES_TABLE,
    CELEBA_ATTRIBUTES,
    CELEBA_PEOPLE,
    SPLIT_COLUMNS,
    TABLES,
    describe_problems,
    is_given,
    read_cells,
    read_words,
    require_columns,
    show_text,
    simplify_path,
)
from celebflow.data.layout import is_nobody, join_similar_names
from celebflow.data.photos import SPLITS, Photo
from celebflow.data.tables import unescape_cell
from celebflow.data.units import join_units
from celebflow.errors import CelebflowError, escape_controls

_PHOTOGRAPH, _PERSON = "photograph", "person"
_OWN_NAMES = ("path", "attribute")  # of columns in the tables that celebflow writes
_PERSON_COLUMNS = {"person id", "personid", "identity", "identity id", "subject", "subject id", "id", "name"}
_LABEL_OF = {"1": YES, "0": NO, "-1": NO, "": BLANK}
_MAX_ATTRIBUTES = 1000
_MAX_CHARACTERS = 100
_MAX_LISTED = 5
_REMEDY = "Correct that. A cell may be left blank where an attribute is not known."


@dataclass(frozen=True)
class GivenAttributes:
    """The photographs with the people whom they show, sorted by path, their attributes, and notes for the user.

    A photograph's person is empty where nobody said who it is.
    """

    photos: list[Photo]
    table: AttributeTable
    notes: list[str]


@dataclass(frozen=True)
class _Row:
    """What a line of a table says about one photograph; `cells` has one text per attribute."""

    line: int
    photograph: str
    person: str
    cells: Sequence[str]


@dataclass
class _Reading:
    """What was read from the rows of a table, by the path of the photograph, and what is wrong with it."""

    names: Sequence[str]
    line_of: dict[str, int] = field(default_factory=dict)
    person_of: dict[str, str] = field(default_factory=dict)
    labels_of: dict[str, NDArray[np.int8]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    spellings_of_no: set[str] = field(default_factory=set)
    faulty: set[str] = field(default_factory=set)  # attributes with other values
    problems: list[str] = field(default_factory=list)


def read_given_attributes(folder: Path, photos: Sequence[Photo]) -> GivenAttributes:
    """Read attributes.csv, or else CelebA's list_attr_celeba.txt, in the folder of photographs.

    attributes.csv has a column photograph, perhaps person, and one per attribute with 1, 0 (or -1) or nothing. CelebA's
    list names all its files, of which some may be here, and identity_CelebA.txt says who they are. A photograph is
    named by its path in `folder`, or by what the path of no other ends with.

    Raises CelebflowError, which lists what is wrong by file, line and name: unknown, doubled and missing photographs,
    other values, columns that cannot be attributes, and attributes of which not every split can have both kinds.
    """
    file = folder / ATTRIBUTES_TABLE
    celeba, celeba_people = folder / CELEBA_ATTRIBUTES, folder / CELEBA_PEOPLE
    notes = []
    problems: list[str] = []
    if is_given(file):
        names, rows = _read_table(file, problems)
        if is_given(celeba):
            notes.append(f"{celeba} is not used: {file} is.")
        if is_given(celeba_people):
            notes.append(f"{celeba_people} is not used: in {file}, a column {_PERSON} says who is in a photograph.")
    elif is_given(celeba):
        file = celeba
        names, rows = _read_celeba(celeba, celeba_people, problems)
    else:
        state = "is not a file" if os.path.lexists(file) else "is missing"
        raise CelebflowError(
            f"{file} {state}. It says what the photographs show: a column {_PHOTOGRAPH} with their paths in "
            f"{folder}, perhaps {_PERSON}, and one column per attribute with 1, 0, or nothing where it is not known. "
            f"CelebA's {CELEBA_ATTRIBUTES} can be there instead."
        )
    if not photos:
        raise CelebflowError(f"{folder} holds no photograph that is used. Put those there that {file} names.")
    found = [path for path in find_files(folder)[0] if path not in TABLES]
    reading = _Reading(names, problems=problems)
    _read_rows(rows, found, reading)
    paths = sorted(photo.path for photo in photos)
    if reading.missing and file == celeba:
        notes.append(f"{file} has {len(reading.missing)} rows of files that are not in {folder}: they are left out.")
    else:
        problems += reading.missing
    if file == celeba:
        used = sorted(reading.line_of.keys() & set(paths), key=reading.line_of.__getitem__)
        problems += _check_celeba_people(celeba_people, [reading.person_of[path] for path in used])
    if {"0", "-1"} <= reading.spellings_of_no:
        problems.append("both 0 and -1 are there: write 0 for no, and leave blank what is not known")
    lacking = [path for path in paths if path not in reading.line_of]
    problems += [f"{path} has no row: add one, or remove the photograph" for path in lacking]
    if unused_count := len(reading.line_of.keys() - set(paths)):
        notes.append(f"{file} has {unused_count} rows of files that are not used.")
    blank = np.full(len(names), BLANK, np.int8)
    labels = np.array([reading.labels_of.get(path, blank) for path in paths], np.int8).reshape(len(paths), len(names))
    named = sorted(
        (replace(photo, person=reading.person_of.get(photo.path, "")) for photo in photos), key=lambda each: each.path
    )
    table = AttributeTable(tuple(names), tuple(paths), labels)
    if not lacking:
        problems += _check_kinds(table, named, reading.faulty)
    nobody = _note_nobody(named)
    if problems:
        raise CelebflowError("\n".join([describe_problems(file, problems, _REMEDY), *nobody]))
    return GivenAttributes(named, table, [*notes, *nobody, *_note_similar_names(named, names), *_note_columns(names)])


def _note_nobody(photos: Sequence[Photo]) -> list[str]:
    """Return which people are likely none, by their names, as one sentence."""
    counts = Counter(photo.person for photo in photos if is_nobody(photo.person))
    if not counts:
        return []
    listing = ", ".join(f"{name} ({count} photographs)" for name, count in sorted(counts.items()))
    return [
        f"By the name, this is likely no person, but it counts as one, and the photographs stay together: {listing}. "
        "Leave the cell blank where nobody knows who is in a photograph."
    ]


def _note_similar_names(photos: Sequence[Photo], names: Sequence[str]) -> list[str]:
    """Return which people, and which attributes, are likely one under two names, a sentence for each kind."""
    people = join_similar_names({photo.person for photo in photos if photo.person})
    attributes = join_similar_names(names)
    consequences = [
        (people, "the same person: write one name, or the person can be in several splits"),
        (attributes, "the same attribute: put them into one column, or remove one"),
    ]
    notes = []
    for groups, consequence in consequences:
        if groups:
            more = f"; and {len(groups) - _MAX_LISTED} more" if len(groups) > _MAX_LISTED else ""
            notes.append(f"{'; '.join(groups[:_MAX_LISTED])}{more} are likely {consequence}.")
    return notes


def _note_columns(names: Sequence[str]) -> list[str]:
    """Return which attributes are likely none, by their names, a sentence for each kind."""
    simple = {name: " ".join(name.casefold().replace("_", " ").split()) for name in names}
    kinds = [
        (SPLIT_COLUMNS, "celebflow splits the photographs itself: remove the column"),
        (_PERSON_COLUMNS, f"a column that says who is in a photograph is called {_PERSON}"),
    ]
    return [
        f"By its name, this is likely no attribute, but it counts as one: {', '.join(found)}. If so, {remedy}."
        for known, remedy in kinds
        if (found := [name for name in names if simple[name] in known])
    ]


def _read_table(file: Path, problems: list[str]) -> tuple[list[str], Iterator[_Row]]:
    """Return the names of the attributes of attributes.csv, and its rows."""
    lines = read_cells(file)
    _, cells = next(lines, (1, []))
    header = [unescape_cell(cell).strip() for cell in cells]
    require_columns(file, header, (_PHOTOGRAPH,), (_PERSON, "a column per attribute"))
    for name in (_PHOTOGRAPH, _PERSON):
        if header.count(name) > 1:
            problems.append(f"line 1: {header.count(name)} columns are named {name}: remove all but one")
    columns = [column for column, name in enumerate(header) if name not in (_PHOTOGRAPH, _PERSON)]
    names = [header[column] for column in columns]
    _check_names(file, names, problems)
    return names, _split_rows(lines, header, columns, problems)


def _split_rows(
    lines: Iterable[tuple[int, list[str]]], header: list[str], columns: Sequence[int], problems: list[str]
) -> Iterator[_Row]:
    photograph, person = header.index(_PHOTOGRAPH), header.index(_PERSON) if _PERSON in header else None
    for line, cells in lines:
        if len(cells) != len(header):
            problems.append(f"line {line}: it has {len(cells)} cells, and the first line {len(header)}")
            continue
        name = "" if person is None else unescape_cell(cells[person]).strip()
        yield _Row(line, cells[photograph], name, [cells[column] for column in columns])


def _read_celeba(file: Path, people: Path, problems: list[str]) -> tuple[list[str], Iterator[_Row]]:
    """Return the names and rows of CelebA's list (Liu et al., 2015): a count, the names, then a line per photograph."""
    lines = read_words(file)
    if len(lines) < 2 or len(lines[0]) != 1 or not re.fullmatch("[0-9]{1,9}", lines[0][0]):
        problem = "line 1: not the number of photographs, with the names of attributes below, as CelebA's list begins"
        raise CelebflowError(describe_problems(file, [problem], _REMEDY))
    names = lines[1]
    _check_names(file, names, problems)
    count = sum(bool(words) for words in lines[2:])
    if int(lines[0][0]) != count:
        problems.append(f"line 1: it says that there are {int(lines[0][0])} rows, but there are {count}: copy it again")
    person_of = _read_celeba_people(people, problems) if is_given(people) else {}
    if is_given(people) and not any(words and words[0] in person_of for words in lines[2:]):
        problems.append(f"{people.name} names none of the files of this list: copy it again, or remove it")
    return names, _split_celeba(lines, person_of, problems)


def _split_celeba(lines: Sequence[list[str]], person_of: Mapping[str, str], problems: list[str]) -> Iterator[_Row]:
    for line, words in enumerate(lines[2:], 3):
        if not words:
            continue
        if len(words) != len(lines[1]) + 1:
            problems.append(f"line {line}: it has {len(words) - 1} values, and there are {len(lines[1])} attributes")
            continue
        yield _Row(line, words[0], person_of.get(words[0], ""), words[1:])


def _read_celeba_people(file: Path, problems: list[str]) -> dict[str, str]:
    """Return the number of the person whom each photograph shows, by the file's name."""
    person_of: dict[str, str] = {}
    for line, words in enumerate(read_words(file), 1):
        if len(words) == 2 and re.fullmatch("[0-9]{1,9}", words[1]):
            if person_of.setdefault(words[0], words[1]) != words[1]:
                problems.append(f"{file.name}, line {line}: {show_text(words[0])} has another number above")
        elif words:
            problems.append(f"{file.name}, line {line}: not the name of a file and the number of a person")
    return person_of


def _check_celeba_people(file: Path, people: Sequence[str]) -> Iterator[str]:
    """Yield that a list of people ends before the photographs do, if these, in the order of their list, show `people`.

    The number at its end may then have been cut, too, and be that of somebody else.
    """
    known = sum(map(bool, people))
    if 0 < known < len(people) and all(people[:known]):
        yield (
            f"{file.name} ends before the last {len(people) - known} of these photographs: copy it again. If nobody "
            f"knows their people, use {ATTRIBUTES_TABLE}, with blanks in the column {_PERSON}"
        )


def _check_names(file: Path, names: Sequence[str], problems: list[str]) -> None:
    """Add what is wrong with the names of attributes; raise CelebflowError when there are far too many."""
    if len(names) > _MAX_ATTRIBUTES:
        raise CelebflowError(f"{file} has {len(names)} attributes. Keep at most {_MAX_ATTRIBUTES} of the columns.")
    if not names:
        problems.append("line 1: it names no attribute: add a column for each")
    for name, count in Counter(names).items():
        if not name:
            problems.append(f"line 1: {count} columns have no name: name them by their attributes, or remove them")
        elif count > 1:
            problems.append(f"line 1: {count} columns are named {show_text(name)}: rename or remove all but one")
        if name in _OWN_NAMES:
            problems.append(f"line 1: a column is named {name}, as celebflow's own columns are: rename it")
        problems += [f"line 1: the name {show_text(name)} {fault}: rename it" for fault in _find_fault(name)]


def _find_fault(name: str) -> Iterator[str]:
    """Yield what makes the name of an attribute or person unfit to be shown."""
    if len(name) > _MAX_CHARACTERS:
        yield f"has more than {_MAX_CHARACTERS} characters"
    if escape_controls(name, keep="") != name:
        yield "holds control characters"


def _read_rows(rows: Iterable[_Row], found: Sequence[str], reading: _Reading) -> None:
    """Add what the rows say about the files at the paths `found`, and what is wrong with them, to `reading`."""
    known = set(found)
    paths_of_name = defaultdict(list)
    for path in found:
        paths_of_name[path.rpartition("/")[2]].append(path)
    likely = {simplify_path(path): path for path in found}
    for row in rows:
        places = _find_places(row.photograph, known, paths_of_name)
        where = f"line {row.line}"
        if not places:
            meant = likely.get(simplify_path(row.photograph))
            hint = f", but {meant!a} is: write that" if meant else ": correct it, or remove the row"
            reading.missing.append(f"{where}: {show_text(row.photograph)} is not one of the photographs{hint}")
            continue
        if len(places) > 1:
            shown = f"{places[0]} or {places[1]}" + (f" or {len(places) - 2} more" if len(places) > 2 else "")
            reading.problems.append(f"{where}: {show_text(row.photograph)} can be {shown}: write its path")
            continue
        (path,) = places
        if path in reading.line_of:
            earlier = reading.line_of[path]
            reading.problems.append(f"{where}: the same photograph as in line {earlier}, {path}: remove one of them")
            continue
        reading.line_of[path] = row.line
        reading.person_of[path] = row.person
        reading.problems += [
            f"{where}: the person {show_text(row.person)} {fault}" for fault in _find_fault(row.person)
        ]
        texts = [cell.strip() for cell in row.cells]
        reading.spellings_of_no |= {"0", "-1"}.intersection(texts)
        for name, text in zip(reading.names, texts, strict=True):
            if text not in _LABEL_OF:
                reading.faulty.add(name)
                reading.problems.append(f"{where}: {show_text(name)} is {show_text(text)}, not 1, 0 or blank")
        reading.labels_of[path] = np.array([_LABEL_OF.get(text, BLANK) for text in texts], np.int8)


def _find_places(cell: str, known: set[str], paths_of_name: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the paths that a cell can mean; celebflow's own tables have an apostrophe where a formula would be."""
    for text in (cell, unescape_cell(cell)):
        if text in known:
            return [text]
    for text in (cell, unescape_cell(cell)):
        candidates = paths_of_name.get(text.rpartition("/")[2], ())
        if places := [path for path in candidates if f"/{path}".endswith(f"/{text}")]:
            return places
    return []


def _check_kinds(table: AttributeTable, photos: Sequence[Photo], faulty: set[str]) -> Iterator[str]:
    """Yield the attributes that are yes, or no, in too few units, so that not every split can have one."""
    unit_of = {photo.path: number for number, unit in enumerate(join_units(photos)) for photo in unit}
    units = np.array([unit_of[path] for path in table.paths])
    unit_kind = "people" if all(photo.person for photo in photos) else "people or groups of near-duplicates"
    for name, labels in zip(table.names, table.labels.T, strict=True):
        counts = {value: len(np.unique(units[labels == value])) for value in (YES, NO)}
        if name in faulty:
            continue
        if not any(counts.values()):
            yield f"{show_text(name)} is blank everywhere: fill it in, or remove the column"
        for value, count in counts.items():
            if count < len(SPLITS) and any(counts.values()):
                yield (
                    f"{show_text(name)} is {value} for {count} {unit_kind}, and train, val and test need one each: add "
                    "photographs, or remove the column"
                )
