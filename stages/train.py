"""Train the task's model on the features, as a new MLflow run."""

from celebflow import paths, tasks
from celebflow.classifier.finished import train_and_save
from celebflow.features.store import load_features
from celebflow.params import load_params
from celebflow.tracking import runs
from stages import run_stage, unchanged_params


def main() -> None:
    """Write models/classifier.safetensors, models/mlflow_run_id.txt and reports/history.csv."""
    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    with runs.start_run(params, features) as run:
        train, open_checkpoints = tasks.load_step(params.task, "train"), tasks.load_quickly(tasks.OPEN_CHECKPOINTS)
        run.wait_until_open()
        with open_checkpoints(features, params.train, params.compute) as saved, unchanged_params():
            train_and_save(train, features, params.train, params.compute, saved, run.log_epoch)
            run.log_files(paths.PARAMS, paths.HISTORY)


if __name__ == "__main__":
    run_stage(main, "The epochs are in reports/history.csv.")
