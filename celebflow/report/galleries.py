"""The figures that show photographs: duplicates, errors, low-confidence hits, and confused pairs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from celebflow.classifier.calibration import format_confidence
from celebflow.classifier.cards import ClassifierCard
from celebflow.data.duplicates import list_duplicate_groups
from celebflow.evaluation.results import Prediction, Report
from celebflow.features.store import Features
from celebflow.report.contact_sheets import Tile, draw_contact_sheet, draw_duplicates
from celebflow.report.examples import Example
from celebflow.report.figures import draw_charts
from celebflow.report.style import BLUE, GREEN, ORANGE, spell
from celebflow.report.thumbnails import load_thumbnail

_MAX_PHOTOGRAPHS = 20
# Name of the figure, noun and order in its title, and whether it shows hits.
_EXAMPLES = (
    ("errors", "errors", "most confident", False),
    ("low_confidence_hits", "hits", "least confident", True),
)
_MAX_PAIRS = 10
_TILES_PER_PAIR = 5  # errors, and photographs to compare them with; two pairs of five fit side by side
_MAX_ERRORS_PER_PAIR = 4
_MAX_COMPARED_PER_PAIR = 2


def draw_all(
    report: Report, examples: Sequence[Example], card: ClassifierCard, features: Features, folder: Path
) -> dict[str, Figure]:
    """Draw every figure of a result that has something to show; the keys are the names of their files."""
    figures = draw_charts(report, card) | draw_galleries(report, examples, card, features, folder)
    if groups := list_duplicate_groups(features.photos):
        figures["duplicates"] = draw_duplicates(groups, folder)
    return figures


def draw_galleries(
    report: Report, examples: Sequence[Example], card: ClassifierCard, features: Features, folder: Path
) -> dict[str, Figure]:
    """Draw the figures that show photographs, those in `folder`; the keys are the names of the figures' files.

    There is no figure of the errors or the hits of a split that has none.
    """
    warning = card.backbone.warning()
    figures = {}
    for split, content in report.splits.items():
        for kind, noun, superlative, are_hits in _EXAMPLES:
            shown = [each for each in examples if (each.split, each.prediction.is_hit) == (split, are_hits)]
            total = sum(prediction.is_hit == are_hits for prediction in content.predictions)
            if not total:
                continue
            figures[f"{split}_{kind}"] = _draw_examples(shown, total, f"{noun}, {split}", superlative, warning)
        if pairs := _list_pairs(content.predictions, content.errors(), features, folder):
            title = f"Most confused pairs, {split}. Orange: errors. Blue: training photographs of the predicted person"
            figures[f"{split}_confused_pairs"] = draw_contact_sheet(title, pairs, warning)
    return figures


def _draw_examples(examples: Sequence[Example], total: int, subject: str, superlative: str, warning: str) -> Figure:
    """Draw the first errors or hits, of `total`, each beside its heat map."""
    tiles = []
    for example in examples[:_MAX_PHOTOGRAPHS]:
        prediction = example.prediction
        said = "confidence" if prediction.is_hit else f"predicted: {spell(prediction.predicted)},"
        caption = f"{spell(prediction.actual)}\n{said} {format_confidence(prediction.confidence)}"
        pair = np.concatenate([example.image, example.heat_map], axis=1)
        tiles.append(Tile(pair, caption, GREEN if prediction.is_hit else ORANGE))
    title = (
        f"{subject.capitalize()}: {min(total, _MAX_PHOTOGRAPHS)} of {total}, {superlative} first. "
        "Right: Grad-CAM, bright where the photograph supports the prediction"
    )
    return draw_contact_sheet(title, [("", tiles)], warning)


def _list_pairs(
    predictions: Sequence[Prediction], errors: Sequence[Prediction], features: Features, folder: Path
) -> list[tuple[str, list[Tile]]]:
    """Return a row of photographs for each of the most confused pairs, its errors in their order."""
    supports = Counter(prediction.actual for prediction in predictions)
    pairs = Counter((error.actual, error.predicted) for error in errors)
    ranked = sorted(pairs, key=lambda pair: (-pairs[pair], -pairs[pair] / supports[pair[0]], pair))
    rows = []
    for actual, predicted in ranked[:_MAX_PAIRS]:
        own = [error for error in errors if (error.actual, error.predicted) == (actual, predicted)]
        tiles = []
        for error in own[:_MAX_ERRORS_PER_PAIR]:
            image = load_thumbnail(folder / error.path, features.find_sha256(error.path))
            tiles.append(Tile(image, f"confidence {format_confidence(error.confidence)}", ORANGE))
        trained_on = [photo for photo in features.photos if (photo.person, photo.split) == (predicted, "train")]
        for photo in trained_on[: min(_MAX_COMPARED_PER_PAIR, _TILES_PER_PAIR - len(tiles))]:
            tiles.append(Tile(load_thumbnail(folder / photo.path, photo.sha256), f"{spell(predicted)} (train)", BLUE))
        heading = f"{spell(actual)} predicted as {spell(predicted)}, {pairs[actual, predicted]} of {supports[actual]}"
        rows.append((heading, tiles))
    return rows
