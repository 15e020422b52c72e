"""Move photographs without ever overwriting a file, and so that a kill leaves nothing half done."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from celebflow.data.files import is_system_file, read_file
from celebflow.data.formats import PhotographError
from celebflow.errors import CelebflowError

_MAX_NAME_BYTES = 255  # of most file systems
# The system says so of a path where no file is: none in that folder, a file instead of the folder, an impossible name.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)


def is_inside(path: Path, folder: Path) -> bool:
    """Tell whether a file is below a folder, whatever links and dots its path has; the file itself may be a link.

    DVC puts links to its cache into the place of photographs where its cache.type says so.
    """
    try:
        return path.name not in ("", "..") and path.parent.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that the system cannot have, or a loop of links
        return False


def holds(path: Path, sha256: str) -> bool:
    """Tell whether a file, or what a link leads to, can be read and has this content."""
    return look_for(path, sha256) is True


def look_for(path: Path, sha256: str) -> bool | None:
    """Tell whether a file, or what a link leads to, has this content; None where it may, but cannot be read now."""
    try:
        return hashlib.sha256(read_file(path)).hexdigest() == sha256
    except PhotographError:
        return False
    except OSError as error:
        return False if error.errno in _NO_FILE else None


def list_people(folder: Path, left_out: str | None = None) -> list[str]:
    """Return the people who have a folder in the data, sorted, without the folder of those who are not to be known."""
    found = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    return sorted(name for name in found if not is_system_file(name) and name != left_out and _is_text(name))


def _is_text(name: str) -> bool:
    """Tell whether a name is in UTF-8, as prepare requires it, and JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def list_free_places(folder: Path, name: str) -> Iterator[Path]:
    """Yield places for a file in a folder where no file is now: its own name, then NAME-2, NAME-3 and so on.

    A name that would be too long for a file system loses the end of NAME.
    """
    number = 1
    while True:
        place = folder / (name if number == 1 else _add_to_stem(name, f"-{number}"))
        if not os.path.lexists(place):
            yield place
        number += 1


def _add_to_stem(name: str, end: str) -> str:
    """Return a name of a file with this before its suffix."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - the names of Path have no empty stem
    if len(os.fsencode(f"{end}{suffix}")) >= _MAX_NAME_BYTES:  # a dot in a name that has no suffix
        stem, suffix = name, ""
    while len(os.fsencode(f"{stem}{end}{suffix}")) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return f"{stem}{end}{suffix}"


def move(source: Path, target: Path) -> None:
    """Move a file, or a link as it is, to a place on the same file system, and see to it that the disk has it.

    Raises FileExistsError when a file is there, and CelebflowError when a link would lead elsewhere from there.
    """
    if source.is_symlink() and not _leads_to_the_same(source, target):
        raise CelebflowError(f"{source} is a link with a relative path, which would lead elsewhere. Move it yourself.")
    # An empty file takes the place, which the system gives to one process alone; os.rename would overwrite any file.
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    try:
        source.replace(target)
    except OSError as error:
        remove_placeholder(target)
        if error.errno == errno.EXDEV:
            raise CelebflowError(f"{target.parent} is on another disk than {source}. Move it yourself.") from None
        raise
    for folder in (target.parent, source.parent):
        sync_folder(folder)


def remove_placeholder(target: Path) -> None:
    """Remove the empty file that move left where it did not get further; prepare tells of one that has to stay."""
    with suppress(OSError):
        status = target.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            target.unlink()


def _leads_to_the_same(link: Path, place: Path) -> bool:
    leads_to = os.readlink(link)  # noqa: PTH115 - the text itself
    return os.path.realpath(place.parent / leads_to) == os.path.realpath(link.parent / leads_to)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of the files in a folder, where a system can do that."""
    with suppress(OSError):  # Windows opens no folders
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
