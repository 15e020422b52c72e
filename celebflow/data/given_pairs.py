"""The pairs of photographs and folds of people that users write, or that LFW has."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from celebflow.data.files import find_files
from celebflow.data.given_tables import (
    LFW_PAIRS,
    PAIRS_TABLE,
    PEOPLE_TABLE,
    TABLES,
    describe_problems,
    is_given,
    quote_text,
    read_rows,
    read_words,
    show_text,
    simplify_path,
)
from celebflow.data.layout import find_similar_names
from celebflow.data.pairs import Pair
from celebflow.data.photos import Photo
from celebflow.data.tables import unescape_cell
from celebflow.errors import CelebflowError

# Where systems name the open files of a process, with whose paths theirs have nothing to do.
_FOLDERS_OF_STREAMS = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
_MIN_FOLDS = 3  # one for test, one for val, and one to train on


@dataclass(frozen=True)
class GivenPairs:
    """The pairs that lie with the photographs, without splits, and the fold of each person who has one.

    `unused_count` is the number of pairs that are left out, because one of their files is not used, and `nobody_count`
    that of rows of people.csv that name nobody whose photographs are used.
    """

    pairs: list[Pair]
    fold_of: dict[str, int] = field(default_factory=dict)
    unused_count: int = 0
    nobody_count: int = 0


def read_given_pairs(folder: Path, photos: Sequence[Photo]) -> GivenPairs | None:
    """Read pairs.csv or LFW's pairs.txt in the folder of photographs; return None when there is neither.

    pairs.csv has the columns first, second (paths in `folder`), same (0 or 1) and perhaps fold. people.csv, with the
    columns person and fold, gives folds to people who are in no pair. Pairs of files in `folder` that are not among
    `photos` are left out.

    Raises CelebflowError, which lists what is wrong by file and line: unknown photographs, pairs of a photograph with
    itself, pairs given twice, a label that the folders of people contradict, pairs of one kind only, folds that share
    people, and names in people.csv that differ only in writing from those of people.
    """
    file = next((folder / name for name in (PAIRS_TABLE, LFW_PAIRS) if is_given(folder / name)), None)
    if file is None:
        return None
    person_of = {photo.path: photo.person for photo in photos}
    likely = {simplify_path(path): path for path in person_of}
    # Files that prepare.unreadable skips, and people who are for recognition alone.
    unused = set(find_files(folder)[0]) - person_of.keys() - TABLES.keys()
    known = person_of.keys() | unused
    lines = _read_table(file, known) if file.name == PAIRS_TABLE else _read_lfw(file, sorted(known))
    problems: list[str] = []
    pairs: list[Pair] = []
    fold_of: dict[str, int] = {}
    line_of: dict[frozenset[str], int] = {}
    unused_count = 0
    for number, pair in lines:
        if {pair.first, pair.second} <= known and not unused.isdisjoint((pair.first, pair.second)):
            unused_count += 1
            continue
        if problem := _find_problem(pair, person_of, likely, line_of, fold_of):
            problems.append(f"line {number}: {problem}")
            continue
        line_of[frozenset((pair.first, pair.second))] = number
        if pair.fold:
            fold_of |= dict.fromkeys((person_of[pair.first], person_of[pair.second]), pair.fold)
        pairs.append(pair)
    if not problems:
        problems = _check_balance(pairs)
    if problems:
        raise CelebflowError(_describe(file, problems))
    nobody_count = 0
    if fold_of and is_given(folder / PEOPLE_TABLE):
        unused_names = {path.split("/")[0] for path in unused}
        nobody_count = _add_folds(folder / PEOPLE_TABLE, set(person_of.values()), unused_names, fold_of)
    return GivenPairs(pairs, fold_of, unused_count, nobody_count)


def _describe(file: Path, problems: Sequence[str]) -> str:
    return describe_problems(file, problems, "Correct it, or remove it to draw pairs by prepare.seed.")


def _find_problem(
    pair: Pair,
    person_of: Mapping[str, str],
    likely: Mapping[str, str],
    line_of: Mapping[frozenset[str], int],
    fold_of: Mapping[str, int],
) -> str:
    """Return what is wrong with a pair, or an empty text."""
    unknown = [path for path in (pair.first, pair.second) if path not in person_of]
    if unknown:
        meant = likely.get(simplify_path(unknown[0]))
        return f"{show_text(unknown[0])} is not one of the photographs" + (f", but {meant!a} is" if meant else "")
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


def _read_table(file: Path, known: Set[str]) -> Iterator[tuple[int, Pair]]:
    """Yield the pairs of pairs.csv with their line numbers."""
    for number, row in read_rows(file, ("first", "second", "same"), ("fold",)):
        same, fold = row["same"].strip(), row.get("fold", "0").strip()
        if same not in ("0", "1"):
            raise CelebflowError(_describe(file, [f"line {number}: same is {quote_text(same)}, not 0 or 1"]))
        if not re.fullmatch("[0-9]{1,4}", fold) or ("fold" in row and int(fold) == 0):
            raise CelebflowError(_describe(file, [f"line {number}: fold is {quote_text(fold)}, not a number from 1"]))
        first, second = (_find_known(row[side], known) for side in ("first", "second"))
        yield number, Pair(first, second, int(same), "", int(fold))


def read_pair_rows(file: Path) -> list[tuple[str, str]]:
    """Read the columns first and second of a CSV file; paths are relative to its folder.

    Those of a table that comes through a pipe, such as a shell's <(…), are relative to the working directory.

    Raises CelebflowError when the file cannot be read, or lacks a column or a cell.
    """
    folder = Path() if file.is_fifo() or file.parent in _FOLDERS_OF_STREAMS else file.parent
    pairs = []
    for number, row in read_rows(file, ("first", "second"), ()):
        if empty := next((side for side in ("first", "second") if not row[side].strip()), None):
            raise CelebflowError(f"{file}, line {number}: {empty} is empty. Name a photograph there.")
        pairs.append((_find_file(folder, row["first"]), _find_file(folder, row["second"])))
    return pairs


def _find_file(folder: Path, cell: str) -> str:
    """Return the file that a cell names; celebflow's own tables have an apostrophe where there would be a formula."""
    path = folder / cell
    # Path.exists raises for names that are too long.
    return str(path if os.path.exists(path) else folder / unescape_cell(cell))  # noqa: PTH110


