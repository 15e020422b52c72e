"""Pairs of photographs, of the same person or of two: given with the photographs, or drawn; splits/pairs.csv."""

import csv
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from pathlib import Path

from celebflow.data.photos import Photo
from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError

# What may lie beside the folders of people: pairs, LFW's own list of pairs, and the folds of people.
PAIRS_TABLE, LFW_PAIRS, PEOPLE_TABLE = "pairs.csv", "pairs.txt", "people.csv"
TABLES = (PAIRS_TABLE, LFW_PAIRS, PEOPLE_TABLE)
_MAX_LISTED = 10
_NUMBER = re.compile("[0-9]{1,9}")
_MIN_FOLDS = 3  # one for test, one for val, and one to train on


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs, by their paths; `same` is 1 when they show the same person, otherwise 0.

    `fold` is the fold of both people in a k-fold protocol, 0 without one.
    """

    first: str
    second: str
    same: int
    split: str
    fold: int


@dataclass(frozen=True)
class GivenPairs:
    """The pairs that lie with the photographs, without splits, and the fold of each person who has one."""

    pairs: list[Pair]
    fold_of: dict[str, int] = field(default_factory=dict)


def save_pairs(pairs: Iterable[Pair], path: Path) -> None:
    """Write splits/pairs.csv, one row per pair; without any, only the header."""
    save_rows(Pair, pairs, path)


def load_pairs(path: Path) -> list[Pair]:
    """Read what save_pairs wrote; raise CelebflowError when a column is missing."""
    return load_rows(Pair, path)


@dataclass(frozen=True, slots=True)
class PersonFold:
    """A person and the number of a fold, from 1."""

    person: str
    fold: int


def save_folds(fold_of: Mapping[str, int], path: Path) -> None:
    """Write splits/folds.csv, one row per person with a fold, sorted by name; without any, only the header."""
    save_rows(PersonFold, (PersonFold(person, fold) for person, fold in sorted(fold_of.items())), path)


def load_folds(path: Path) -> dict[str, int]:
    """Read what save_folds wrote; raise CelebflowError when a column is missing."""
    return {row.person: row.fold for row in load_rows(PersonFold, path)}


def read_given_pairs(folder: Path, photos: Sequence[Photo]) -> GivenPairs | None:
    """Read pairs.csv or LFW's pairs.txt in the folder of photographs; return None when there is neither.

    pairs.csv has the columns first, second (paths in `folder`), same (0 or 1) and perhaps fold. people.csv, with the
    columns person and fold, gives folds to people who are in no pair.

    Raises CelebflowError, which lists what is wrong by file and line: unknown photographs, pairs of a photograph with
    itself, pairs given twice, a label that the folders of people contradict, pairs of one kind only, and folds that
    share people.
    """
    file = next((folder / name for name in (PAIRS_TABLE, LFW_PAIRS) if (folder / name).exists()), None)
    if file is None:
        return None
    lines = _read_table(file) if file.name == PAIRS_TABLE else _read_lfw(file, photos)
    person_of = {photo.path: photo.person for photo in photos}
    problems: list[str] = []
    pairs: list[Pair] = []
    fold_of: dict[str, int] = {}
    line_of: dict[frozenset[str], int] = {}
    for number, pair in lines:
        if problem := _find_problem(pair, person_of, line_of, fold_of):
            problems.append(f"  line {number}: {problem}")
            continue
        line_of[frozenset((pair.first, pair.second))] = number
        if pair.fold:
            fold_of |= dict.fromkeys((person_of[pair.first], person_of[pair.second]), pair.fold)
        pairs.append(pair)
    if not problems:
        problems = [f"  {problem}" for problem in _check_balance(pairs)]
    if problems:
        raise CelebflowError(_describe(file, problems))
    if fold_of:
        _add_folds(folder / PEOPLE_TABLE, set(person_of.values()), fold_of)
    return GivenPairs(pairs, fold_of)


def _describe(file: Path, problems: Sequence[str]) -> str:
    more = f"\n  and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
    listing = "\n".join(problems[:_MAX_LISTED])
    return f"{file} is not valid:\n{listing}{more}\nCorrect it, or remove it to draw pairs by prepare.seed."


def _find_problem(
    pair: Pair,
    person_of: Mapping[str, str],
    line_of: Mapping[frozenset[str], int],
    fold_of: Mapping[str, int],
) -> str:
    """Return what is wrong with a pair, or an empty text."""
    unknown = [path for path in (pair.first, pair.second) if path not in person_of]
    if unknown:
        return f"{unknown[0]} is not one of the photographs"
    if pair.first == pair.second:
        return f"{pair.first} is paired with itself"
    if earlier := line_of.get(frozenset((pair.first, pair.second))):
        return f"the same pair as in line {earlier}"
    people = person_of[pair.first], person_of[pair.second]
    if (people[0] == people[1]) != bool(pair.same):
        said = "the same person" if pair.same else "two people"
        return f"{pair.first} and {pair.second} are said to show {said}, and are in folders that say otherwise"
    shared = [person for person in people if fold_of.get(person, pair.fold) != pair.fold]
    return f"{shared[0]} is in fold {fold_of[shared[0]]} and in fold {pair.fold}" if shared else ""


def _check_balance(pairs: Sequence[Pair]) -> list[str]:
    """Return what pairs lack as a whole: some of each kind, in each fold, and enough folds."""
    folds = sorted({pair.fold for pair in pairs})
    if folds not in ([], [0]) and len(folds) < _MIN_FOLDS:
        return [f"there are {len(folds)} folds, and at least {_MIN_FOLDS} are needed"]
    problems = []
    for fold in folds or [0]:
        kinds = Counter(pair.same for pair in pairs if pair.fold == fold)
        where = f"fold {fold}" if fold else "the file"
        if len(kinds) < 2:
            problems.append(f"{where} has no pair of {'two people' if kinds[1] else 'the same person'}")
    return problems


def _read_table(file: Path) -> Iterator[tuple[int, Pair]]:
    """Yield the pairs of pairs.csv with their line numbers."""
    for number, row in _read_rows(file, ("first", "second", "same"), ("fold",)):
        same, fold = row["same"].strip(), row.get("fold", "0").strip()
        if same not in ("0", "1"):
            raise CelebflowError(_describe(file, [f"  line {number}: same is {same!r}, not 0 or 1"]))
        if not re.fullmatch("[0-9]{1,4}", fold) or ("fold" in row and int(fold) == 0):
            raise CelebflowError(_describe(file, [f"  line {number}: fold is {fold!r}, not a number from 1"]))
        yield number, Pair(row["first"], row["second"], int(same), "", int(fold))


def read_pair_rows(file: Path) -> list[tuple[str, str]]:
    """Read the columns first and second of a CSV file; paths are relative to its folder.

    Raises CelebflowError when the file cannot be read, or lacks a column.
    """
    return [
        (str(file.parent / row["first"]), str(file.parent / row["second"]))
        for _, row in _read_rows(file, ("first", "second"), ())
    ]


def _read_rows(file: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV file that a user wrote, with their line numbers."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as content:
            rows = csv.DictReader(content)
            header = rows.fieldnames or []
            if missing := [name for name in needed if name not in header]:
                raise CelebflowError(
                    f"{file} lacks the column {', '.join(missing)}. Its first line must name the columns: "
                    + ",".join(needed)
                    + (f", and perhaps {','.join(optional)}." if optional else ".")
                )
            for row in rows:
                if None in row or None in row.values():
                    raise CelebflowError(f"{file}, line {rows.line_num}: another number of cells than the first line.")
                if any("\0" in cell for cell in row.values()):
                    raise CelebflowError(f"{file}, line {rows.line_num}: a cell holds a null character.")
                yield rows.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CelebflowError(f"{file} cannot be read ({error}). Save it as CSV in UTF-8.") from None


def _read_lfw(file: Path, photos: Sequence[Photo]) -> Iterator[tuple[int, Pair]]:
    """Yield the pairs of LFW's pairs.txt with their line numbers (Huang et al., 2007).

    The first line is the number of folds, and that of the pairs of each kind in a fold, or the latter alone. A line of
    three words is a person and two numbers of photographs, one of four words two people, each with a number.
    """
    path_of = {photo.path.rpartition(".")[0]: photo.path for photo in photos}
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise CelebflowError(f"{file} cannot be read ({error}). Save it as text in UTF-8.") from None
    header = lines[0] if lines else []
    if not 1 <= len(header) <= 2 or not all(map(_NUMBER.fullmatch, header)):
        raise CelebflowError(_describe(file, ["  line 1: not one or two numbers, as LFW's pairs.txt begins"]))
    fold_size = 2 * int(header[1]) if len(header) == 2 else 0
    filled = [(number, words) for number, words in enumerate(lines[1:], 2) if words]
    for place, (number, words) in enumerate(filled):
        people = [words[0], words[0]] if len(words) == 3 else words[0::2]
        numbers = words[1:] if len(words) == 3 else words[1::2]
        if len(words) not in (3, 4) or not all(map(_NUMBER.fullmatch, numbers)):
            raise CelebflowError(_describe(file, [f"  line {number}: not a pair: {' '.join(words)}"]))
        first, second = (f"{person}/{person}_{int(each):04}" for person, each in zip(people, numbers, strict=True))
        fold = place // fold_size + 1 if fold_size else 0
        yield number, Pair(path_of.get(first, first), path_of.get(second, second), int(len(words) == 3), "", fold)


def _add_folds(file: Path, people: set[str], fold_of: dict[str, int]) -> None:
    """Add the folds that people.csv gives to people who are in no pair; other people of it are left out."""
    if not file.exists():
        return
    for number, row in _read_rows(file, ("person", "fold"), ()):
        person, fold = row["person"], row["fold"].strip()
        if person not in people:
            continue
        if not re.fullmatch("[1-9][0-9]{0,3}", fold):
            raise CelebflowError(f"{file}, line {number}: the fold of {person} is {fold!r}, not a number from 1.")
        if fold_of.get(person, int(fold)) != int(fold):
            raise CelebflowError(
                f"{file}, line {number}: {person} is in fold {fold}, but in fold {fold_of[person]} in the pairs "
                "or in an earlier line. Correct one of them."
            )
        fold_of[person] = int(fold)


def draw_pairs(photos: Sequence[Photo], split: str, seed: int, max_count: int) -> list[Pair]:
    """Draw pairs among the photographs of a split: as many of the same person as of two people, sorted by path.

    Half of `max_count`, or fewer where there are not so many. Pairs of the same person are shared out evenly among
    people; those of two people take two people at random, and a photograph of each. Near-duplicates make no pair.
    """
    randomly = random.Random(f"{seed} {split}")  # noqa: S311 - a split, not a secret
    of_person: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted((photo for photo in photos if photo.split == split), key=lambda photo: photo.path):
        of_person[photo.person].append(photo)
    same = _draw_same(of_person, randomly, max_count // 2)
    different = _draw_different(of_person, randomly, len(same))
    chosen = [(*pair, 1) for pair in same[: len(different)]] + [(*pair, 0) for pair in different]
    return sorted(
        (Pair(first.path, second.path, kind, split, 0) for first, second, kind in chosen),
        key=lambda pair: (pair.first, pair.second),
    )


def _draw_same(
    of_person: Mapping[str, Sequence[Photo]], randomly: random.Random, count: int
) -> list[tuple[Photo, Photo]]:
    """Draw up to `count` pairs of the same person, person by person in turns."""
    waiting = []
    for own in of_person.values():
        if comb(len(own), 2) > 4 * count:
            drawn = {tuple(sorted(randomly.sample(range(len(own)), 2))) for _ in range(4 * count)}
            pairs = [(own[first], own[second]) for first, second in sorted(drawn)]
        else:
            pairs = list(combinations(own, 2))
        pairs = [(first, second) for first, second in pairs if first.group != second.group]
        randomly.shuffle(pairs)
        waiting.append(pairs)
    randomly.shuffle(waiting)
    drawn_pairs: list[tuple[Photo, Photo]] = []
    while waiting and len(drawn_pairs) < count:
        waiting = [pairs for pairs in waiting if pairs]
        drawn_pairs += [pairs.pop() for pairs in waiting]
    return drawn_pairs[:count]


def _draw_different(
    of_person: Mapping[str, Sequence[Photo]], randomly: random.Random, count: int
) -> list[tuple[Photo, Photo]]:
    """Draw up to `count` pairs of two people."""
    people = list(of_person)
    sizes = [len(own) for own in of_person.values()]
    possible = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
    if possible <= 4 * count:  # too few for a draw at random to find them quickly
        pairs = [
            (first, second)
            for one, other in combinations(people, 2)
            for first in of_person[one]
            for second in of_person[other]
            if first.group != second.group
        ]
        return randomly.sample(pairs, min(count, len(pairs)))
    drawn: dict[tuple[str, str], tuple[Photo, Photo]] = {}
    for _ in range(100 * count):
        if len(drawn) == count:
            break
        one, other = sorted(randomly.sample(people, 2))
        first, second = randomly.choice(of_person[one]), randomly.choice(of_person[other])
        if first.group != second.group:
            drawn[first.path, second.path] = first, second
    return list(drawn.values())
