"""A result → its figures and its page, from examples that are built once."""

from collections.abc import Mapping

from celebflow import paths
from celebflow.classifier.cards import load_classifier_card
from celebflow.evaluation.advice import advise
from celebflow.evaluation.explanations import load_explanations
from celebflow.evaluation.results import load_report
from celebflow.features.store import Features
from celebflow.report.comparison_page import ComparedResults
from celebflow.report.examples import build_examples
from celebflow.report.figures import save_figures
from celebflow.report.fonts import choose_fonts
from celebflow.report.galleries import draw_all
from celebflow.report.page import PageContent, load_figures
from celebflow.report.style import spell
from celebflow.report.why_section import Why


def publish(
    features: Features,
    params: Mapping[str, object],
    resolution_dpi: int | None,
    compared: ComparedResults | None = None,
    why: Why | None = None,
) -> PageContent:
    """Draw the figures of the workspace's result, and return what its page shows.

    `params` have dotted names. With a resolution of None, draw nothing and use the figures that stage plot drew. `why`
    is what was measured on request.
    """
    card = load_classifier_card(paths.CLASSIFIER)
    report = load_report(paths.HISTORY, paths.ALL_METRICS, paths.REPORTS)
    explained = {
        name: load_explanations(split.predictions, paths.REPORTS / name) for name, split in report.splits.items()
    }
    examples = build_examples(explained, features, paths.DATA)
    if resolution_dpi is not None:
        if hint := choose_fonts(spell(person) for person in card.class_names):
            print(hint)
        drawn = draw_all(report, examples, card, features, paths.DATA)
        save_figures(drawn, resolution_dpi, paths.FIGURES)
    figures = load_figures(paths.FIGURES)
    advice = advise(report, features.photos, params, None if why is None else why.measured)
    return PageContent(report, card, features.photos, params, figures, examples, compared, advice, why)
