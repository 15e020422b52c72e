"""Measure how many wrong labels are found, and how many others are suspected; it writes docs/data.md.

python -m benchmarks.suspects --data faces --weights vgg19.pth: photographs of each split are put into another folder at
random, three times each. Features are extracted first, unless CELEBFLOW_CACHE names a cache that has them.

python -m benchmarks.suspects --data celeba --weights vgg19.pth --recipes attributes: labels of one attribute at a time
are flipped at random, three times each; it writes docs/attributes.md.
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
from celebflow.classifier.attribute_out_of_fold import AttributesOutOfFold, predict_attributes_out_of_fold
from celebflow.classifier.fits import open_fits
from celebflow.classifier.out_of_fold_training import predict_out_of_fold
from celebflow.data.attributes import BLANK, NO, YES, AttributeTable, load_attributes
from celebflow.data.photos import SPLITS, list_people
from celebflow.evaluation.attribute_suspects import find_attribute_suspects
from celebflow.evaluation.suspects import find_suspects
from celebflow.experiments.recipes import find_changes, list_arguments, load_recipe
from celebflow.features.store import Features, load_features
from celebflow.params import load_params

MARKS = "<!-- suspects -->", "<!-- end of suspects -->"
FRACTIONS = (0.0, 0.03, 0.1)
FLIPPED_FRACTION = 0.05
FOLDS = 5
PEOPLE_HEADER = (
    "| recipe | in wrong folders | of these found | of the others suspected | seconds |\n|---|---|---|---|---|"
)
ATTRIBUTES_HEADER = (
    "| attribute, yes | flipped | average precision | of these found | of the others suspected "
    "| of the suspects flipped | seconds |\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure each recipe, print the tables, and write them to docs/data.md and docs/attributes.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--recipes", nargs="+", default=["fast"], help="recipes to measure")
    parser.add_argument("--draws", type=int, default=3, help="how often photographs are moved at random")
    parser.add_argument(
        "--attributes", nargs="+", default=["Smiling", "Male", "Young", "Eyeglasses"], help="attributes to flip"
    )
    arguments = parser.parse_args()
    tables: dict[str, list[str]] = {}
    with enter_repository(arguments.data, arguments.weights):
        for recipe in arguments.recipes:
            run("git", "checkout", "--quiet", "dvc.yaml")
            changes = find_changes(load_params(paths.PARAMS), load_recipe(recipe))
            run("dvc", "exp", "run", *list_arguments(changes), "train")
            if load_params(paths.PARAMS).task == "attributes":
                lines = tables.setdefault("attributes.md", [ATTRIBUTES_HEADER])
                for name in arguments.attributes:
                    lines.append(measure_attribute(name, arguments.draws))
                    print(lines[-1], flush=True)
                continue
            lines = tables.setdefault("data.md", [PEOPLE_HEADER])
            for fraction in FRACTIONS:
                lines.append(f"| `{recipe}` | {measure(fraction, arguments.draws if fraction else 1)} |")
                print(lines[-1], flush=True)
    for page, lines in tables.items():
        table = "\n".join(lines)
        print(table)
        if arguments.data and arguments.weights != "untrained":
            replace_between_marks(REPOSITORY / "docs" / page, MARKS, table)


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


def measure_attribute(name: str, draw_count: int) -> str:
    """Return a row about labels of one attribute that are flipped: the medians of some draws, lowest and highest."""
    from sklearn.metrics import average_precision_score

    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    table = load_attributes(paths.ATTRIBUTES)
    column = table.names.index(name)
    labels = table.labels[:, column]
    ranking, found, suspected, right, seconds = [], [], [], [], []
    for draw in range(draw_count):
        flipped_table, flipped = flip(table, column, draw)
        started = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            predicted = predict_attributes_out_of_fold(
                features, flipped_table, params.train, params.compute, open_fits(features), FOLDS
            )
        suspects = {each.path for each in find_attribute_suspects(predicted) if each.attribute == name}
        seconds.append(time.perf_counter() - started)
        ranking.append(average_precision_score(*rank_labels(predicted, column, flipped)))
        found.append(len(suspects & flipped) / len(flipped))
        suspected.append(len(suspects - flipped) / ((labels != BLANK).sum() - len(flipped)))
        right.append(len(suspects & flipped) / max(1, len(suspects)))
    yes = (labels == YES).sum() / (labels != BLANK).sum()
    cells = [
        f"{name}, {yes:.0%}",
        f"{FLIPPED_FRACTION:.0%}",
        _format_range(ranking, ".3f"),
        *map(_format_range, (found, suspected, right)),
        f"{statistics.median(seconds):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def flip(table: AttributeTable, column: int, seed: int) -> tuple[AttributeTable, set[str]]:
    """Return the table with a fraction of an attribute's labels flipped, and the paths of their photographs."""
    labels = table.labels.copy()
    known = np.flatnonzero(labels[:, column] != BLANK)
    chosen = np.random.default_rng(seed).choice(known, round(FLIPPED_FRACTION * len(known)), replace=False)
    labels[chosen, column] = YES + NO - labels[chosen, column]
    return replace(table, labels=labels), {table.paths[row] for row in chosen}


def rank_labels(predicted: AttributesOutOfFold, column: int, flipped: set[str]) -> tuple[list[bool], list[float]]:
    """Return which judged labels of an attribute are flipped, and how much each is doubted."""
    judged = np.flatnonzero(predicted.judged[:, column])
    yes = predicted.probabilities[judged, column]
    doubts = np.where(predicted.labels[judged, column] == YES, 1 - yes, yes)
    return [predicted.photos[row].path in flipped for row in judged], doubts.tolist()


def _format_range(fractions: list[float], form: str = ".1%") -> str:
    if not fractions:
        return ""
    low, median, high = (format(pick(fractions), form) for pick in (min, statistics.median, max))
    return low if low == high else f"{median} ({low} to {high})"


if __name__ == "__main__":
    main()
