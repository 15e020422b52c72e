"""Find the photographs, check each, find near-duplicates, and split them into train, val and test."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from celebflow.duplicates import HashArray, group_near_duplicates, hash_photograph
from celebflow.errors import CelebflowError
from celebflow.images import PhotographError, decode_photograph
from celebflow.params import PrepareParams
from celebflow.tables import load_rows, save_rows, save_table

SPLITS = ("train", "val", "test")
# What operating systems leave in folders; listed among what is left out, but no reason to stop.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph; `path` is relative to the data folder, with forward slashes, and starts with the person.

    `group` is the least SHA-256 of the photographs that are near-duplicates of this one, its own included.
    """

    path: str
    person: str
    split: str
    sha256: str
    group: str


@dataclass(frozen=True)
class LeftOut:
    """A file in the data folder that is not used, and why."""

    path: str
    reason: str


def prepare_photographs(folder: Path, params: PrepareParams) -> tuple[list[Photo], list[LeftOut]]:
    """Find, check, group and split all photographs in `folder`, one sub-folder a person.

    Returns the photographs in the order of their paths, and every file that is left out.

    Raises CelebflowError with one list of all unreadable files when `params.unreadable` is "stop", with one list of
    all persons with too few photographs, when there are no two persons, and when `folder` is missing.
    """
    if not folder.is_dir():
        raise CelebflowError(
            f"{folder} is missing. It holds the photographs, one folder a person: "
            "run `dvc pull` to fetch them, or `celebflow sample data` to draw those of the demo."
        )
    paths, system_files = find_files(folder)
    found: list[Photo] = []
    hashes: list[HashArray] = []
    problems: list[LeftOut] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda path: _check_file(folder, path), paths)
        for result in tqdm(results, "checking", len(paths), unit="photograph", disable=None):
            if isinstance(result, LeftOut):
                problems.append(result)
            else:
                found.append(result[0])
                hashes.append(result[1])
    if problems and params.unreadable == "stop":
        listing = "\n".join(f"  {folder / problem.path}: {problem.reason}" for problem in problems)
        raise CelebflowError(
            f"{len(problems)} files in {folder} are no photographs that can be used:\n{listing}\n"
            "Replace or remove them, or set prepare.unreadable to leave_out to go on without them."
        )
    persons = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_system_file(entry.name))
    left_out = [LeftOut(path, "is a system file") for path in system_files]
    left_out = sorted([*left_out, *problems], key=lambda file: file.path)
    if found and params.duplicate_distance_bits is not None:
        groups = group_near_duplicates(
            np.stack(hashes), [photo.sha256 for photo in found], params.duplicate_distance_bits
        )
        found = [replace(photo, group=group) for photo, group in zip(found, groups, strict=True)]
    return split_photographs(found, persons, params), left_out


def find_files(folder: Path) -> tuple[list[str], list[str]]:
    """List the files below `folder` at any depth, and apart from them what operating systems leave there.

    Paths are relative to `folder`, with forward slashes, in the order of their parts. Links to folders are among them
    and are not followed.
    """
    paths, system_files = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink()):
        relative = path.relative_to(folder)
        if any(_is_system_file(part) for part in relative.parts):
            system_files.append(relative.as_posix())
        else:
            paths.append(relative.as_posix())
    return paths, system_files


