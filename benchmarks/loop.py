"""Measure where the seconds go when somebody changes a param and waits for the page; it writes docs/speed.md.

For real faces, whose features are extracted first unless CELEBFLOW_CACHE names a cache that has them:
  python -m benchmarks.loop --data faces --weights vgg19.pth
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.compare import (
    REPOSITORY,
    add_arguments,
    describe_machine,
    enter_repository,
    replace_between_marks,
    run,
    time_command,
)
from benchmarks.stage_profile import PARTS
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


def main() -> None:
    """Measure every change, print the table, and write it to docs/speed.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES), help="only these")
    arguments = parser.parse_args()
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
            command = [sys.executable, "-m", "benchmarks.stage_profile", stage]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            parts = json.loads(output.splitlines()[-1])
            row |= {f"{stage} {part}": seconds for part, seconds in parts.items()}
        rows.append(row)
    return rows


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
