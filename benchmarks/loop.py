"""Measure where the seconds go when somebody changes a param and waits for the page; it writes docs/speed.md.

For real faces, whose features are extracted first unless CELEBFLOW_CACHE names a cache that has them:
  python -m benchmarks.loop --data faces --weights vgg19.pth
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import psutil

from benchmarks.compare import (
    REPOSITORY,
    add_arguments,
    describe_machine,
    enter_repository,
    replace_between_marks,
    run,
    time_command,
)
from celebflow.experiments.recipes import find_changes, list_arguments, load_recipe
from celebflow.params import load_params

MARKS = "<!-- loop -->", "<!-- end of loop -->"
STAGES = ("train", "evaluate", "plot")
# What somebody changes, with the values that it takes in turn.
CHANGES: dict[str, tuple[str, str, Sequence[float]]] = {
    "fast": ("fast", "train.lda_shrinkage", (0.06, 0.07, 0.08)),
    "best": ("best", "train.lda_shrinkage", (0.06, 0.07, 0.08)),
    "base": ("base", "train.learning_rate", (2e-4, 3e-4, 4e-4)),
    "base, figures alone": ("base", "plot.resolution_dpi", (151, 152, 153)),
}
PARTS = ("start", "MLflow", "read", "compute", "draw", "write")
# The functions whose seconds belong to a part, by module; all others compute.
_TRACKING = {"celebflow.tracking.runs": {"Run.__init__": "MLflow", "Run.log": "MLflow"}}
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


def main() -> None:
    """Measure every change, print the table, and write it to docs/speed.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES), help="only these")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(profile_stage(arguments.stage), allow_nan=False))
        return
    with enter_repository(arguments.data, arguments.weights):
        run("git", "commit", "--quiet", "--all", "--message", "Photographs")
        rows = {name: measure(*CHANGES[name]) for name in arguments.changes}
    table = format_table(rows)
    print(table)
    if arguments.data and arguments.weights != "untrained":
        replace_between_marks(REPOSITORY / "docs" / "speed.md", MARKS, table)


def measure(recipe: str, param: str, values: Sequence[float]) -> list[dict[str, float]]:
    """Return for each value of a param the seconds of `dvc repro`, and of each part of each stage, as "train start"."""
    run("git", "checkout", "--quiet", "params.yaml")
    changes = find_changes(load_params(Path("params.yaml")), load_recipe(recipe))
    run("dvc", "exp", "run", *list_arguments(changes))
    rows = []
    for value in values:
        run("dvc", "exp", "run", "--set-param", f"{param}={value}", "backbone")  # writes params.yaml, and runs nothing
        row = {"dvc repro": time_command("dvc", "repro")}
        stages = STAGES if param.startswith("train.") else ("plot",)
        for stage in stages:
            command = [sys.executable, "-m", "benchmarks.loop", "--stage", stage]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            parts = json.loads(output.splitlines()[-1])
            row |= {f"{stage} {part}": seconds for part, seconds in parts.items()}
        rows.append(row)
    return rows


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


def format_table(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return a table of the medians: `dvc repro` whole, and each stage's parts."""
    machine = describe_machine()
    lines = [
        f"On {machine['processor']} ({machine['capability']}), torch {machine['torch']}; seconds, medians of 3 runs.",
        "",
        f"| change | dvc repro | stage | {' | '.join(PARTS)} |",
        f"|{'---|' * (3 + len(PARTS))}",
    ]
    for name, measured in rows.items():
        medians = {key: statistics.median(row[key] for row in measured) for key in measured[0]}
        first = f"{name}: `{CHANGES[name][1]}` | {medians['dvc repro']:.1f}"
        for stage in STAGES:
            parts = [medians.get(f"{stage} {part}") for part in PARTS]
            if any(parts):
                cells = ["" if seconds is None else f"{seconds:.1f}" for seconds in parts]
                lines.append(f"| {first} | {stage} | {' | '.join(cells)} |")
                first = " | "
    return "\n".join(lines)


if __name__ == "__main__":
    main()
