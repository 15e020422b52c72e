"""Draw the figures, and the page that shows them."""

from celebflow import paths
from celebflow.features.store import load_features
from celebflow.params import list_informative, load_params
from celebflow.tasks import load_step
from celebflow.tracking import runs
from celebflow.tracking.provenance import restore_params
from stages import run_stage


def main() -> None:
    """Write reports/figures and reports/index.html."""
    params = load_params(paths.PARAMS)
    features = load_features(paths.FEATURES, paths.PHOTOS)
    with runs.continue_run(params, features.origin.backbone) as run:
        publish = load_step(params.task, "publish")
        page = publish(features, restore_params(list_informative(params)), params.plot.resolution_dpi)
        page.save(paths.PAGE)
        page.print_advice()
        run.log_files(paths.FIGURES, paths.PAGE, paths.DUPLICATES, paths.FACES)


if __name__ == "__main__":
    run_stage(main, "Open reports/index.html. `mlflow ui` lists all results; `celebflow compare HEAD` shows changes.")
