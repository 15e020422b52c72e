"""The stages of dvc.yaml, one script each: load params, call celebflow, save."""

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

from celebflow.errors import open_missing_streams, report_uncaught, run_to_exit

_STARTED_SECONDS = time.monotonic()
# The imports of a stage create hundreds of thousands of objects that stay. Garbage collection during the imports would
# take a quarter of the start, so run_stage turns it on after them.
gc.disable()
open_missing_streams()
sys.excepthook = report_uncaught  # the imports of a stage are what first needs memory


def run_stage(main: Callable[[], None], hint: str) -> None:
    """Run the `main` of a stage with the garbage collector on, and end the process as run_to_exit does.

    At the end, print how long the stage took, and the hint, which says what to look at next.
    """

    def run() -> None:
        main()
        seconds = time.monotonic() - _STARTED_SECONDS
        duration = f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
        print(f"{Path(sys.argv[0]).stem} took {duration}. {hint}")

    gc.freeze()
    gc.enable()
    run_to_exit(run)
