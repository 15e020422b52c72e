"""Errors that the user can fix, and how a program ends on one."""

import gc
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType


class CelebflowError(Exception):
    """A problem with the user's data, params or machine; its text names the file or key, and the remedy."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is not an Exception, so that no `except Exception` stops it."""


class Interrupted(BaseException):
    """Ctrl-C was pressed, where KeyboardInterrupt would mean something else."""


# What a terminal obeys instead of showing, and what reorders or breaks the text around it.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escape_controls(text: str, *, keep: str = "\n\t") -> str:
    """Return a text that does nothing to a terminal but what `keep` does: names may hold any character."""
    encodable = text.encode(errors="backslashreplace").decode()
    return _CONTROLS.sub(lambda match: match[0] if match[0] in keep else f"\\u{ord(match[0]):04x}", encodable)


def run_to_exit(main: Callable[[], None]) -> None:
    """Run a program's `main`; end the process with a clear message and the exit status that shells expect.

    A CelebflowError ends with status 1, Ctrl-C with 130, SIGTERM with 143; other exceptions keep their traceback.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        main()
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
        gc.freeze()  # otherwise the interpreter spends a second on collecting torch's and MLflow's objects as it ends


def _raise_terminated(signal_number: int, frame: FrameType | None) -> None:
    raise Terminated
