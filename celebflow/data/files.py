"""Find the files in a folder of photographs."""

from pathlib import Path

# Files that operating systems leave in folders; they are listed among those left out, but do not stop prepare.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


def find_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files below `folder` at any depth, and separately those that operating systems leave there.

    Paths are relative to `folder`, with forward slashes, sorted part by part. Links to folders are listed, but not
    followed.
    """
    paths, system_files = [], []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink()):
        relative = path.relative_to(folder)
        if any(is_system_file(part) for part in relative.parts):
            system_files.append(relative.as_posix())
        else:
            paths.append(relative.as_posix())
    return paths, system_files


def is_system_file(name: str) -> bool:
    """Tell whether an operating system left the file or folder of this name."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES
