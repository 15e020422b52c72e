"""A result of verification → its figures and its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from celebflow import paths
from celebflow.classifier.cards import VerifierCard, load_verifier_card
from celebflow.classifier.pair_calibration import format_probability
from celebflow.data.duplicates import list_duplicate_groups
from celebflow.data.photos import Photo
from celebflow.evaluation.advice import Advice
from celebflow.evaluation.pair_advice import advise_on_pairs
from celebflow.evaluation.pair_results import PairPrediction, VerificationReport, load_verification_report
from celebflow.features.store import Features
from celebflow.report import markup
from celebflow.report.comparison_page import ComparedResults
from celebflow.report.contact_sheets import draw_duplicates
from celebflow.report.figures import save_figures
from celebflow.report.fonts import choose_fonts
from celebflow.report.formats import FILTERS
from celebflow.report.page import ResultPage, gather_values, load_figures
from celebflow.report.pair_figures import (
    SHEETS,
    draw_pair_charts,
    draw_sheets,
    list_pair_examples,
)
from celebflow.report.style import spell
from celebflow.report.thumbnails import load_crop

_PAGE = markup.Page("verification.html.jinja", ("base.css", "report.css"), ("viewer.js", "limit.js", "report.js"))
_MAX_EXAMPLES = 60  # of each kind in each split
_IN_GALLERY = tuple(f"_{name}" for name, _, _ in SHEETS)


@dataclass(frozen=True, eq=False)
class PairExample:
    """A pair of a split that the model took for the wrong kind, and both photographs, (side, side, 3) each."""

    prediction: PairPrediction
    split: str
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]


@dataclass(frozen=True)
class VerificationPage(ResultPage):
    """What the page shows: `params` have dotted names, and `figures` are PNG files by name."""

    report: VerificationReport
    card: VerifierCard
    photos: Sequence[Photo]
    params: Mapping[str, object]
    figures: Mapping[str, bytes]
    examples: Sequence[PairExample]
    compared: ComparedResults | None = None
    advice: Sequence[Advice] = ()

    def render(self) -> str:
        """Return the page as HTML: one file without a reference to another."""
        filters = {**FILTERS, "probability": format_probability}
        html, _ = markup.render(_PAGE, "img-src data:", filters, **gather_values(self))
        return html


def publish_pairs(
    features: Features,
    params: Mapping[str, object],
    resolution_dpi: int | None,
    compared: ComparedResults | None = None,
) -> VerificationPage:
    """Draw the figures of the workspace's result, and return its page; arguments are those of publish."""
    card = load_verifier_card(paths.CLASSIFIER)
    report = load_verification_report(paths.HISTORY, paths.ALL_METRICS, paths.REPORTS)

    @cache
    def load(path: str) -> NDArray[np.uint8]:
        return load_crop(paths.DATA / path, features.find_sha256(path), card.transform, features.subjects.get(path))

    if resolution_dpi is not None:
        if hint := choose_fonts(spell(photo.person) for photo in features.photos):
            print(hint)
        warning = card.backbone.warning()
        drawn = draw_pair_charts(report, warning) | draw_sheets(report, load, warning)
        if groups := list_duplicate_groups(features.photos):
            drawn["duplicates"] = draw_duplicates(groups, paths.DATA)
        save_figures(drawn, resolution_dpi, paths.FIGURES)
    examples = [
        PairExample(prediction, split, load(prediction.first), load(prediction.second))
        for split, predictions in list_pair_examples(report, _MAX_EXAMPLES).items()
        for prediction in predictions
    ]
    figures = {name: png for name, png in load_figures(paths.FIGURES).items() if not name.endswith(_IN_GALLERY)}
    advice = advise_on_pairs(report, features.subjects, params)
    return VerificationPage(report, card, features.photos, params, figures, examples, compared, advice)
