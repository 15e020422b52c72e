"""Find the photographs, check each, find near-duplicates, and split them into train, val and test."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from celebflow.data.decoding import PhotographError, decode_photograph
from celebflow.data.duplicates import HashArray, group_near_duplicates, hash_photograph
from celebflow.data.files import find_files, is_system_file
from celebflow.data.photos import Photo
from celebflow.data.splits import split_photographs
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams
from celebflow.tables import save_rows


@dataclass(frozen=True)
class LeftOut:
    """A file in the data folder that is not used, and why."""

    path: str
    reason: str


def prepare_photographs(folder: Path, params: PrepareParams) -> tuple[list[Photo], list[LeftOut]]:
    """Find, check, group and split all photographs in `folder`, one sub-folder a person.

    Returns the photographs in the order of their paths, and every file that is left out.

    Raises CelebflowError with one list of all unreadable files when `params.unreadable` is "stop", with one list of
    all people with too few photographs, when there are no two people, and when `folder` is missing.
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
            "Replace or remove them, or set prepare.unreadable to skip to go on without them."
        )
    people = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_system_file(entry.name))
    left_out = [LeftOut(path, "is a system file") for path in system_files]
    left_out = sorted([*left_out, *problems], key=lambda file: file.path)
    if found and params.duplicate_distance_bits is not None:
        groups = group_near_duplicates(
            np.stack(hashes), [photo.sha256 for photo in found], params.duplicate_distance_bits
        )
        found = [replace(photo, group=group) for photo, group in zip(found, groups, strict=True)]
    return split_photographs(found, people, params), left_out


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


def save_left_out(files: Iterable[LeftOut], path: Path) -> None:
    """Write the list of files that are left out; with its header alone when there are none."""
    save_rows(LeftOut, files, path)
