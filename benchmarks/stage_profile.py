"""Run a stage, and print how many seconds each of its parts took; `python -m benchmarks.loop` does so for all."""

import importlib
import json
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import psutil

PARTS = ("start", "MLflow", "read", "compute", "draw", "write")
# The functions whose seconds belong to a part, by module; all others compute.
_TRACKING = {"celebflow.tracking.runs": {"Run.end": "MLflow"}}
_READING = {"celebflow.features.store": {"load_features": "read", "Features.gather_between": "read"}}
_TIMED: dict[str, dict[str, dict[str, str]]] = {
    "train": {**_TRACKING, **_READING, "celebflow.classifier.model": {"Classifier.save": "write"}},
    "evaluate": {
        **_TRACKING,
        **_READING,
        "celebflow.evaluation.results": {"save_json": "write", "save_curves": "write"},
    },
    "plot": {
        **_TRACKING,
        **_READING,
        "celebflow.report.figures": {"save_figures": "draw"},
        "celebflow.report.galleries": {"draw_all": "draw"},
        "celebflow.report.page": {"PageContent.save": "write"},
    },
}


class Clock:
    """Adds up the seconds of parts, each without those of the parts within it."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part = "compute"
        self._since = time.perf_counter()

    def switch(self, part: str) -> str:
        """Let seconds from now on belong to another part; return the one before."""
        now = time.perf_counter()
        self.seconds[self._part] += now - self._since
        before, self._part, self._since = self._part, part, now
        return before

    def time(self, owner: Any, name: str, part: str) -> None:
        """Let the seconds of a function or method belong to a part."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            before = self.switch(part)
            try:
                return function(*arguments, **keywords)
            finally:
                self.switch(before)

        setattr(owner, name, timed)


def profile_stage(name: str) -> dict[str, float]:
    """Run a stage in this process, and return the seconds of its parts; "start" is all until it calls its main."""
    clock = Clock()
    for module, functions in _TIMED[name].items():
        for path, part in functions.items():
            owner: Any = importlib.import_module(module)
            *classes, function = path.split(".")
            for each in classes:
                owner = getattr(owner, each)
            clock.time(owner, function, part)
    stage = importlib.import_module(f"stages.{name}")
    clock.time(stage, "load_step", "start")  # imports what the task needs
    clock.seconds["start"] = time.time() - psutil.Process().create_time()
    clock.switch("compute")
    clock.seconds["compute"] = 0.0
    stage.main()
    clock.switch("compute")
    return clock.seconds


if __name__ == "__main__":
    print(json.dumps(profile_stage(sys.argv[1]), allow_nan=False))
