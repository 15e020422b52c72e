"""Draw the figures, and the page that shows them."""

from celebflow import paths
from celebflow.classifier.model import load_classifier
from celebflow.features.store import load_features
from celebflow.params import list_informative, load_params
from celebflow.report.grad_cam import Explainer
from celebflow.report.page import save_page
from celebflow.report.publication import publish
from celebflow.tracking import runs
from stages import run_stage


def main() -> None:
    """Write reports/figures and reports/index.html."""
    params = load_params(paths.PARAMS)
    explainer = Explainer(load_classifier(paths.CLASSIFIER))
    with runs.continue_run(params, explainer.card.backbone) as run:
        features = load_features(paths.FEATURES, paths.PHOTOS)
        save_page(publish(explainer, features, list_informative(params), params.plot.resolution_dpi), paths.PAGE)
        run.log_files(paths.FIGURES, paths.PAGE, paths.DUPLICATES, paths.FACES)


if __name__ == "__main__":
    run_stage(main)
