"""Teach the replacement classifier on the features, as a new MLflow run."""

from celebflow import paths, tracking
from celebflow.checkpoints import open_checkpoints
from celebflow.classifier import save_classifier
from celebflow.errors import run_to_exit
from celebflow.features import load_features
from celebflow.params import load_params
from celebflow.reports import save_history
from celebflow.training import teach_classifier


def main() -> None:
    """Write models/classifier.safetensors, models/mlflow_run_id.txt and reports/history.csv."""
    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    what = features, params.train, params.compute
    with tracking.start_run(params, features) as run, open_checkpoints(*what) as checkpoints:
        classifier, history = teach_classifier(*what, checkpoints, run.log_epoch)
        save_history(history, paths.HISTORY)
        save_classifier(classifier, paths.CLASSIFIER)
        run.log_files(paths.PARAMS, paths.HISTORY)


if __name__ == "__main__":
    run_to_exit(main)
