"""Measure the classifier on the photographs that it was not trained on."""

from celebflow import paths
from celebflow.classifier.model import load_classifier
from celebflow.evaluation.results import report_splits, save_metrics
from celebflow.features.store import load_features
from celebflow.params import load_params
from celebflow.tracking import runs
from stages import run_stage


def main() -> None:
    """Write reports/metrics.json, reports/all_metrics.json, reports/val and reports/test."""
    params = load_params(paths.PARAMS)
    classifier = load_classifier(paths.CLASSIFIER)
    with runs.continue_run(params, classifier.card.backbone) as run:
        features = load_features(paths.FEATURES, paths.PHOTOS)
        metrics = report_splits(classifier, features, params.compute, paths.REPORTS)
        save_metrics(metrics, classifier.card.backbone, paths.METRICS, paths.ALL_METRICS)
        run.log_final_metrics(metrics)
        run.log_files(paths.METRICS, paths.ALL_METRICS, *(paths.REPORTS / split for split in metrics))


if __name__ == "__main__":
    run_stage(main)
