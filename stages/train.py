"""Train the classifier on the features, as a new MLflow run."""

from celebflow import paths
from celebflow.classifier import history, model
from celebflow.classifier.checkpoints import open_checkpoints
from celebflow.classifier.training import train_classifier
from celebflow.features.store import load_features
from celebflow.params import load_params
from celebflow.tracking import runs
from stages import run_stage


def main() -> None:
    """Write models/classifier.safetensors, models/mlflow_run_id.txt and reports/history.csv."""
    params = load_params(paths.PARAMS)
    features = load_features(paths.FEATURES, paths.PHOTOS)
    with runs.start_run(params, features) as run, open_checkpoints(features, params.train, params.compute) as saved:
        classifier, epochs = train_classifier(features, params.train, params.compute, saved, run.log_epoch)
        history.save_history(epochs, paths.HISTORY)
        model.save_classifier(classifier, paths.CLASSIFIER)
        run.log_files(paths.PARAMS, paths.HISTORY)


if __name__ == "__main__":
    run_stage(main)
