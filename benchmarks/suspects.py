"""Measure how many photographs in wrong folders are found, and how many others are suspected; it writes docs/data.md.

python -m benchmarks.suspects --data faces --weights vgg19.pth: photographs of each split are put into another folder at
random, three times each. Features are extracted first, unless CELEBFLOW_CACHE names a cache that has them.
"""

import argparse
import io
import statistics
import time
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np

from benchmarks.compare import REPOSITORY, add_arguments, enter_repository, replace_between_marks, run
from celebflow import paths
from celebflow.classifier.fits import open_fits
from celebflow.classifier.out_of_fold import predict_out_of_fold
from celebflow.data.photos import SPLITS, list_people
from celebflow.evaluation.suspects import find_suspects
from celebflow.experiments.recipes import find_changes, list_arguments, load_recipe
from celebflow.features.store import Features, load_features
from celebflow.params import load_params

MARKS = "<!-- suspects -->", "<!-- end of suspects -->"
FRACTIONS = (0.0, 0.03, 0.1)
FOLDS = 5


def main() -> None:
    """Measure each recipe, print the table, and write it to docs/data.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--recipes", nargs="+", default=["fast"], help="recipes to measure")
    parser.add_argument("--draws", type=int, default=3, help="how often photographs are moved at random")
    arguments = parser.parse_args()
    lines = [
        "| recipe | in wrong folders | of these found | of the others suspected | seconds |",
        "|---|---|---|---|---|",
    ]
    with enter_repository(arguments.data, arguments.weights):
        for recipe in arguments.recipes:
            run("git", "checkout", "--quiet", "dvc.yaml")
            changes = find_changes(load_params(paths.PARAMS), load_recipe(recipe))
            run("dvc", "exp", "run", *list_arguments(changes), "train")
            for fraction in FRACTIONS:
                lines.append(f"| `{recipe}` | {measure(fraction, arguments.draws if fraction else 1)} |")
                print(lines[-1], flush=True)
    table = "\n".join(lines)
    print(table)
    if arguments.data and arguments.weights != "untrained":
        replace_between_marks(REPOSITORY / "docs" / "data.md", MARKS, table)


def measure(fraction: float, draw_count: int) -> str:
    """Return the cells of a row: the medians of some draws, with the lowest and highest."""
    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    found, suspected, seconds = [], [], []
    for draw in range(draw_count):
        moved_features, moved = move(features, fraction, draw)
        started = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            predicted = predict_out_of_fold(
                moved_features, params.train, params.compute, open_fits(features), FOLDS, share_preprocessor=True
            )
        suspects = {each.path for each in find_suspects(predicted)}
        seconds.append(time.perf_counter() - started)
        if moved:
            found.append(len(suspects & moved) / len(moved))
        suspected.append(len(suspects - moved) / (len(features.photos) - len(moved)))
    cells = [f"{fraction:.0%}", *map(_format_range, (found, suspected)), f"{statistics.median(seconds):.1f}"]
    return " | ".join(cells)


def move(features: Features, fraction: float, seed: int) -> tuple[Features, set[str]]:
    """Return the features with this fraction of each split in the folder of somebody else, and which these are."""
    random = np.random.default_rng(seed)
    photos, people = list(features.photos), list_people(features.photos)
    moved = set()
    for split in SPLITS:
        rows = features.find_rows(split)
        for row in random.choice(rows, round(fraction * len(rows)), replace=False):
            other = (people.index(photos[row].person) + random.integers(1, len(people))) % len(people)
            photos[row] = replace(photos[row], person=people[other])
            moved.add(photos[row].path)
    return replace(features, photos=photos), moved


def _format_range(fractions: list[float]) -> str:
    if not fractions:
        return ""
    low, high = f"{min(fractions):.1%}", f"{max(fractions):.1%}"
    return low if low == high else f"{statistics.median(fractions):.1%} ({low} to {high})"


if __name__ == "__main__":
    main()
