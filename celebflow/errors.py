"""Errors that the user can fix, and how a program ends on one."""

import atexit
import codecs
import errno
import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType, TracebackType


class CelebflowError(Exception):
    """A problem with the user's data, params or machine; its text names the file or key, and the remedy."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is not an Exception, so that no `except Exception` stops it."""


class Interrupted(BaseException):
    """Ctrl-C was pressed, where KeyboardInterrupt would mean something else."""


# What a terminal obeys instead of showing, and what reorders or breaks the text around it.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def to_encodable(text: str) -> str:
    """Return a text that every encoding of Unicode has: names of files need not be in UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def escape_controls(text: str, *, keep: str = "\n\t") -> str:
    """Return a text that does nothing to a terminal but what `keep` does: names may hold any character."""
    return _CONTROLS.sub(lambda match: match[0] if match[0] in keep else f"\\u{ord(match[0]):04x}", to_encodable(text))


# What libraries say that lack memory: PyTorch, oneDNN, OpenCV, Pillow, LMDB, ONNX Runtime, the system and its loader.
_NO_MEMORY = re.compile(
    "allocate memory|out of memory|(not enough|insufficient) memory|bad_?alloc|failed to map segment"
    "|could not create a primitive|can't start new thread",
    re.IGNORECASE,
)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM)
# What SQLite says, and MLflow of a download.
_TEXTS = {
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
    "No space left on device": errno.ENOSPC,
}
_LITTLE_SPACE_BYTES = 10**9


def list_some(names: Sequence[str], max_count: int = 5) -> str:
    """Return the first names for a message, and how many more there are."""
    more = f" and {len(names) - max_count} more" if len(names) > max_count else ""
    return f"{', '.join(names[:max_count])}{more}"


def lacks_memory(error: BaseException) -> bool:
    """Tell whether an exception says that there is not enough memory, whichever library raised it."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def is_of_library(error: BaseException) -> bool:
    """Tell whether an exception is of a kind that a library defines, as one of a network's is; a mistake rarely is."""
    return type(error).__module__ != "builtins"


def describe_shortage(error: BaseException, place: Path | str = "") -> str:
    """Return what the machine lacks and the remedy, when an exception comes from that; otherwise an empty string.

    It lacks memory, disk space, or permission. `place` is the file or folder in use, where the error does not name it.
    """
    reason = str(error).split("\n")[0] or type(error).__name__
    if lacks_memory(error):
        return f"{f'{place}: ' if place else ''}There is not enough memory ({reason}). {_advise_on_memory()}"
    code = _find_code(error)
    place = getattr(error, "filename2", None) or getattr(error, "filename", None) or place
    place = os.fsdecode(place) if isinstance(place, bytes) else place  # some libraries give bytes
    if "No usable temporary directory" in reason:
        code, place = errno.ENOSPC, "A temporary file"
    if code == errno.EMFILE:
        return f"There are too many open files ({reason}). Raise their limit: `ulimit -n 4096`."
    if code == errno.EAGAIN and not isinstance(getattr(error, "characters_written", None), int):  # not of an output
        return f"There are too many processes ({reason}). End some, or raise their limit: `ulimit -u`."
    if code in _NO_ACCESS:
        return (
            f"{place or 'A file'} cannot be used ({os.strerror(code)}). Change that, or work in a copy of the project "
            "elsewhere."
        )
    if code == errno.EFBIG:
        return (
            f"{place or 'A file'} cannot grow ({os.strerror(code)}). Raise the limit of files: `ulimit -f unlimited`."
        )
    if code in NO_SPACE:
        full = _list_full_folders()
        return (
            f"{place or 'A file'} cannot be written ({os.strerror(code)})."
            + (f" Little space is free in {', '.join(full)}." if full else "")
            + " Free some space there, or use another disk: TMPDIR is the folder of temporary files, CELEBFLOW_CACHE "
            "that of the features."
        )
    return ""


def describe_system_error(error: OSError) -> str:
    """Return what the system refused, the path and the remedy."""
    if shortage := describe_shortage(error):
        return shortage
    place = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    reason = error.strerror or str(error) or type(error).__name__
    return (
        f"The system refused this: {reason}. Try it again." if place is None else f"{place}: {reason}. Check that path."
    )


def raise_shortage(error: BaseException, place: Path | str = "") -> None:
    """Raise CelebflowError when an exception comes from what the machine lacks, as describe_shortage tells."""
    if shortage := describe_shortage(error, place):
        raise CelebflowError(shortage) from None


