"""A result of attributes → its figures and its page."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from celebflow import paths
from celebflow.classifier.attribute_model import AttributeCard, AttributeModel, load_attribute_model
from celebflow.data.duplicates import list_duplicate_groups
from celebflow.data.photos import Photo
from celebflow.evaluation.attribute_groups import GroupAccuracy, list_worst_groups
from celebflow.evaluation.attribute_metrics import AttributeMetrics
from celebflow.evaluation.attribute_results import (
    AttributePrediction,
    AttributeReport,
    AttributeSplitReport,
    load_attribute_report,
)
from celebflow.features.store import Features
from celebflow.report import markup
from celebflow.report.attribute_figures import MIN_GROUP_SIZE, SHEET, draw_attribute_charts, draw_error_sheets
from celebflow.report.comparison_page import ComparedResults
from celebflow.report.contact_sheets import draw_duplicates
from celebflow.report.figures import save_figures
from celebflow.report.fonts import choose_fonts
from celebflow.report.formats import FILTERS
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from celebflow.report.page import ResultPage, gather_values, load_figures
from celebflow.report.style import spell
from celebflow.report.thumbnails import load_crop

_PAGE = markup.Page("attributes.html.jinja", ("base.css", "report.css"), ("viewer.js", "limit.js", "report.js"))
_MAX_EXAMPLES = 240  # of a split
_EXAMPLES_PER_ATTRIBUTE = (2, 12)  # at least and at most
_MAX_GROUPS = 60
_ANSWERS = ("yes", "no")


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

    def render(self) -> str:
        """Return the page as HTML: one file without a reference to another."""
        values = gather_values(self) | {
            "attributes": {split: _rank(each.attributes) for split, each in self.report.splits.items()},
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
    model = load_attribute_model(paths.CLASSIFIER)
    card = model.card
    report = load_attribute_report(paths.HISTORY, paths.ALL_METRICS, paths.REPORTS)
    chosen = {name: choose_errors(split) for name, split in report.splits.items()}

    @cache
    def load(path: str) -> NDArray[np.uint8]:
        return load_crop(paths.DATA / path, features.find_sha256(path), card.transform, features.subjects.get(path))

    examples = build_examples(model, chosen, features, load)
    if resolution_dpi is not None:
        if hint := choose_fonts(
            spell(name) for name in (*card.class_names, *(each.person for each in features.photos))
        ):
            print(hint)
        warning = card.backbone.warning()
        drawn = draw_attribute_charts(report, warning) | draw_error_sheets(report, chosen, load, warning)
        if groups := list_duplicate_groups(features.photos):
            drawn["duplicates"] = draw_duplicates(groups, paths.DATA)
        save_figures(drawn, resolution_dpi, paths.FIGURES)
    figures = {name: png for name, png in load_figures(paths.FIGURES).items() if SHEET not in name}
    return AttributePage(report, card, features.photos, params, figures, examples, compared)


def choose_errors(split: AttributeSplitReport) -> list[AttributePrediction]:
    """Return the most confident errors of each attribute, those of an attribute together.

    Half are answers of yes and half of no, as far as there are enough of both; the attributes with the lowest average
    precision come first.
    """
    fewest, most = _EXAMPLES_PER_ATTRIBUTE
    count = min(most, max(fewest, _MAX_EXAMPLES // len(split.attributes)))
    chosen: list[AttributePrediction] = []
    for attribute in _rank(split.attributes):
        errors = split.list_errors(attribute.attribute)
        firsts = [[each for each in errors if each.predicted == answer][: count // 2] for answer in _ANSWERS]
        balanced = [each for first in firsts for each in first]
        others = [each for each in errors if each not in balanced]
        kept = [*balanced, *others[: count - len(balanced)]]
        chosen += sorted(kept, key=lambda each: (each.probability_of_actual, each.path))
    return chosen[:_MAX_EXAMPLES]


def build_examples(
    model: AttributeModel,
    chosen: Mapping[str, Sequence[AttributePrediction]],
    features: Features,
    load: Callable[[str], NDArray[np.uint8]],
) -> list[AttributeExample]:
    """Build the examples of errors by split; `load` returns what the network saw of a photograph.

    The heat map shows which parts support yes, whatever was answered.
    """
    explainer = Explainer(model)
    class_of = {name: number for number, name in enumerate(model.card.class_names)}

    def build(split: str, prediction: AttributePrediction, heat: NDArray[np.float32]) -> AttributeExample:
        image = load(prediction.photographs[0])
        return AttributeExample(prediction, split, image, overlay_heat_map(image, heat))

    examples: list[AttributeExample] = []
    with ThreadPoolExecutor() as workers:
        for split, errors in chosen.items():
            classes = np.array([class_of[error.attribute] for error in errors], np.int64)
            heats = explainer.explain([error.photographs[0] for error in errors], classes, features)
            examples += workers.map(build, repeat(split), errors, heats)
    return examples


def _rank(attributes: Sequence[AttributeMetrics]) -> list[AttributeMetrics]:
    """Put the attribute with the lowest average precision first, and those without one last."""
    return sorted(
        attributes, key=lambda each: (each.average_precision is None, each.average_precision or 0, each.attribute)
    )


def _list_groups(rows: Sequence[GroupAccuracy]) -> list[GroupAccuracy]:
    """Return the groups that are certainly at a disadvantage by balanced accuracy, the most certain first."""
    return list_worst_groups(rows, _MAX_GROUPS, MIN_GROUP_SIZE, "balanced_accuracy")
