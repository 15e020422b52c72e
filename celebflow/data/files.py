"""Find the files in a folder of photographs."""

import os
from pathlib import Path

from celebflow.errors import CelebflowError

# Besides hidden ones, the files and folders that operating systems and network drives leave behind, in lower case.
# They are listed among what is left out, but do not stop prepare.
_SYSTEM_NAMES = {
    "$recycle.bin",
    "#recycle",
    "@eadir",
    "@recycle",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "recycler",
    "system volume information",
    "thumbs.db",
}


def find_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files below `folder` at any depth, and separately those that operating systems leave there.

    Paths are relative to `folder`, with forward slashes, sorted part by part. Links to folders are listed, but not
    followed.

    Raises CelebflowError when a folder cannot be read.
    """
    found = []
    for place, folders, files in os.walk(folder, onerror=_refuse_folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            if path.is_file() or path.is_symlink():
                found.append(path.relative_to(folder))
    paths: list[str] = []
    system_files: list[str] = []
    for path in sorted(found):
        left_behind = any(is_system_file(part) for part in path.parts)
        (system_files if left_behind else paths).append(path.as_posix())
    return paths, system_files


def is_system_file(name: str) -> bool:
    """Tell whether an operating system left the file or folder of this name."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _refuse_folder(error: OSError) -> None:
    raise CelebflowError(f"The folder {error.filename} cannot be read ({error.strerror}).") from None
