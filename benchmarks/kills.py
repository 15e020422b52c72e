"""Kill extract and train ten times (SIGKILL) at random moments; dvc repro must then give the same bytes.

With photographs of real people:
  python -m benchmarks.kills --data faces --weights vgg19.pth
"""

import argparse
import random
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from benchmarks.compare import add_arguments, enter_repository, run, time_command
from celebflow import paths
from celebflow.tracking.provenance import read_locked_md5s

_KILLS_PER_STAGE = 5


def main() -> None:
    """Run without kills, remove the results, run with kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    with enter_repository(arguments.data, arguments.weights):
        run("dvc", "repro", "backbone", "prepare")
        stage_seconds = {stage: time_command("dvc", "repro", stage) for stage in ("extract", "train")}
        expected = read_md5s()
        remove_results()
        moments = random.Random(0)
        for stage, seconds in stage_seconds.items():
            for _ in range(_KILLS_PER_STAGE):
                kill(stage, moments.uniform(0, 0.9 / _KILLS_PER_STAGE) * seconds)  # before the stage can end
        run("dvc", "repro", "train")
        found = read_md5s()
        if found != expected:
            sys.exit(f"Without kills: {expected}\nAfter the kills: {found}")
        print(f"The same bytes as without kills: {expected}")


def read_md5s() -> dict[str, str]:
    """Return the md5s that DVC recorded for the features and the classifier."""
    found = read_locked_md5s()
    return {name: found[name] for name in ("features", "classifier")}


def remove_results() -> None:
    """Remove the results, and the caches that could restore them."""
    for path in (paths.own_folder(), paths.FEATURES, Path(".dvc/cache/runs")):
        shutil.rmtree(path)
    paths.CLASSIFIER.unlink()
    Path("dvc.lock").unlink()


def kill(stage: str, seconds: float) -> None:
    """Start dvc repro; some seconds after the stage has started, kill it and all processes that it started."""
    process = psutil.Popen(["dvc", "repro", "train"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if not any(f"Running stage '{stage}'" in line for line in process.stdout):
        sys.exit(f"dvc repro did not run {stage}.")
    try:
        process.wait(seconds)
        sys.exit(f"dvc repro ended within {seconds:.1f} s of {stage}'s start.")
    except psutil.TimeoutExpired:
        kill_tree(process)
    print(f"{stage} killed after {seconds:.1f} s", flush=True)


def kill_tree(process: psutil.Popen) -> None:
    """Kill a process and all that it started, and wait for its end."""
    for each in (*process.children(recursive=True), process):
        each.kill()
    process.wait()


if __name__ == "__main__":
    main()
