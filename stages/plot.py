"""Draw what people look at: the figures, and the page with all of them."""

from celebflow import exhibits, explanations, figures, paths, provenance, tracking
from celebflow.classifier import load_classifier
from celebflow.errors import run_to_exit
from celebflow.features import load_features
from celebflow.page_content import save_page
from celebflow.params import load_params
from celebflow.reports import load_report


def main() -> None:
    """Write reports/figures and reports/index.html."""
    params, explainer = load_params(paths.PARAMS), explanations.Explainer(load_classifier(paths.CLASSIFIER))
    with tracking.continue_run(params, explainer.card.backbone) as run:
        report = load_report(paths.HISTORY, paths.METRICS, paths.REPORTS)
        features = load_features(paths.FEATURES, paths.PHOTOS)
        drawn = exhibits.draw_all(report, explainer, features, paths.DATA)
        figures.save_figures(drawn, params.plot.resolution_dpi, paths.FIGURES)
        save_page(report, explainer, features, provenance.list_informative(params))
        run.log_files(paths.FIGURES, paths.PAGE, paths.DUPLICATES, paths.DUPLICATES_SHEET, paths.FACES)


if __name__ == "__main__":
    run_to_exit(main)
