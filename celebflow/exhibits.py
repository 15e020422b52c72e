"""The figures that show photographs: what the classifier mistook or doubted, and where the network looked."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from celebflow.contact_sheets import Tile, draw_contact_sheet, load_thumbnail
from celebflow.explanations import Explainer, overlay_heat_map
from celebflow.features import Features
from celebflow.figures import draw_charts
from celebflow.reports import Prediction, Report
from celebflow.style import BLUE, GREEN, ORANGE, spell

_MOST_PHOTOGRAPHS = 20
_MOST_PAIRS = 10
# Of a pair, mistaken photographs and those to compare: so many that two pairs stand side by side.
_TILES_OF_A_PAIR = 5
_MOST_MISTAKEN = 4
_MOST_COMPARED = 2


def draw_all(report: Report, explainer: Explainer, features: Features, folder: Path) -> dict[str, Figure]:
    """Draw every figure of a result; the keys are the names of their files."""
    return draw_charts(report, explainer.card) | draw_exhibits(report, explainer, features, folder)


def draw_exhibits(report: Report, explainer: Explainer, features: Features, folder: Path) -> dict[str, Figure]:
    """Draw what the photographs in `folder` show of a result; the keys are the names of the figures' files."""
    warning, figures = explainer.card.backbone.warning(), {}

    def explain(predictions: Sequence[Prediction], colour: str) -> list[Tile]:
        tiles = []
        for prediction, heat in zip(predictions, explainer.explain(predictions, features), strict=True):
            image = load_thumbnail(folder / prediction.path, explainer.card.transform)
            pair = np.concatenate([image, overlay_heat_map(image, heat)], axis=1)
            tiles.append(Tile(pair, _describe(prediction), colour))
        return tiles

    for split, content in report.splits.items():
        mistakes, hits = content.mistakes(), content.hits()
        figures[f"{split}_mistakes"] = draw_contact_sheet(
            _title("most confident", mistakes, "mistakes", split),
            [("", explain(mistakes[:_MOST_PHOTOGRAPHS], ORANGE))],
            warning,
        )
        figures[f"{split}_doubtful_hits"] = draw_contact_sheet(
            _title("most doubtful", hits, "hits", split),
            [("", explain(hits[:_MOST_PHOTOGRAPHS], GREEN))],
            warning,
        )
        pairs = _list_pairs(content.predictions, mistakes, features, folder)
        title = f"Who is taken for whom most often, {split}; in blue, photographs of train to compare"
        figures[f"{split}_confused_pairs"] = draw_contact_sheet(
            title if pairs else f"Nobody is taken for somebody else, {split}", pairs, warning
        )
    return figures


def _title(superlative: str, predictions: Sequence[Prediction], noun: str, split: str) -> str:
    if not predictions:
        return f"No {noun}, {split}"
    return (
        f"{noun.capitalize()}, {split}: {min(len(predictions), _MOST_PHOTOGRAPHS)} of {len(predictions)}, the "
        f"{superlative} first; beside each, what spoke for the person named (bright; Grad-CAM)"
    )


def _describe(prediction: Prediction) -> str:
    named = "with" if prediction.is_hit else f"{spell(prediction.predicted)},"
    return f"{spell(prediction.actual)}\nnamed {named} {prediction.probability:.1%}"


def _list_pairs(
    predictions: Sequence[Prediction], mistakes: Sequence[Prediction], features: Features, folder: Path
) -> list[tuple[str, list[Tile]]]:
    """Return a row of photographs for each of the most confused pairs, of mistakes that come by confidence."""
    supports = Counter(prediction.actual for prediction in predictions)
    pairs = Counter((mistake.actual, mistake.predicted) for mistake in mistakes)
    ranked = sorted(pairs, key=lambda pair: (-pairs[pair], -pairs[pair] / supports[pair[0]], pair))
    rows = []
    for actual, named in ranked[:_MOST_PAIRS]:
        mistaken = [each for each in mistakes if (each.actual, each.predicted) == (actual, named)][:_MOST_MISTAKEN]
        known = [photo for photo in features.photos if (photo.person, photo.split) == (named, "train")]
        compared = known[: min(_MOST_COMPARED, _TILES_OF_A_PAIR - len(mistaken))]
        tiles = [
            Tile(load_thumbnail(folder / each.path), f"named with {each.probability:.1%}", ORANGE) for each in mistaken
        ]
        tiles += [Tile(load_thumbnail(folder / photo.path), f"{spell(named)} (train)", BLUE) for photo in compared]
        heading = f"{spell(actual)} taken for {spell(named)}, {pairs[actual, named]} of {supports[actual]}"
        rows.append((heading, tiles))
    return rows