def _find_code(error: BaseException) -> int | None:
    """Return the number of the system's error behind an exception; libraries state it in texts of their own."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    for text, code in _TEXTS.items():
        if text in str(error):
            return code
    stated = re.search(r"\(os error (\d+)\)", str(error))
    return int(stated[1]) if stated else None


def _advise_on_memory() -> str:
    with suppress(ImportError):
        import resource  # not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            return (
                f"This process may use {limit / 1e9:.1f} GB of address space. Raise the limit: `ulimit -v unlimited`."
            )
    return (
        "Close other programs, or use less: smaller photographs, fewer extract.views, a smaller extract.image_size_px, "
        "train.hidden_units, train.batch_size or plot.resolution_dpi."
    )


def _list_full_folders() -> list[str]:
    """Return the folders with little free space among those that programs write to, one per disk."""
    folders = [Path.cwd(), *sorted(path for path in Path.cwd().iterdir() if path.is_dir())]
    folders += [Path(os.environ[name]) for name in ("DVC_ROOT", "CELEBFLOW_CACHE") if name in os.environ]
    with suppress(FileNotFoundError):  # all of them are full
        folders.append(Path(tempfile.gettempdir()))
    full: dict[int, str] = {}
    for folder in folders:
        with suppress(OSError):
            free_bytes = shutil.disk_usage(folder).free
            if free_bytes < _LITTLE_SPACE_BYTES:
                full.setdefault(folder.stat().st_dev, f"{folder} ({free_bytes / 1e6:.1f} MB)")
    return list(full.values())


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Replace the characters that an output's encoding lacks, as JSON does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4)), error.end


codecs.register_error("celebflow.escape", _escape_unencodable)


def open_missing_streams() -> None:
    """Let a program without standard streams (`<&-`, `>&-`, `2>&-`) read nothing, and write what it writes nowhere.

    Opened in this order, they also take the numbers that files would get, and that libraries write to.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # They stay open until the program ends.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors="surrogateescape"))  # noqa: SIM115, PTH123


def _prepare_encodings() -> None:
    """Let outputs escape what they cannot encode; raise CelebflowError where names of files are not in UTF-8."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="celebflow.escape")
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise CelebflowError(
            f"The locale says that names of files are in {encoding}, and a result would depend on that. "
            "Run `export PYTHONUTF8=1`, or set LANG to a locale with UTF-8."
        )


def _require_working_directory() -> None:
    """Raise CelebflowError when the working directory was removed, without which libraries cannot even be imported."""
    try:
        Path.cwd()
    except OSError as error:
        raise CelebflowError(
            f"The working directory cannot be used ({error.strerror}). It was likely removed or replaced: change to a "
            "folder that is there, even to one of the same name."
        ) from None


def report_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print what the machine lacks, or which path cannot be used, as a message; for sys.excepthook.

    Ctrl-C ends a program as quietly before `main` begins. When nobody reads the output, nothing is printed. Other
    exceptions keep their traceback.
    """
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return
    message = describe_shortage(error)
    if not message and isinstance(error, OSError) and error.filename is not None:
        message = describe_system_error(error)
    if not message and not isinstance(error, BrokenPipeError):
        sys.__excepthook__(kind, error, traceback)
        return
    if message:
        print(f"error: {escape_controls(message)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # or else the interpreter would report it again as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_to_exit(main: Callable[[], None]) -> None:
    """Run a program's `main`; end the process with a clear message and the exit status that shells expect.

    A CelebflowError, what the machine lacks and a path that cannot be used end with status 1, Ctrl-C with 130, SIGTERM
    with 143; other exceptions keep their traceback.
    """
    open_missing_streams()
    signal.signal(signal.SIGTERM, _raise_terminated)
    sys.excepthook = report_uncaught
    try:
        _prepare_encodings()
        _require_working_directory()
        main()
        sys.stdout.flush()
    except CelebflowError as error:
        print(f"error: {escape_controls(str(error))}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, Interrupted):
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Terminated:
        print("terminated", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    finally:
        # Another Ctrl-C ends what libraries do at the end of the process, without a traceback of theirs.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
        gc.freeze()  # otherwise the interpreter spends a second on collecting torch's and MLflow's objects as it ends


@contextmanager
def defer_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM take effect only at the end of a `with` block, which they would leave half done."""
    arrived: list[int] = []
    handlers = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.getsignal(number)
            # A mask would not do: any thread of the process may receive a signal.
            signal.signal(number, lambda number, _: arrived.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for each in arrived:
            signal.raise_signal(each)


def _raise_terminated(signal_number: int, frame: FrameType | None) -> None:
    """Raise Terminated; the handler of SIGTERM."""
    raise Terminated
