"""Measure the model on the photographs that it was not trained on."""

from celebflow import paths
from celebflow.evaluation.results import save_metrics
from celebflow.features.store import load_features
from celebflow.params import load_params
from celebflow.tasks import load_step
from celebflow.tracking import runs
from stages import run_stage


def main() -> None:
    """Write reports/metrics.json, reports/all_metrics.json, reports/val and reports/test."""
    params = load_params(paths.PARAMS)
    features = load_features(paths.FEATURES, paths.PHOTOS)
    with runs.continue_run(params, features.origin.backbone) as run:
        evaluate = load_step(params.task, "evaluate")
        metrics = evaluate(paths.CLASSIFIER, features, params.compute, paths.REPORTS)
        save_metrics(metrics, features.origin.backbone, paths.METRICS, paths.ALL_METRICS)
        run.log_final_metrics(metrics)
        run.log_files(paths.METRICS, paths.ALL_METRICS, paths.REPORTS / "val", paths.REPORTS / "test")


if __name__ == "__main__":
    run_stage(main, "See `dvc metrics show`, or each prediction in reports/val/predictions.csv.")
