"""Train the task's model on the features, as a new MLflow run."""

from celebflow import paths
from celebflow.classifier import checkpoints, history
from celebflow.features.store import load_features
from celebflow.params import load_params
from celebflow.tasks import load_step
from celebflow.tracking import runs
from stages import run_stage


def main() -> None:
    """Write models/classifier.safetensors, models/mlflow_run_id.txt and reports/history.csv."""
    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    opened = checkpoints.open_checkpoints(features, params.train, params.compute)
    with runs.start_run(params, features) as run, opened as saved:
        train = load_step(params.task, "train")
        model, epochs = train(features, params.train, params.compute, saved, run.log_epoch)
        history.save_history(epochs, paths.HISTORY)
        model.save(paths.CLASSIFIER)
        run.log_files(paths.PARAMS, paths.HISTORY)


if __name__ == "__main__":
    run_stage(main)
