"""The stages of dvc.yaml, one script each: load params, call celebflow, save."""

import gc
import sys
from collections.abc import Callable

from celebflow.errors import open_missing_streams, report_uncaught, run_to_exit

# The imports of a stage create hundreds of thousands of objects that stay. Garbage collection during the imports would
# take a quarter of the start, so run_stage turns it on after them.
gc.disable()
open_missing_streams()
sys.excepthook = report_uncaught  # the imports of a stage are what first needs memory


def run_stage(main: Callable[[], None]) -> None:
    """Run the `main` of a stage with the garbage collector on, and end the process as run_to_exit does."""
    gc.freeze()
    gc.enable()
    run_to_exit(main)
