"""Measure the classifier on the photographs that it did not learn from."""

from celebflow import packaging, paths, tracking
from celebflow.classifier import load_classifier
from celebflow.errors import run_to_exit
from celebflow.features import load_features
from celebflow.params import load_params
from celebflow.reports import report_splits, save_metrics


def main() -> None:
    """Write reports/metrics.json, reports/val and reports/test."""
    params, classifier = load_params(paths.PARAMS), load_classifier(paths.CLASSIFIER)
    with tracking.continue_run(params, classifier.card.backbone) as run:
        features = load_features(paths.FEATURES, paths.PHOTOS)
        metrics = report_splits(classifier, features, params.compute, paths.REPORTS)
        save_metrics(metrics, classifier.card.backbone, paths.METRICS)
        run.log_final_metrics(metrics)
        run.log_files(paths.METRICS, *(paths.REPORTS / split for split in metrics))
        if params.tracking.log_model:
            packaging.log_model(run, paths.CLASSIFIER, paths.BACKBONE)


if __name__ == "__main__":
    run_to_exit(main)
