"""The figures that show photographs: duplicates, errors, low-confidence hits, and confused pairs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from celebflow.classifier.model import ClassifierCard
from celebflow.data.duplicates import list_duplicate_groups
from celebflow.evaluation.results import Prediction, Report
from celebflow.features.store import Features
from celebflow.report.contact_sheets import Tile, draw_contact_sheet, draw_duplicates
from celebflow.report.examples import Example
from celebflow.report.figures import draw_charts
from celebflow.report.style import BLUE, GREEN, ORANGE, spell
from celebflow.report.thumbnails import load_thumbnail

_MAX_PHOTOGRAPHS = 20
_MAX_PAIRS = 10
_TILES_PER_PAIR = 5  # errors, and photographs to compare them with; two pairs of five fit side by side
_MAX_ERRORS_PER_PAIR = 4
_MAX_COMPARED_PER_PAIR = 2


def draw_all(
    report: Report, examples: Sequence[Example], card: ClassifierCard, features: Features, folder: Path
) -> dict[str, Figure]:
    """Draw every figure of a result; the keys are the names of their files."""
    duplicates = {"duplicates": draw_duplicates(list_duplicate_groups(features.photos), folder)}
    return duplicates | draw_charts(report, card) | draw_galleries(report, examples, card, features, folder)


def draw_galleries(
    report: Report, examples: Sequence[Example], card: ClassifierCard, features: Features, folder: Path
) -> dict[str, Figure]:
    """Draw the figures that show photographs, those in `folder`; the keys are the names of the figures' files."""
    warning = card.backbone.warning()
    figures = {}
    for split, content in report.splits.items():
        errors, hits = content.errors(), content.hits()
        error_tiles: list[Tile] = []
        hit_tiles: list[Tile] = []
        for example in examples:
            if example.split == split:
                tiles, color = (hit_tiles, GREEN) if example.prediction.is_hit else (error_tiles, ORANGE)
                tiles.append(_make_tile(example, color))
        figures[f"{split}_errors"] = draw_contact_sheet(
            _title("errors", "most confident", errors, split), [("", error_tiles[:_MAX_PHOTOGRAPHS])], warning
        )
        figures[f"{split}_low_confidence_hits"] = draw_contact_sheet(
            _title("hits", "least confident", hits, split), [("", hit_tiles[:_MAX_PHOTOGRAPHS])], warning
        )
        pairs = _list_pairs(content.predictions, errors, features, folder)
        title = f"Most confused pairs, {split}. Orange: errors. Blue: training photographs of the predicted person"
        figures[f"{split}_confused_pairs"] = draw_contact_sheet(
            title if pairs else f"No errors, {split}", pairs, warning
        )
    return figures


def _make_tile(example: Example, color: str) -> Tile:
    prediction = example.prediction
    said = "confidence" if prediction.is_hit else f"predicted: {spell(prediction.predicted)},"
    caption = f"{spell(prediction.actual)}\n{said} {prediction.confidence:.1%}"
    return Tile(np.concatenate([example.image, example.heat_map], axis=1), caption, color)


def _title(noun: str, superlative: str, predictions: Sequence[Prediction], split: str) -> str:
    if not predictions:
        return f"No {noun}, {split}"
    return (
        f"{noun.capitalize()}, {split}: {min(len(predictions), _MAX_PHOTOGRAPHS)} of {len(predictions)}, "
        f"{superlative} first. Right: Grad-CAM, bright where the photograph supports the prediction"
    )


def _list_pairs(
    predictions: Sequence[Prediction], errors: Sequence[Prediction], features: Features, folder: Path
) -> list[tuple[str, list[Tile]]]:
    """Return a row of photographs for each of the most confused pairs, its errors in their order."""
    supports = Counter(prediction.actual for prediction in predictions)
    pairs = Counter((error.actual, error.predicted) for error in errors)
    ranked = sorted(pairs, key=lambda pair: (-pairs[pair], -pairs[pair] / supports[pair[0]], pair))
    rows = []
    for actual, predicted in ranked[:_MAX_PAIRS]:
        tiles: list[Tile] = []
        for error in errors:
            if (error.actual, error.predicted) == (actual, predicted) and len(tiles) < _MAX_ERRORS_PER_PAIR:
                caption = f"confidence {error.confidence:.1%}"
                tiles.append(Tile(load_thumbnail(folder / error.path), caption, ORANGE))
        trained_on = [photo for photo in features.photos if (photo.person, photo.split) == (predicted, "train")]
        for photo in trained_on[: min(_MAX_COMPARED_PER_PAIR, _TILES_PER_PAIR - len(tiles))]:
            tiles.append(Tile(load_thumbnail(folder / photo.path), f"{spell(predicted)} (train)", BLUE))
        heading = f"{spell(actual)} predicted as {spell(predicted)}, {pairs[actual, predicted]} of {supports[actual]}"
        rows.append((heading, tiles))
    return rows
