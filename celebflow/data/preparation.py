"""Find the photographs, check each, find near-duplicates, and split them into train, val and test."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from celebflow import paths
from celebflow.data.checked import open_checked
from celebflow.data.checking import CheckedFile, check_files
from celebflow.data.duplicates import group_near_duplicates
from celebflow.data.files import explain_system_file, find_files, is_folder, is_system_file
from celebflow.data.given_tables import TABLES, explain_similar_name
from celebflow.data.layout import check_layout, find_similar_names, list_notes
from celebflow.data.photos import UNKNOWN, Photo
from celebflow.data.splits import Split, Splitter
from celebflow.data.tables import save_rows
from celebflow.errors import CelebflowError, escape_controls, list_some
from celebflow.params import ComputeParams, PrepareParams

_LINK_REMEDY = (
    "which DVC does not track: copy the folder here; to keep the photographs on another disk, put DVC's cache there "
    "(dvc cache dir FOLDER && dvc config cache.type symlink) before dvc add"
)


@dataclass(frozen=True)
class LeftOut:
    """A file in the data folder that is not used, and why."""

    path: str
    reason: str


def prepare_photographs(
    folder: Path,
    params: PrepareParams,
    split: Splitter,
    checked_file: Path | None = None,
    compute: ComputeParams | None = None,
    *,
    folders_are_people: bool = True,
) -> tuple[Split, list[LeftOut]]:
    """Find, check, group and split all photographs in `folder`, which has one subfolder per person or any others.

    `split` and `folders_are_people` are a task's. Photographs that `checked_file` knows are not decoded again; others
    are decoded where `compute` says, on this machine by default. Returns what `split` returns, and the files that are
    left out, sorted by path.

    Raises CelebflowError when `folder` is missing, with a list of all unreadable files when `params.unreadable` is
    "stop", when a cluster cannot be used, and when `split` does.
    """
    if folder.is_symlink():
        target = "a folder" if folder.is_dir() else "something else"
        raise CelebflowError(f"{folder} is a link to {target}, {_LINK_REMEDY}.")
    if folder.exists() and not folder.is_dir():
        raise CelebflowError(f"{folder} is not a folder. It holds the photographs.")
    if not folder.is_dir():
        raise CelebflowError(
            f"{folder} is missing. It holds the photographs: run `dvc pull` to fetch them, or `celebflow sample data` "
            "to draw those of the demo."
        )
    found, system_files = find_files(folder)
    paths = [path for path in found if path not in TABLES]
    unknown_prefix = _find_unknown(folder, params.unknown_folder)
    if folders_are_people:
        check_layout(folder, [path for path in paths if not path.startswith(unknown_prefix)])
    refusals = {path: _refuse_place(folder, path, in_folder=folders_are_people) for path in paths}
    named = [path for path in paths if not refusals[path]]
    with open_checked(checked_file) as checked:
        files = check_files(folder, named, checked, compute or ComputeParams())
    for file in files:
        if file.refusal:
            refusals[file.path] = "; ".join(filter(None, [file.refusal, explain_similar_name(file.path)]))
    unreadable = [LeftOut(escape_controls(path, keep=""), reason) for path, reason in refusals.items() if reason]
    usable = [(file, file.hashes) for file in files if file.hashes is not None]
    photos = [_mark_unknown(_describe(file, in_folder=folders_are_people), unknown_prefix) for file, _ in usable]
    listing = "\n".join(f"  {folder / file.path}: {file.reason}" for file in unreadable)
    if unreadable and params.unreadable == "stop":
        raise CelebflowError(
            f"{len(unreadable)} files in {folder} are not usable photographs:\n{listing}\n"
            "Replace or remove them, or set prepare.unreadable to skip to go on without them."
        )
    if photos and params.duplicate_distance_bits is not None:
        hashes, sha256s = np.stack([each for _, each in usable]), [photo.sha256 for photo in photos]
        groups = group_near_duplicates(hashes, sha256s, params.duplicate_distance_bits)
        photos = [replace(photo, group=group) for photo, group in zip(photos, groups, strict=True)]
    people = _list_folders(folder, unknown_prefix) if folders_are_people else []
    known = [photo for photo in photos if photo.split != UNKNOWN]
    if unknown_prefix and len(known) == len(photos):
        raise CelebflowError(
            f"prepare.unknown_folder is {params.unknown_folder}, which holds no photograph that is used. Put "
            "photographs of people there who are not to be known, best in a folder per person, or set it to null."
            + (f"\nThese files are not used:\n{listing}" if unreadable else "")
        )
    left_out = unreadable + [
        LeftOut(escape_controls(path, keep=""), explain_system_file(path)) for path in system_files
    ]
    left_out += [LeftOut(path, f"is a table for the task {TABLES[path]}") for path in found if path in TABLES]
    try:
        prepared = split(photos, people, params, folder)
        notes = [*prepared.notes, *_note_overlap(known, prepared.unknown)]
        if folders_are_people:
            notes += list_notes(photo.path for photo in prepared.photos)
        return replace(prepared, notes=notes), sorted(left_out, key=lambda file: file.path)
    except CelebflowError as error:
        if unreadable:
            raise CelebflowError(f"{error}\nThese files are not used:\n{listing}") from None
        raise


def _list_folders(folder: Path, unknown_prefix: tuple[str, ...]) -> list[str]:
    """Return the names of the folders in `folder`, sorted, without that of unknown people."""
    return sorted(
        escape_controls(entry.name, keep="")
        for entry in folder.iterdir()
        if is_folder(entry) and not is_system_file(entry.name) and f"{entry.name}/" not in unknown_prefix
    )


def _find_unknown(folder: Path, unknown_folder: str | None) -> tuple[str, ...]:
    """Return what the paths of unknown people's photographs begin with: one text, or none.

    Raises CelebflowError when there is no such folder in `folder`.
    """
    if unknown_folder is None:
        return ()
    name = unknown_folder.partition("/")[2].strip("/")
    if not name or "/" in name or is_system_file(name) or not is_folder(folder / name):
        raise CelebflowError(
            f"prepare.unknown_folder is {unknown_folder}, which is not a folder directly in {folder}, or is hidden. "
            f"Move the photographs of unknown people there, so that DVC tracks them with the others, or set it to null."
        )
    return (f"{name}/",)


def _mark_unknown(photo: Photo, unknown_prefix: tuple[str, ...]) -> Photo:
    if not photo.path.startswith(unknown_prefix):
        return photo
    *folders, _ = photo.path.split("/")
    return replace(photo, split=UNKNOWN, person="/".join(folders[:2]))  # in folders at any depth, as known people


def _note_overlap(known: Sequence[Photo], unknown: Sequence[Photo]) -> list[str]:
    """Return what shows that an unknown person may be a known one, a sentence each."""
    notes = []
    path_of = {photo.group: photo.path for photo in known}
    if copies := [f"{photo.path} ({path_of[photo.group]})" for photo in unknown if photo.group in path_of]:
        notes.append(
            "These photographs of unknown people are near-duplicates of known people's, in parentheses, and measure "
            f"the threshold wrongly: {list_some(copies)}."
        )
    name_of = {photo.person: photo.person.rpartition("/")[2] for photo in unknown}
    similar = find_similar_names(name_of.values(), {photo.person for photo in known})
    if names := [
        person if similar[name] == name else f"{person} ({similar[name]})"
        for person, name in sorted(name_of.items())
        if name in similar
    ]:
        notes.append(f"These unknown people have the names of known people: {', '.join(names)}.")
    return notes


def _refuse_place(folder: Path, path: str, *, in_folder: bool) -> str:
    """Return why a file is not used, whatever it holds; `in_folder` tells whether it must be in a person's folder."""
    if escape_controls(path, keep="") != path:
        return "has a name that is not UTF-8, or that holds control characters"
    if is_folder(folder / path):
        return f"is a link to a folder, {_LINK_REMEDY}"
    if in_folder and "/" not in path:
        return "is not in a person's folder"
    return ""


def _describe(file: CheckedFile, *, in_folder: bool) -> Photo:
    person = file.path.split("/")[0] if in_folder else ""
    return Photo(file.path, person, "", file.sha256, file.sha256)


def report(split: Split, left_out: Sequence[LeftOut], duplicates: str) -> None:
    """Print how many photographs are ready, and what the user should know about them."""
    print(f"{len(split.photos)} photographs are ready. {len(left_out)} files are left out, see {paths.LEFT_OUT}.")
    if split.unknown:
        people_count = len({photo.person for photo in split.unknown})
        print(f"{len(split.unknown)} photographs of {people_count} unknown people measure the threshold.")
    for note in [duplicates, *split.notes]:
        print(note)


def save_left_out(files: Iterable[LeftOut], path: Path) -> None:
    """Write left_out.csv, one row per file that is left out; without any, only the header."""
    save_rows(LeftOut, files, path)
