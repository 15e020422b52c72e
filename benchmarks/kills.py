"""Ten kills (SIGKILL) at random moments of extract and train, after which dvc repro must end with the same bytes.

For figures of real faces:
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

_KILLS_A_STAGE = 5


def main() -> None:
    """Run undisturbed, forget that, run with kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    with enter_repository(arguments.data, arguments.weights):
        run("dvc", "repro", "backbone", "prepare")
        stage_seconds = {stage: time_command("dvc", "repro", stage) for stage in ("extract", "train")}
        undisturbed = read_md5s()
        forget()
        moments = random.Random(0)
        for stage, seconds in stage_seconds.items():
            for _ in range(_KILLS_A_STAGE):
                kill(stage, moments.uniform(0, 0.9 / _KILLS_A_STAGE) * seconds)  # so that it never ends before
        run("dvc", "repro", "train")
        if read_md5s() != undisturbed:
            sys.exit(f"Undisturbed: {undisturbed}\nAfter the kills: {read_md5s()}")
        print(f"The same bytes as undisturbed: {undisturbed}")


def read_md5s() -> dict[str, str]:
    """Return what DVC says of the results."""
    found = read_locked_md5s()
    return {name: found[name] for name in ("features", "classifier")}


def forget() -> None:
    """Remove the results and all that could bring them back."""
    for path in (paths.own_folder(), paths.FEATURES, Path(".dvc/cache/runs")):
        shutil.rmtree(path)
    paths.CLASSIFIER.unlink()
    Path("dvc.lock").unlink()


def kill(stage: str, seconds: float) -> None:
    """Start dvc repro, and kill it and all that it started some seconds after a stage has begun."""
    process = psutil.Popen(["dvc", "repro", "train"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if not any(f"Running stage '{stage}'" in line for line in process.stdout):
        sys.exit(f"dvc repro did not run {stage}.")
    try:
        process.wait(seconds)
        sys.exit(f"dvc repro ended within {seconds:.1f} s of {stage}'s start.")
    except psutil.TimeoutExpired:
        for each in (*process.children(recursive=True), process):
            each.kill()
    process.wait()
    print(f"{stage} killed after {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
