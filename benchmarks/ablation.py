"""Measure what each part of the best recipe adds, over several splits; `make ablation` writes docs/accuracy.md.

Every step is a DVC experiment for each seed, which determines the split and the classifier's first weights. A step
includes the changes of all steps before it. Nothing is chosen here: the recipes were chosen on validation.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.compare import REPOSITORY, describe_machine, enter_repository, read_output, replace_between_marks, run
from celebflow.experiments.recipes import find_changes, list_arguments, load_recipe
from celebflow.report.style import BLUE, ORANGE, new_figure

MARKS = "<!-- ablation -->", "<!-- end of ablation -->"
METRICS = ("accuracy", "balanced_accuracy", "macro_auc")
SPLITS = ("val", "test")
# The params that each step takes from the recipe `best`, by the beginnings of their names.
STEPS = {
    "+ crop": ("extract.face.",),
    "+ views": ("extract.views",),
    "+ preprocessing": ("train.preprocessing.",),
    "+ classifier": ("train.",),
    "+ layers": ("extract.layers",),
}


@dataclass(frozen=True)
class Outcome:
    """The result of one step with one seed: figures by split and metric, their intervals, seconds and model size.

    `seconds` is the time of `dvc exp run … evaluate`, from checking the photographs to metrics, with cached features.
    """

    step: str
    seed: int
    figures: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Any]]
    seconds: float
    model_bytes: int


def main() -> None:
    """Run all steps and write the results, the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with a folder of photographs per person")
    parser.add_argument("--weights", required=True, help="the file of VGG19's weights")
    parser.add_argument("--seeds", type=int, default=5, help="number of splits for the recipes")
    parser.add_argument("--seeds-between", type=int, default=3, help="number of splits for the other steps")
    arguments = parser.parse_args()
    steps = list_steps()
    with enter_repository(arguments.data, str(Path(arguments.weights).resolve())):
        run("git", "commit", "--quiet", "--all", "--message", "Photographs")
        # The features are the same for all seeds. With all of them in the cache, the times are comparable.
        for changes in steps.values():
            run("dvc", "exp", "run", "extract", *list_arguments(changes))
            run("git", "checkout", "--quiet", "params.yaml")
        work = []
        for seed in range(arguments.seeds):
            for name in steps:
                if seed < arguments.seeds_between or name not in STEPS:
                    work.append((name, seed))
        outcomes = [measure(name, seed, steps[name]) for name, seed in tqdm(work, "experiments", disable=None)]
    results = {
        "machine": describe_machine(),
        "commit": read_output("git", "-C", str(REPOSITORY), "rev-parse", "HEAD"),
        "photographs": arguments.data.name,
        "steps": {name: list(list_arguments(changes)) for name, changes in steps.items()},
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    (REPOSITORY / "benchmarks" / "ablation.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    table = write_table(outcomes, list(steps))
    print(table)
    replace_between_marks(REPOSITORY / "docs" / "accuracy.md", MARKS, table)
    draw(outcomes, list(steps), REPOSITORY / "docs" / "accuracy.png")


def list_steps() -> dict[str, dict[str, object]]:
    """Return what each step changes of the base recipe: the steps from base to best, then the fast recipe."""
    base = load_recipe("base")
    best_changes = find_changes(base, load_recipe("best"))
    steps: dict[str, dict[str, object]] = {"base": {}}
    changes: dict[str, object] = {}
    for name, prefixes in STEPS.items():
        changes = changes | {key: value for key, value in best_changes.items() if key.startswith(prefixes)}
        steps[name] = changes
    last = list(STEPS)[-1]
    steps[f"{last} = best"] = steps.pop(last)
    return {**steps, "fast": find_changes(base, load_recipe("fast"))}


def measure(step: str, seed: int, changes: Mapping[str, object]) -> Outcome:
    """Run a step with a seed."""
    started = time.perf_counter()
    name = f"{''.join(letter for letter in step if letter.isalnum())}-{seed}"
    seeds = {"prepare.seed": seed, "train.seed": seed}
    run("dvc", "exp", "run", f"--name={name}", *list_arguments({**seeds, **changes}), "evaluate")
    seconds = time.perf_counter() - started
    metrics = json.loads(Path("reports/metrics.json").read_text())
    outcome = Outcome(
        step=step,
        seed=seed,
        figures={split: {metric: metrics[split][metric] for metric in METRICS} for split in SPLITS},
        intervals={split: json.loads(Path(f"reports/{split}/intervals.json").read_text()) for split in SPLITS},
        seconds=seconds,
        model_bytes=Path("models/classifier.safetensors").stat().st_size,
    )
    run("git", "checkout", "--quiet", "params.yaml")
    return outcome


def write_table(outcomes: list[Outcome], steps: list[str]) -> str:
    """Return means and standard deviations over the seeds, and the first seed's intervals, as Markdown."""
    figures = [f"{split} {metric.replace('_', ' ')}" for split in SPLITS for metric in METRICS]
    intervals = [f"{split} accuracy, first split (95 % interval)" for split in SPLITS]
    headers = ["", "splits", *figures, *intervals, "seconds", "model, MB"]
    lines = [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
    for step in steps:
        own = [outcome for outcome in outcomes if outcome.step == step]
        cells = [step, str(len(own))]
        for split in SPLITS:
            for metric in METRICS:
                values = [outcome.figures[split][metric] for outcome in own]
                spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.3f}{spread}")
        for split in SPLITS:
            interval = own[0].intervals[split]["accuracy"]
            cells.append(f"{own[0].figures[split]['accuracy']:.3f} ({interval['low']:.3f}–{interval['high']:.3f})")
        cells.append(f"{statistics.median(outcome.seconds for outcome in own):.0f}")
        cells.append(f"{max(outcome.model_bytes for outcome in own) / 1e6:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(outcomes: list[Outcome], steps: list[str], file: Path) -> None:
    """Draw accuracy and balanced accuracy on test: a point for each seed, and a line at the mean."""
    figure, axes = new_figure(7.8, 4.2, "")
    for metric, color, shift in (("accuracy", BLUE, -0.22), ("balanced_accuracy", ORANGE, 0.22)):
        for place, step in enumerate(steps):
            values = [outcome.figures["test"][metric] for outcome in outcomes if outcome.step == step]
            label = metric.replace("_", " ") if place == 0 else None
            axes.plot(np.full(len(values), place + shift), values, "o", color=color, alpha=0.5, label=label)
            mean = statistics.mean(values)
            axes.hlines(mean, place + shift - 0.15, place + shift + 0.15, color=color, linewidth=2.5)
            axes.annotate(
                f"{mean:.3f}", (place + shift, min(values)), (0, -6), textcoords="offset points",
                ha="center", va="top", fontsize=7, color=color,
            )  # fmt: skip
    axes.set_xticks(range(len(steps)), [step.replace(" = ", "\n= ") for step in steps], fontsize=9)
    axes.set(ylabel="test", title="What each part adds: a point per split, lines at the means")
    axes.margins(y=0.12)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
