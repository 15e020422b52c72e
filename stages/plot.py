"""Draw the figures that people look at."""

from celebflow import paths, tracking
from celebflow.classifier import load_card
from celebflow.errors import run_to_exit
from celebflow.figures import draw_all, save_figures
from celebflow.params import load_params
from celebflow.reports import load_report


def main() -> None:
    """Write reports/figures."""
    params, card = load_params(paths.PARAMS), load_card(paths.CLASSIFIER)
    with tracking.continue_run(params, card.backbone) as run:
        report = load_report(paths.HISTORY, paths.REPORTS)
        save_figures(draw_all(report, card), params.plot.resolution_dpi, paths.FIGURES)
        run.log_files(paths.FIGURES)


if __name__ == "__main__":
    run_to_exit(main)