def _is_system_file(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def _check_file(folder: Path, path: str) -> tuple[Photo, HashArray] | LeftOut:
    try:
        path.encode()
    except UnicodeEncodeError:
        return LeftOut(path.encode(errors="backslashreplace").decode(), "has a name that is not UTF-8")
    if "/" not in path:
        return LeftOut(path, "stands in no person's folder")
    if (folder / path).is_dir():
        return LeftOut(path, "is a link to a folder, which is not followed")
    try:
        content = (folder / path).read_bytes()
        hashes = hash_photograph(decode_photograph(content))
    except PhotographError as error:
        return LeftOut(path, str(error))
    except OSError as error:
        return LeftOut(path, f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(content).hexdigest()
    return Photo(path, path.split("/")[0], "", sha256, sha256), hashes


def split_photographs(photos: Iterable[Photo], persons: Sequence[str], params: PrepareParams) -> list[Photo]:
    """Assign each photograph a split, person by person, and return them in the order of their paths.

    A group of near-duplicates goes to one split as a whole, also when it spans persons. Which go where follows from a
    hash of the seed and the group alone: where no group spans persons, other people's photographs, names and the
    order of files change nothing, and a person keeps most of a split when photographs come to it. Each person has at
    least one photograph in each split; large groups can leave val and test smaller than their fractions.

    Raises CelebflowError when there are no two persons, or naming each with too few photographs or groups.
    """
    of_person: dict[str, dict[str, list[Photo]]] = {person: {} for person in persons}
    for photo in photos:
        of_person[photo.person].setdefault(photo.group, []).append(photo)
    if len(persons) < 2:
        raise CelebflowError(f"There are photographs of {len(persons)} persons; it takes at least two to tell apart.")
    small = [f"  {person}: {_describe_count(groups)}" for person, groups in of_person.items() if len(groups) < 3]
    if small:
        raise CelebflowError(
            "\n".join(
                [
                    "These persons have too few photographs to split into train, val and test:",
                    *small,
                    "Add photographs (three are the least, thirty and more are better) or remove the folder.",
                ]
            )
        )
    split_of: dict[str, str] = {}  # of each group
    for person, groups in of_person.items():
        sizes = {group: len(groups[group]) for group in sorted(groups, key=lambda group: _rank(params.seed, group))}
        _split_person(person, sizes, split_of, params)
    everyone = (photo for groups in of_person.values() for group in groups.values() for photo in group)
    return sorted((replace(photo, split=split_of[photo.group]) for photo in everyone), key=lambda photo: photo.path)


def _describe_count(groups: dict[str, list[Photo]]) -> str:
    count = sum(len(group) for group in groups.values())
    return f"{count}, of {len(groups)} different pictures" if count > len(groups) else str(count)


def _split_person(person: str, sizes: dict[str, int], split_of: dict[str, str], params: PrepareParams) -> None:
    """Add the splits of one person's groups to `split_of`, which may hold some already: those of other persons, too."""
    count = sum(sizes.values())
    val, test = (max(1, round(count * fraction)) for fraction in (params.val_fraction, params.test_fraction))
    left = dict(zip(("val", "test"), _leave_one_to_train_on(count, val, test), strict=True))
    own = [group for group in sizes if group not in split_of]
    for group in sizes.keys() - set(own):
        if split_of[group] != "train":
            left[split_of[group]] -= sizes[group]
    for group in own:
        fitting = [split for split in left if sizes[group] <= left[split]]
        split_of[group] = fitting[0] if fitting else "train"
        if fitting:
            left[fitting[0]] -= sizes[group]
    for missing in SPLITS:
        inside = Counter(split_of[group] for group in sizes)
        if missing in inside:
            continue
        movable = [group for group in own if inside[split_of[group]] > 1]
        if not movable:
            raise CelebflowError(
                f"{person} would have no photograph in {missing}: too many are near-duplicates of other persons'. "
                "Remove what stands in the wrong folder, or lower prepare.duplicate_distance_bits."
            )
        split_of[min(movable, key=lambda group: sizes[group])] = missing


def _leave_one_to_train_on(count: int, val: int, test: int) -> tuple[int, int]:
    while val + test >= count:
        val, test = (val - 1, test) if val > test else (val, test - 1)
    return val, test


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed} {group}".encode()).hexdigest()


@dataclass(frozen=True)
class DuplicateGroup:
    """Photographs that are near-duplicates of one another, in the order of their paths.

    `leaked` counts those whose picture an ordinary split, which knows of no groups, would have had in train as well
    as in val or test: such photographs of val and test.
    """

    photos: tuple[Photo, ...]
    leaked: int

    @property
    def persons(self) -> list[str]:
        """Return whom they show, by their folders; more than one says that a label is likely wrong."""
        return list_persons(self.photos)


def list_duplicate_groups(photos: Sequence[Photo], params: PrepareParams) -> list[DuplicateGroup]:
    """Return every group of two and more, those across persons and then the largest first, and what each leaks."""
    alone = [replace(photo, group=photo.sha256 + photo.path) for photo in photos]
    ordinary = {photo.path: photo.split for photo in split_photographs(alone, list_persons(photos), params)}
    members: dict[str, list[Photo]] = {}
    for photo in photos:
        members.setdefault(photo.group, []).append(photo)
    groups = []
    for group in members.values():
        if len(group) > 1:
            splits = Counter(ordinary[photo.path] for photo in group)
            leaked = splits["val"] + splits["test"] if splits["train"] else 0
            groups.append(DuplicateGroup(tuple(sorted(group, key=lambda photo: photo.path)), leaked))
    return sorted(groups, key=lambda group: (len(group.persons) < 2, -len(group.photos), group.photos[0].path))


def describe_duplicates(groups: Sequence[DuplicateGroup]) -> str:
    """Say in a few sentences what near-duplicates there are, and what they would have done."""
    if not groups:
        return "There are no near-duplicates."
    count, leaked = sum(len(group.photos) for group in groups), sum(group.leaked for group in groups)
    text = (
        f"{count} photographs are near-duplicates, in {len(groups)} groups, which stay in one split each; an ordinary "
        f"split would have had {leaked} of val and test in train, too."
    )
    mixed = [group for group in groups if len(group.persons) > 1]
    if mixed:
        text += f" {len(mixed)} groups span persons: a label is likely wrong."
    return text


def list_persons(photos: Iterable[Photo]) -> list[str]:
    """Return the class names: the sorted folder names."""
    return sorted({photo.person for photo in photos})


def save_photos(photos: Iterable[Photo], path: Path) -> None:
    """Write photos.csv."""
    save_rows(Photo, photos, path)


def save_duplicates(groups: Iterable[DuplicateGroup], path: Path) -> None:
    """Write duplicates.csv, one row a photograph of a group; with its header alone when there are none."""
    rows = (
        (number, photo.path, photo.person, photo.split, group.leaked, "yes" if len(group.persons) > 1 else "")
        for number, group in enumerate(groups, 1)
        for photo in group.photos
    )
    save_table(path, ["group", "path", "person", "split", "leaked_by_ordinary_split", "likely_wrong_label"], rows)


def save_left_out(files: Iterable[LeftOut], path: Path) -> None:
    """Write the list of files that are left out; with its header alone when there are none."""
    save_rows(LeftOut, files, path)


def load_photos(path: Path) -> list[Photo]:
    """Read what save_photos wrote."""
    return load_rows(Photo, path)
