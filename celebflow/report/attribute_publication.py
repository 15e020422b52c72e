"""A result of attributes → its figures and its page."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from celebflow import paths
from celebflow.classifier.cards import AttributeCard, load_attribute_card
from celebflow.data.duplicates import list_duplicate_groups
from celebflow.data.photos import Photo
from celebflow.evaluation.advice import Advice
from celebflow.evaluation.attribute_advice import advise_on_attributes
from celebflow.evaluation.attribute_groups import MIN_GROUP_SIZE, GroupAccuracy, list_worst_groups
from celebflow.evaluation.attribute_results import (
    AttributePrediction,
    AttributeReport,
    load_attribute_report,
    rank_attributes,
)
from celebflow.evaluation.explanations import Explanation, load_explanations
from celebflow.features.store import Features
from celebflow.report import markup
from celebflow.report.attribute_figures import SHEET, draw_attribute_charts, draw_error_sheets
from celebflow.report.comparison_page import ComparedResults
from celebflow.report.contact_sheets import draw_duplicates
from celebflow.report.figures import save_figures
from celebflow.report.fonts import choose_fonts
from celebflow.report.formats import FILTERS
from celebflow.report.page import ResultPage, gather_values, load_figures
from celebflow.report.style import spell
from celebflow.report.thumbnails import load_crop, overlay_heat_map

_PAGE = markup.Page("attributes.html.jinja", ("base.css", "report.css"), ("viewer.js", "limit.js", "report.js"))
_MAX_GROUPS = 60


@dataclass(frozen=True, eq=False)
class AttributeExample:
    """A wrong answer: what the network saw, and the same below the heat map of yes, each (side, side, 3)."""

    prediction: AttributePrediction
    split: str
    image: NDArray[np.uint8]
    heat_map: NDArray[np.uint8]


@dataclass(frozen=True)
class AttributePage(ResultPage):
    """What the page shows: `params` have dotted names, and `figures` are PNG files by name."""

    report: AttributeReport
    card: AttributeCard
    photos: Sequence[Photo]
    params: Mapping[str, object]
    figures: Mapping[str, bytes]
    examples: Sequence[AttributeExample]
    compared: ComparedResults | None = None
    advice: Sequence[Advice] = ()

    def render(self) -> str:
        """Return the page as HTML: one file without a reference to another."""
        values = gather_values(self) | {
            "attributes": {split: rank_attributes(each.attributes) for split, each in self.report.splits.items()},
            "groups": {split: _list_groups(each.groups) for split, each in self.report.splits.items()},
            "min_group_size": MIN_GROUP_SIZE,
        }
        html, _ = markup.render(_PAGE, "img-src data:", FILTERS, **values)
        return html


def publish_attributes(
    features: Features,
    params: Mapping[str, object],
    resolution_dpi: int | None,
    compared: ComparedResults | None = None,
) -> AttributePage:
    """Draw the figures of the workspace's result, and return its page; arguments are those of publish."""
    card = load_attribute_card(paths.CLASSIFIER)
    report = load_attribute_report(paths.HISTORY, paths.ALL_METRICS, paths.REPORTS)
    explained = {
        name: load_explanations(split.predictions, paths.REPORTS / name) for name, split in report.splits.items()
    }
    errors = {name: [each.prediction for each in explanations] for name, explanations in explained.items()}

    @cache
    def load(path: str) -> NDArray[np.uint8]:
        return load_crop(paths.DATA / path, features.find_sha256(path), card.transform, features.subjects.get(path))

    examples = build_examples(explained, load)
    if resolution_dpi is not None:
        if hint := choose_fonts(
            spell(name) for name in (*card.class_names, *(each.person for each in features.photos))
        ):
            print(hint)
        warning = card.backbone.warning()
        drawn = draw_attribute_charts(report, warning) | draw_error_sheets(report, errors, load, warning)
        if groups := list_duplicate_groups(features.photos):
            drawn["duplicates"] = draw_duplicates(groups, paths.DATA)
        save_figures(drawn, resolution_dpi, paths.FIGURES)
    figures = {name: png for name, png in load_figures(paths.FIGURES).items() if SHEET not in name}
    advice = advise_on_attributes(report, params)
    return AttributePage(report, card, features.photos, params, figures, examples, compared, advice)


def build_examples(
    explained: Mapping[str, Sequence[Explanation[AttributePrediction]]], load: Callable[[str], NDArray[np.uint8]]
) -> list[AttributeExample]:
    """Build the examples of errors by split; `load` returns what the network saw of a photograph."""

    def build(split: str, explanation: Explanation[AttributePrediction]) -> AttributeExample:
        image = load(explanation.prediction.photographs[0])
        return AttributeExample(explanation.prediction, split, image, overlay_heat_map(image, explanation.heat_map))

    examples: list[AttributeExample] = []
    with ThreadPoolExecutor() as workers:
        for split, explanations in explained.items():
            examples += workers.map(build, repeat(split), explanations)
    return examples


def _list_groups(rows: Sequence[GroupAccuracy]) -> list[GroupAccuracy]:
    """Return the groups that are certainly at a disadvantage by balanced accuracy, the most certain first."""
    return list_worst_groups(rows, _MAX_GROUPS, MIN_GROUP_SIZE, "balanced_accuracy")
