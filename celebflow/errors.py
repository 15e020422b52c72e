"""Errors that the user can fix, and how a program ends on one."""

import gc
import signal
import sys
from collections.abc import Callable
from types import FrameType


class CelebflowError(Exception):
    """A problem with the user's data, params or machine; its text names the file or key, and the remedy."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is not an Exception, so that no `except Exception` stops it."""


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
        gc.freeze()  # otherwise the interpreter spends a second on collecting torch's and MLflow's objects as it ends


def _raise_terminated(signal_number: int, frame: FrameType | None) -> None:
    raise Terminated
