"""Find the files in a folder of photographs."""

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from celebflow.data.formats import PhotographError
from celebflow.errors import CelebflowError

STANDARD_INPUT = "-"  # as a command names it
_MAX_FILE_BYTES = 500_000_000
_CHUNK_BYTES = 2**20

# Besides hidden ones, the files and folders that operating systems, network drives, and programs that copy or show
# folders leave behind, in lower case.
# They are listed among what is left out, as pipes and sockets are, but do not stop prepare.
_SYSTEM_NAMES = {
    "$recycle.bin",
    "#recycle",
    "#snapshot",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@sharebin",
    "@synoresource",
    "@tmp",
    "__macosx",
    "_gsdata_",
    "_vti_cnf",
    "captureone",
    "config.msi",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "icon\r",
    "lost+found",
    "lost.dir",
    "network trash folder",
    "picasa.ini",
    "recycled",
    "recycler",
    "system volume information",
    "temporary items",
    "thevolumesettingsfolder",
    "thumbs.db",
    "thumbs.db:encryptable",
    "zbthumbnail.info",
    "~snapshot",
}
# What Windows writes down about a download, as other systems and WSL show it, ends so, and the previews of Lightroom.
_SYSTEM_ENDS = (":zone.identifier", ".lrdata")
_RESCUED = re.compile(r"found\.[0-9]{3}", re.IGNORECASE)  # what Windows makes of damaged folders


def find_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the files below `folder` at any depth, and apart from them pipes, sockets and what systems leave there.

    Paths are relative to `folder`, with forward slashes, sorted part by part. Links to folders are listed, but not
    followed.

    Raises CelebflowError when a folder cannot be read, or when folders are nested too deeply.
    """
    found: dict[Path, bool] = {}
    try:
        for place, folders, files in os.walk(folder, onerror=_refuse_folder):
            for name in [*folders, *files]:
                path = Path(place, name)
                mode = _find_mode(path)
                if not stat.S_ISDIR(mode):
                    found[path.relative_to(folder)] = _is_file(mode)
    except RecursionError:
        raise CelebflowError(f"The folders in {folder} are nested too deeply. Move the photographs up.") from None
    paths: list[str] = []
    system_files: list[str] = []
    for path in sorted(found):
        left_behind = not found[path] or any(is_system_file(part) for part in path.parts)
        (system_files if left_behind else paths).append(path.as_posix())
    return paths, system_files


def _find_mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:  # reading it as a file will say why
        return stat.S_IFREG


def _is_file(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def read_file(path: Path, *, pipes: bool = False) -> bytes:
    """Return the content of a file that may be a photograph; `pipes` also allows those, such as a shell's <(…).

    Raises PhotographError for anything else, and for a file that is far too large; OSError when it cannot be read.
    """
    try:
        status = path.stat()
    except ValueError:  # the system has no such names, but a table may
        raise PhotographError("is not the name of a file: it holds a null character") from None
    if stat.S_ISDIR(status.st_mode):
        raise PhotographError("is a folder, or a link to one, which is not followed")
    if not stat.S_ISREG(status.st_mode) and not (pipes and stat.S_ISFIFO(status.st_mode)):
        raise PhotographError("is not a regular file")
    if status.st_size > _MAX_FILE_BYTES:
        raise PhotographError(f"has {status.st_size / 1e6:.0f} MB, more than {_MAX_FILE_BYTES / 1e6:.0f}")
    with path.open("rb") as file:
        return read_stream(file)


def read_stream(file: BinaryIO) -> bytes:
    """Return what a file or pipe holds that may be a photograph; raise PhotographError when it is far too large."""
    content = bytearray()
    while chunk := file.read(_CHUNK_BYTES):
        content += chunk
        if len(content) > _MAX_FILE_BYTES:
            raise PhotographError(f"has more than {_MAX_FILE_BYTES / 1e6:.0f} MB")
    return bytes(content)


def is_folder(path: str | Path) -> bool:
    """Tell whether there is a folder, or a link to one, at this path, whatever the path is like."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for loops of links and for names that are too long


def is_system_file(name: str) -> bool:
    """Tell whether an operating system, or such a program, left the file or folder of this name."""
    lower = name.lower()
    return (
        lower.startswith(".")
        or lower in _SYSTEM_NAMES
        or lower.endswith(_SYSTEM_ENDS)
        or bool(_RESCUED.fullmatch(name))
    )


def explain_system_file(path: str) -> str:
    """Say why find_files lists a path separately."""
    if path.endswith(".icloud"):
        return "is not downloaded from iCloud yet: choose Download Now in the Finder"
    if any(part.startswith(".") for part in path.split("/")):
        return "is hidden: its name, or that of a folder around it, begins with a dot"
    if any(is_system_file(part) for part in path.split("/")):
        return "is a system file"
    return "is a pipe, a socket or a device, not a file"


def _refuse_folder(error: OSError) -> None:
    raise CelebflowError(f"The folder {error.filename} cannot be read ({error.strerror}).") from None
