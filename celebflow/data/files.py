"""Find the files in a folder of photographs."""

from pathlib import Path

# What operating systems leave in folders; listed among what is left out, but no reason to stop.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


def find_files(folder: Path) -> tuple[list[str], list[str]]:
    """List the files below `folder` at any depth, and apart from them what operating systems leave there.

    Paths are relative to `folder`, with forward slashes, in the order of their parts. Links to folders are among them
    and are not followed.
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
    return name.startswith(".") or name.lower() in _SYSTEM_FILES