def _read_lfw(file: Path, known: Sequence[str]) -> Iterator[tuple[int, Pair]]:
    """Yield the pairs of LFW's pairs.txt with their line numbers (Huang et al., 2007).

    The first line is the number of folds, and that of the pairs of each kind in a fold, or the latter alone. A line of
    three words is a person and two numbers of photographs, one of four words two people, each with a number. Between
    tabs, as LFW has them, names may hold spaces.
    """
    paths_of = defaultdict(list)
    for path in known:
        paths_of[path.rpartition(".")[0]].append(path)
    lines = read_words(file, _split_line)
    header = lines[0] if lines else []
    if not 1 <= len(header) <= 2 or not all(map(_is_number, header)):
        raise CelebflowError(_describe(file, ["line 1: not one or two numbers, as LFW's pairs.txt begins"]))
    fold_count, fold_size = int(header[0]) if len(header) == 2 else 1, 2 * int(header[-1])
    count = 0
    for number, words in enumerate(lines[1:], 2):
        if not words:
            continue
        people = [words[0], words[0]] if len(words) == 3 else words[0::2]
        numbers = words[1:] if len(words) == 3 else words[1::2]
        if len(words) not in (3, 4) or not all(map(_is_number, numbers)):
            raise CelebflowError(_describe(file, [f"line {number}: not a pair: {show_text(' '.join(words))}"]))
        chosen = []
        for person, each in zip(people, numbers, strict=True):
            name = f"{person}/{person}_{int(each):04}"
            found = paths_of.get(name, [name])
            if len(found) > 1:
                raise CelebflowError(_describe(file, [f"line {number}: {name} can be {' or '.join(found)}"]))
            chosen += found
        fold = count // fold_size + 1 if len(header) == 2 and fold_size else 0
        yield number, Pair(chosen[0], chosen[1], int(len(words) == 3), "", fold)
        count += 1
    if count != fold_count * fold_size:
        problem = f"line 1: it says that there are {fold_count * fold_size} pairs, but there are {count}"
        raise CelebflowError(_describe(file, [problem]))


def _split_line(line: str) -> list[str]:
    """Return the words of a line of LFW's pairs.txt: what stands between its tabs, or else between its spaces."""
    cells = [cell.strip() for cell in line.split("\t") if cell.strip()]
    return cells if len(cells) in (3, 4) else line.split()


def _is_number(word: str) -> bool:
    return bool(re.fullmatch("[0-9]{1,6}", word))


def _add_folds(file: Path, people: Set[str], unused_names: Set[str], fold_of: dict[str, int]) -> int:
    """Add the folds that people.csv gives to people who are in no pair; return the number of rows that name nobody.

    `unused_names` are folders with files that are not used, whose rows need no correction.
    """
    folds = set(fold_of.values())
    line_of: dict[str, int] = {}
    unknown: list[tuple[int, str]] = []
    for number, row in read_rows(file, ("person", "fold"), ()):
        person, fold = _find_known(row["person"], people), row["fold"].strip()
        if person not in people:
            unknown.append((number, person))
            continue
        if not re.fullmatch("[1-9][0-9]{0,3}", fold):
            raise CelebflowError(
                f"{file}, line {number}: the fold of {person} is {quote_text(fold)}, not a number from 1. Correct it."
            )
        if int(fold) not in folds:
            raise CelebflowError(
                f"{file}, line {number}: {person} is in fold {fold}, in which there is no pair. Correct it, or leave "
                "out that line: people without a fold train."
            )
        if fold_of.get(person, int(fold)) != int(fold):
            where = f"line {line_of[person]}" if person in line_of else "the pairs"
            raise CelebflowError(
                f"{file}, line {number}: {person} is in fold {fold}, but in fold {fold_of[person]} in {where}. Correct "
                "one of them."
            )
        fold_of[person] = int(fold)
        line_of[person] = number
    meant_by = find_similar_names({name for _, name in unknown if name.strip()} - unused_names, people)
    problems = [
        f"line {number}: {quote_text(name)} is not one of the people, but {meant_by[name]!a} is"
        for number, name in unknown
        if name in meant_by and meant_by[name] not in line_of  # a table of more people may have somebody alike
    ]
    if problems:
        remedy = "Write each name as the folder of that person has it, or remove that line."
        raise CelebflowError(describe_problems(file, problems, remedy))
    return len(unknown)


def _find_known(cell: str, known: Set[str]) -> str:
    """Return what a cell names; celebflow's own tables have an apostrophe where there would be a formula."""
    return cell if cell in known else unescape_cell(cell)
