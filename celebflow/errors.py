"""Errors that the user can fix, and how a program ends on one."""

import gc
import signal
import sys
from collections.abc import Callable
from types import FrameType


class CelebflowError(Exception):
    """A problem with the user's data, params or machine; its text names the file or key, and the remedy."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is no Exception, so that nothing swallows it on its way up."""


def run_to_exit(main: Callable[[], None]) -> None:
    """Run a program's `main`; end the process with a clear message and the exit status that shells expect.

    A CelebflowError ends with status 1, Ctrl-C with 130, SIGTERM with 143; other exceptions keep their traceback.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        main()
    except CelebflowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Terminated:
        print("terminated", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    finally:
        gc.freeze()  # or the interpreter would search torch and MLflow for garbage for a second as it ends


def _raise_terminated(signal_number: int, frame: FrameType | None) -> None:
    raise Terminated
