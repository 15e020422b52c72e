"""Find the photographs, check each, and split them into train, val and test."""

import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from tqdm import tqdm

from celebflow.errors import CelebflowError
from celebflow.images import PhotographError, decode_photograph
from celebflow.params import PrepareParams
from celebflow.tables import load_table, save_table

SPLITS = ("train", "val", "test")
# What operating systems leave in folders; listed among what is left out, but no reason to stop.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph; `path` is relative to the data folder, with forward slashes, and starts with the person."""

    path: str
    person: str
    split: str
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """A file in the data folder that is not used, and why."""

    path: str
    reason: str


def prepare_photographs(folder: Path, params: PrepareParams) -> tuple[list[Photo], list[LeftOut]]:
    """Find, check and split all photographs in `folder`, one sub-folder a person.

    Returns the photographs in the order of their paths, and every file that is left out.

    Raises CelebflowError with one list of all unreadable files when `params.unreadable` is "stop", with one list of
    all persons with fewer than three photographs, and when there are no two persons.
    """
    paths, left_out = _find_files(folder)
    found: list[Photo] = []
    problems: list[LeftOut] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda path: _check_file(folder, path), paths)
        for result in tqdm(results, "checking", len(paths), unit="photograph", disable=None):
            (found if isinstance(result, Photo) else problems).append(result)  # type: ignore[arg-type]
    if problems and params.unreadable == "stop":
        listing = "\n".join(f"  {folder / problem.path}: {problem.reason}" for problem in problems)
        raise CelebflowError(
            f"{len(problems)} files in {folder} are no photographs that can be used:\n{listing}\n"
            "Replace or remove them, or set prepare.unreadable to leave_out to go on without them."
        )
    persons = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_system_file(entry.name))
    left_out = sorted([*left_out, *problems], key=lambda file: file.path)
    return split_photographs(found, persons, params), left_out


def _find_files(folder: Path) -> tuple[list[str], list[LeftOut]]:
    """List every file below `folder` in the order of the paths, apart from what operating systems leave there."""
    if not folder.is_dir():
        raise CelebflowError(
            f"{folder} is missing. It holds the photographs, one folder a person: "
            "run `dvc pull` to fetch them, or `celebflow sample data` to draw those of the demo."
        )
    paths, system_files = [], []
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()):
        relative = path.relative_to(folder)
        if any(_is_system_file(part) for part in relative.parts):
            system_files.append(LeftOut(relative.as_posix(), "is a system file"))
        else:
            paths.append(relative.as_posix())
    return paths, system_files


def _is_system_file(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def _check_file(folder: Path, path: str) -> Photo | LeftOut:
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
        decode_photograph(content)
    except PhotographError as error:
        return LeftOut(path, str(error))
    except OSError as error:
        return LeftOut(path, f"cannot be read ({error.strerror})")
    return Photo(path, path.split("/")[0], "", hashlib.sha256(content).hexdigest())


def split_photographs(photos: Iterable[Photo], persons: Sequence[str], params: PrepareParams) -> list[Photo]:
    """Assign each photograph a split, person by person, and return them in the order of their paths.

    Which photographs go where follows from a hash of the seed and the file's bytes alone: other people's
    photographs, names and the order of files change nothing, and a person keeps most of a split when photographs
    come to it.

    Raises CelebflowError when there are no two persons, or naming each with fewer than three photographs.
    """
    of_person: dict[str, list[Photo]] = {person: [] for person in persons}
    for photo in photos:
        of_person[photo.person].append(photo)
    if len(persons) < 2:
        raise CelebflowError(f"There are photographs of {len(persons)} persons; it takes at least two to tell apart.")
    small = [f"  {person}: {len(group)}" for person, group in of_person.items() if len(group) < len(SPLITS)]
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
    split = []
    for group in of_person.values():
        val = max(1, round(len(group) * params.val_fraction))
        test = max(1, round(len(group) * params.test_fraction))
        val, test = _leave_one_to_train_on(len(group), val, test)
        group.sort(key=lambda photo: (_rank(params.seed, photo), photo.path))
        names = ["val"] * val + ["test"] * test + ["train"] * (len(group) - val - test)
        split += [replace(photo, split=name) for photo, name in zip(group, names, strict=True)]
    return sorted(split, key=lambda photo: photo.path)


def _leave_one_to_train_on(count: int, val: int, test: int) -> tuple[int, int]:
    while val + test >= count:
        val, test = (val - 1, test) if val > test else (val, test - 1)
    return val, test


def _rank(seed: int, photo: Photo) -> str:
    return hashlib.sha256(f"{seed} {photo.sha256}".encode()).hexdigest()


def list_persons(photos: Iterable[Photo]) -> list[str]:
    """Return the class names: the sorted folder names."""
    return sorted({photo.person for photo in photos})


def save_photos(photos: Iterable[Photo], path: Path) -> None:
    """Write photos.csv."""
    save_table(path, [field.name for field in fields(Photo)], (astuple(photo) for photo in photos))


def save_left_out(files: Iterable[LeftOut], path: Path) -> None:
    """Write the list of files that are left out; with its header alone when there are none."""
    save_table(path, [field.name for field in fields(LeftOut)], (astuple(file) for file in files))


def load_photos(path: Path) -> list[Photo]:
    """Read what save_photos wrote."""
    return [
        Photo(row["path"], sys.intern(row["person"]), sys.intern(row["split"]), row["sha256"])
        for row in load_table(path)
    ]
