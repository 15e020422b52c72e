"""The stages of dvc.yaml, one script each: load params, call celebflow, save."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celebflow import paths
from celebflow.errors import CelebflowError, open_missing_streams, report_uncaught, run_to_exit

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
        with unchanged_params():
            main()
        seconds = time.monotonic() - _STARTED_SECONDS
        duration = f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
        print(f"{_name_stage()} took {duration}. {hint}")

    gc.freeze()
    gc.enable()
    run_to_exit(run)


@contextmanager
def unchanged_params() -> Iterator[None]:
    """Raise CelebflowError when params.yaml changes within a `with` block, in what the stage depends on.

    DVC reads it again when the stage has ended, and would keep the result as that of the new values.
    """
    before = _read_own_params()
    yield
    now = _read_own_params() if before else {}
    if changed := [name for name, value in before.items() if now.get(name) != value]:
        raise CelebflowError(
            f"{paths.PARAMS} has changed while {_name_stage()} ran: {', '.join(changed)}. DVC would take the new "
            "values for those of this result. Run `dvc repro` for them; with the old values, it goes on from what was "
            "computed."
        )


def _name_stage() -> str:
    return Path(sys.argv[0]).stem


def _read_own_params() -> dict[str, object]:
    """Return the flat params that this stage depends on; none where params.yaml or dvc.yaml cannot be read."""
    from celebflow.params import load_flat_params, load_yaml

    try:
        pipeline: Any = load_yaml(paths.PIPELINE)
        declared = [str(name) for name in pipeline["stages"][_name_stage()].get("params", [])]
        params = load_flat_params(paths.PARAMS)
    except (CelebflowError, AttributeError, KeyError, TypeError):
        return {}
    return {name: value for name, value in params.items() if any(f"{name}.".startswith(f"{of}.") for of in declared)}
