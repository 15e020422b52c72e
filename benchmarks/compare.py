"""Compare the speed of celebflow with that of the plain script, on one machine in one run; see `make bench`.

For real faces:
  python -m benchmarks.compare --data faces --weights vgg19.pth
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import plain
from celebflow import paths
from celebflow.classifier.adam import NetworkAdam
from celebflow.classifier.calibration import UNCALIBRATED
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.classifier_training import CrossEntropy
from celebflow.classifier.model import Classifier
from celebflow.classifier.training import seed_everything, train_one_epoch
from celebflow.data.photos import Photo, list_people, load_photos
from celebflow.features.cache import open_cache
from celebflow.features.extraction import extract_missing
from celebflow.features.origin import determine_origin
from celebflow.features.store import load_features, save_features, select_split
from celebflow.params import Params, load_params

REPOSITORY = Path(__file__).resolve().parent.parent
MARKS = "<!-- benchmark -->", "<!-- end of benchmark -->"


@dataclass(frozen=True)
class Row:
    """One comparison: the median seconds of the reference and of celebflow, and the ratio to reach at least."""

    what: str
    reference: str
    reference_seconds: float
    celebflow_seconds: float
    aim: str

    @property
    def ratio(self) -> float:
        """Return how many times longer the reference takes."""
        return self.reference_seconds / self.celebflow_seconds


def main() -> None:
    """Measure, print, and write results.json and the table in docs/speed.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    with enter_repository(arguments.data, arguments.weights):
        results = measure(arguments.data, arguments.weights)
    (REPOSITORY / "benchmarks" / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    write_table(results, into_readme=results["trained_backbone"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the photographs and weights that enter_repository takes."""
    parser.add_argument(
        "--data", type=Path, help="a folder with a folder of photographs per person; by default the invented people"
    )
    parser.add_argument(
        "--weights",
        type=lambda text: text if text == "untrained" else str(Path(text).resolve()),
        default="untrained",
        help="the file of VGG19's weights, or untrained",
    )


def measure(data: Path | None, weights: str) -> dict[str, Any]:
    """Run every comparison in the working directory, a repository where nothing has run yet."""
    seconds = {
        "prepare and backbone": time_command("dvc", "repro", "prepare", "backbone"),
        "extract": time_command("dvc", "repro", "extract"),
        "train, evaluate and plot": time_command("dvc", "repro"),
    }
    first_run_seconds = sum(seconds.values())
    params, photos = load_params(Path("params.yaml")), load_photos(Path("splits/photos.csv"))
    examples = {split: list_examples(photos, split) for split in ("train", "val")}
    with start_plain(len(list_people(photos))) as call_plain:
        rows = [compare_extraction(call_plain, photos, params), compare_steps(call_plain, params)]
        epoch_seconds = call_plain(plain.time_epoch, examples["train"], examples["val"])
    plain_seconds = epoch_seconds * params.train.epochs
    reference = f"the plain script: {params.train.epochs} times one epoch"
    rows.append(Row("a first whole run", reference, plain_seconds, first_run_seconds, "18 (25)"))
    rows.append(Row("a run after a change of train.*", reference, plain_seconds, time_changed_rates(params), "50"))
    feature_bytes = sum(file.stat().st_size for file in Path("features").iterdir())
    rows.append(compare_no_op())
    seconds["train alone"], peak_bytes = time_stage("train")
    rows += compare_ten_new(photos, params, seconds["extract"])
    return {
        "machine": describe_machine(),
        "commit": read_output("git", "-C", str(REPOSITORY), "rev-parse", "HEAD"),
        "photographs": f"{len(photos)} in {data.name}" if data else f"{len(photos)} of invented people",
        "trained_backbone": weights != "untrained",
        "comparisons": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "first_run_seconds": seconds,
        "peak_memory_of_train_gib": peak_bytes / 2**30,
        "features_kb_per_photograph": feature_bytes / 1000 / len(photos),
    }


@contextmanager
def enter_repository(data: Path | None, weights: str) -> Iterator[None]:
    """Work in a temporary clone of the committed project, with the photographs and weights to measure with."""
    with tempfile.TemporaryDirectory(prefix="celebflow-benchmark-") as name:
        folder = Path(name) / "repository"
        _prepare_repository(folder, data, weights)
        with chdir(folder):
            yield


def _prepare_repository(folder: Path, data: Path | None, weights: str) -> None:
    code = ("celebflow", "stages", "benchmarks", "dvc.yaml", "params.yaml")
    if read_output("git", "-C", str(REPOSITORY), "status", "--porcelain", *code):
        sys.exit("There are uncommitted changes. Commit them first, so that the results name the code they measured.")
    run("git", "clone", "--quiet", str(REPOSITORY), str(folder))
    if data is None:
        run("celebflow", "sample", str(folder / "data"))
    else:
        shutil.copytree(data, folder / "data", copy_function=shutil.copyfile)
    file = folder / "params.yaml"
    content = file.read_text(encoding="utf-8")
    if "weights: imagenet" not in content:
        sys.exit("params.yaml does not hold the base recipe. Run `git checkout params.yaml`.")
    content = content.replace("weights: imagenet", f"weights: {json.dumps(weights)}")
    file.write_text(content, encoding="utf-8")
    run("dvc", "add", "--quiet", "data", folder=folder)


def run(*command: str, folder: Path | None = None) -> None:
    """Run a command; if it fails, exit with its output."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}:\n{result.stdout}{result.stderr}")


def read_output(*command: str) -> str:
    """Run a command and return its output."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def time_command(*command: str) -> float:
    """Run a command and return its seconds."""
    started = time.perf_counter()
    run(*command)
    return time.perf_counter() - started


def time_stage(name: str) -> tuple[float, int]:
    """Run a stage without DVC; return its seconds and its peak memory in bytes.

    A small process starts it, because a child's peak begins with the memory of its parent.
    """
    program = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    program += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    stage = [sys.executable, "-m", f"stages.{name}"]
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", program, *stage], capture_output=True, text=True, check=True)
    return time.perf_counter() - started, int(result.stdout)


def alternate(rounds: int, *actions: Callable[[], float]) -> list[float]:
    """Run the actions in turn; return the median of each action's seconds, without the first round."""
    taken = [[action() for action in actions] for _ in range(rounds + 1)]
    return [statistics.median(seconds) for seconds in zip(*taken[1:], strict=True)]


@contextmanager
def start_plain(person_count: int) -> Iterator[Callable[..., Any]]:
    """Start the plain script in its own process, without celebflow's settings; yield a function that calls it."""
    file = Path("models/backbone.safetensors").resolve()
    torch.empty(1)  # makes this process read the setting before it changes
    os.environ["THP_MEM_ALLOC_ENABLE"] = "0"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, plain.initialize, (file, person_count)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"


def list_examples(photos: Sequence[Photo], split: str) -> plain.Examples:
    """Return the files and labels of one split, as the plain script reads them."""
    people = list_people(photos)
    return [(paths.DATA / photo.path, people.index(photo.person)) for photo in photos if photo.split == split]


def time_extraction(folder: Path, photos: Sequence[Photo], params: Params) -> float:
    """Extract the features that the cache in `folder` lacks; return the seconds from files to stored features.

    They include loading the backbone and checking its runtime against PyTorch.
    """
    started = time.perf_counter()
    origin = determine_origin(paths.BACKBONE, params.extract, params.compute)
    with open_cache(folder / "cache", origin) as cache:
        extract_missing(photos, paths.DATA, paths.BACKBONE, params.compute, cache)
        save_features(photos, cache, folder / "features")
    return time.perf_counter() - started


def compare_extraction(call_plain: Callable[..., Any], photos: Sequence[Photo], params: Params) -> Row:
    """Compare the extraction of photographs, from files to stored features."""
    chosen = random.Random(0).sample(photos, 160)
    examples = [(paths.DATA / photo.path, 0) for photo in chosen]

    def extract() -> float:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            return time_extraction(Path(folder), chosen, params)

    plain_seconds, our_seconds = alternate(3, lambda: call_plain(plain.time_extraction, examples), extract)
    what = f"extraction of {len(chosen)} photographs, files to stored features"
    return Row(what, "PyTorch eager, batches of 32", plain_seconds, our_seconds, "3.0 (3.5)")


def compare_steps(call_plain: Callable[..., Any], params: Params) -> Row:
    """Compare a training step on 32 photographs; celebflow's includes reading their features."""
    features = load_features(paths.FEATURES, paths.PHOTOS)
    names, origin = list_people(features.photos), features.origin
    train = select_split(features, names, "train")
    card = ClassifierCard(
        class_names=tuple(names),
        hidden_units=params.train.hidden_units,
        dropout=params.train.dropout,
        transform=origin.transform,
        backbone=origin.backbone,
        calibration=UNCALIBRATED,
    )
    classifier = Classifier(card)
    seed_everything(0)  # training uses only deterministic algorithms, and so does this
    optimizer = NetworkAdam(classifier, params.train.learning_rate, params.train.weight_decay)
    orders = np.random.default_rng(0)
    inputs, labels = train.gather(orders.permutation(len(train))[:32])

    def step_plainly() -> float:
        seconds: list[float] = call_plain(plain.time_steps, inputs.to_dense(), labels.numpy(), 5)
        return statistics.median(seconds)

    def step() -> float:
        seconds = []
        for _ in range(5):
            batches = [(orders.permutation(len(train))[:32], np.zeros(32, np.int64))]
            started = time.perf_counter()
            train_one_epoch(
                classifier,
                optimizer,
                train,
                batches,
                CrossEntropy(),
                lambda _: params.train.learning_rate,
                lambda *_: None,
            )
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    plain_seconds, our_seconds = alternate(7, step_plainly, step)
    return Row("a training step at batch 32", "torch.optim.Adam as it comes", plain_seconds, our_seconds, "4.5 (6)")


def time_changed_rates(params: Params) -> float:
    """Return the median seconds of `dvc repro` after a change of the learning rate."""

    def change(rate: float) -> float:
        text = paths.PARAMS.read_text(encoding="utf-8")
        paths.PARAMS.write_text(re.sub("learning_rate: .*", f"learning_rate: {rate}", text), encoding="utf-8")
        return time_command("dvc", "repro")

    return statistics.median(change(params.train.learning_rate * factor) for factor in (1.1, 1.2, 1.3))


def compare_ten_new(photos: Sequence[Photo], params: Params, first_stage_seconds: float) -> list[Row]:
    """Compare the extraction of all photographs with that of ten new ones, alone and in the whole stage."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        all_seconds = time_extraction(folder, photos, params)
        new_seconds = []
        for round_number in range(3):
            new = []
            for number in range(10):
                old = random.Random(number).choice(photos)
                path = f"{old.person}/new {round_number} {number}.png"
                with Image.open(paths.DATA / old.path) as image:
                    image.convert("RGB").rotate(round_number * 10 + number + 1).save(paths.DATA / path)
                content = (paths.DATA / path).read_bytes()
                sha256 = hashlib.sha256(content).hexdigest()
                new.append(Photo(path, old.person, "train", sha256, sha256))
            new_seconds.append(time_extraction(folder, [*photos, *new], params))
            for photo in new:
                (paths.DATA / photo.path).unlink()
    what = f"extraction after adding ten photographs to {len(photos)}"
    row = Row(what, "extraction of all", all_seconds, statistics.median(new_seconds), "100")
    return [row, compare_stage_with_ten_new(photos, first_stage_seconds)]


def compare_stage_with_ten_new(photos: Sequence[Photo], first_seconds: float) -> Row:
    """Compare `dvc repro extract` for all photographs and for ten new ones, including the start of Python and DVC."""
    for number, old in enumerate(random.Random(1).sample(list(photos), 10)):
        with Image.open(paths.DATA / old.path) as image:
            image.convert("RGB").rotate(number + 90).save(paths.DATA / old.person / f"added {number}.png")
    run("dvc", "add", "--quiet", "data")
    run("dvc", "repro", "prepare")
    seconds = time_command("dvc", "repro", "extract")
    return Row("dvc repro extract after adding ten photographs", "dvc repro extract of all", first_seconds, seconds, "")


def compare_no_op() -> Row:
    """Compare a `dvc repro` that has nothing to do with `dvc status`."""
    time_command("dvc", "repro")
    status_seconds, repro_seconds = alternate(
        7, lambda: time_command("dvc", "status"), lambda: time_command("dvc", "repro")
    )
    return Row("a dvc repro with nothing to do", "dvc status", status_seconds, repro_seconds, "1/2")


def describe_machine() -> dict[str, str]:
    """Return the processor and the versions that the seconds depend on."""
    model = re.search("model name\t: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    libraries = ("torch", "torchvision", "ncnn", "dvc", "mlflow")
    return {
        "processor": f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{library: version(library) for library in libraries},
    }


def write_table(results: dict[str, Any], *, into_readme: bool) -> None:
    """Print the results, and put them between the marks in docs/speed.md if they are of real photographs."""
    machine = results["machine"]
    lines = [
        f"{results['photographs']}, {'ImageNet weights' if results['trained_backbone'] else 'UNTRAINED BACKBONE'}, "
        f"on {machine['processor']} ({machine['capability']}), "
        f"torch {machine['torch']}, ncnn {machine['ncnn']}, DVC {machine['dvc']}, MLflow {machine['mlflow']}; "
        "medians where there are several.",
        "",
        "| what | compared with | seconds there | seconds here | ratio | at least (aim) |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["comparisons"]:
        seconds = f"{row['reference_seconds']:.3g} | {row['celebflow_seconds']:.3g}"
        lines.append(f"| {row['what']} | {row['reference']} | {seconds} | {row['ratio']:.3g} | {row['aim']} |")
    memory_gib = results["peak_memory_of_train_gib"]
    feature_kb = results["features_kb_per_photograph"]
    lines += [
        "",
        f"Training held at most {memory_gib:.2f} GiB; stored features take {feature_kb:.1f} KB per photograph.",
    ]
    print("\n".join(lines))
    if not into_readme:
        return
    replace_between_marks(REPOSITORY / "docs" / "speed.md", MARKS, "\n".join(lines))


def replace_between_marks(file: Path, marks: tuple[str, str], text: str) -> None:
    """Replace the text between two marks in a file."""
    before, rest = file.read_text(encoding="utf-8").split(marks[0])
    after = rest.split(marks[1])[1]
    file.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
