"""An MLflow run → a version of the registered model of its task."""

import re
import sys
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from celebflow import paths
from celebflow.errors import CelebflowError, raise_shortage
from celebflow.evaluation.metrics import is_lower_better
from celebflow.experiments.packaging import describe_model, find_task, package_model
from celebflow.experiments.results import find_cached_file, read_experiment_run
from celebflow.tasks import TASKS
from celebflow.tracking import stores
from celebflow.tracking.naming import EXPERIMENT_TAG, RESTORE_TAG
from celebflow.tracking.provenance import find_pull, read_locked_md5s


def register(run_name: str | None, metric: str, alias: str) -> tuple[Run, ModelVersion]:
    """Register a run's model as a version of its task's, give that an alias, and return the run and the version.

    Without a name, `metric` chooses the best run. A run that is already registered keeps its version.

    Raises CelebflowError when there is no such run, it diverged, its files are missing, the alias is not valid, or the
    store cannot be used.
    """
    if not re.fullmatch(r"[\w-]+", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise CelebflowError(
            f"--alias is {alias}. An alias has letters, digits, - and _, and is not latest or a version such as v1."
        )
    if not stores.store_exists():
        raise CelebflowError(f"There is no MLflow store {stores.describe_store()}. {_advise(None)}")
    stores.require_registry()
    try:
        with stores.short_timeouts():
            client = stores.open_store()
            run = find_requested_run(client, run_name) if run_name else find_best_run(client, metric)
        if names := _list_not_finite(run):
            raise CelebflowError(
                f"Run {run.info.run_id} diverged: {', '.join(names)} are not finite. Choose another run: "
                "`celebflow runs` lists them."
            )
        with stores.translate_files_errors():
            model_version = _find_version(client, run) or _register(client, run, "" if run_name else metric)
        client.set_registered_model_alias(model_version.name, alias, model_version.version)
    except stores.STORE_ERRORS as error:
        raise_shortage(error, stores.describe_store())
        raise CelebflowError(f"{stores.describe_failure(error)}. {stores.advise_on_failure(error)}") from None
    return run, model_version


def _find_version(client: MlflowClient, run: Run) -> ModelVersion | None:
    """Return the version that a run is registered as, or None."""
    name = TASKS[find_task(run)].registered_name
    if not client.search_registered_models(f"name = '{name}'"):
        return None
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
    return next(iter(versions), None)


def download_model(address: str, folder: Path) -> Path:
    """Download the model at an MLflow address, models:/… or runs:/…, and return its folder in `folder`.

    Raises CelebflowError when there is no such model, or the store cannot be used.
    """
    if not stores.store_exists():
        raise CelebflowError(
            f"--model is {address}, and there is no MLflow store {stores.describe_store()}. Run from the project's "
            "folder, or set MLFLOW_TRACKING_URI."
        )
    stores.require_registry()
    try:
        with stores.short_timeouts():
            client = stores.open_store()
            client.search_experiments(max_results=1)  # a download is tried again for minutes, so first see who responds
            mlflow.set_tracking_uri(client.tracking_uri)
        with stores.translate_files_errors():
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder)))
    except stores.STORE_ERRORS as error:
        raise_shortage(error)
        advice = "Check the address and MLFLOW_TRACKING_URI."
        if isinstance(error, stores.FilesError):
            advice = error.remedy
        raise CelebflowError(f"--model is {address}: {stores.describe_failure(error)}. {advice}") from None


def find_best_run(client: MlflowClient, metric: str) -> Run:
    """Return the run with the best `metric`, among the runs on the photographs and the split of dvc.lock.

    How a run ended does not matter: evaluate has logged the metric, and a later stage that was interrupted or failed,
    as when the figures are drawn anew, changes nothing about the model. Runs with a metric that is not finite are left
    out: they diverged, whatever their other metrics are.

    Raises CelebflowError when there is no such run, or when `metric` is not a metric of validation: test data must not
    choose a model.
    """
    if not metric.startswith("val/"):
        raise CelebflowError(f"--metric is {metric}; only a metric of validation, val/…, may choose a model.")
    locked = read_locked_md5s()
    candidates = []
    for run in stores.list_runs(client):
        tags = run.data.tags
        same_data = all(tags.get(f"celebflow.{name}_md5") == locked.get(name, "") for name in ("data", "splits"))
        is_usable = "celebflow.classifier_md5" in tags and not _list_not_finite(run)
        if same_data and is_usable and metric in run.data.metrics:
            candidates.append(run)
    if not candidates:
        raise CelebflowError(f"No run on the photographs and the split of dvc.lock has {metric}. {_advise(client)}")
    sign = -1 if is_lower_better(metric) else 1
    return max(candidates, key=lambda run: sign * run.data.metrics[metric])


def _advise(client: MlflowClient | None) -> str:
    """Return what to do when a store lacks a run to register."""
    if paths.MLFLOW_RUN_ID.exists():
        run_id, _ = stores.follow_run(paths.MLFLOW_RUN_ID.read_text(errors="replace"))
        if not re.fullmatch("[0-9a-f]{32}", run_id):
            return f"{paths.MLFLOW_RUN_ID} does not hold the id of a run. Run `dvc repro --force --single-item train`."
        if client is None or stores.find_run(client, run_id) is None:
            return (
                "The workspace's result was logged to another store. To log it here, too, run "
                "`dvc repro --force --single-item evaluate`."
            )
    if pull := find_pull(paths.MLFLOW_RUN_ID):
        return f"Run `{pull}` to fetch the workspace's result, or give the id of a run: `celebflow runs` lists them."
    return "Run `dvc repro`, or give the id of a run: `celebflow runs` lists them."


def _list_not_finite(run: Run) -> list[str]:
    """Return the metrics of a run that are not finite; in a database, MLflow stores infinity as the largest float."""
    return [name for name, value in run.data.metrics.items() if not abs(value) < sys.float_info.max]


def find_requested_run(client: MlflowClient, name: str) -> Run:
    """Return the run of the DVC experiment of this name, or else what find_named_run finds.

    The experiment says which run it has: DVC may have taken its result from its run cache, or renamed it since.
    """
    run_id, _ = stores.follow_run(read_experiment_run(name))
    return (stores.find_continuation(client, run_id) if run_id else None) or find_named_run(client, run_id or name)


def find_named_run(client: MlflowClient, name: str) -> Run:
    """Return the run with this id, or the newest of the DVC experiment of this name, else the run whose id begins so.

    Raises CelebflowError when there is no such run, or when the ids of several runs begin so.
    """
    name, _ = stores.follow_run(name)
    runs = list(stores.list_runs(client))
    matches = [run for run in runs if name in (run.info.run_id, run.data.tags.get(EXPERIMENT_TAG))][:1]
    matches = matches or [run for run in runs if any(run_id.startswith(name) for run_id in _list_ids(run))]
    if len(matches) > 1:
        raise CelebflowError(f"The ids of {len(matches)} runs begin with {name}; give more of the id.")
    if not matches:
        raise CelebflowError(f"There is no run {name} in {stores.describe_store()}: `celebflow runs` lists them.")
    return matches[0]


def _list_ids(run: Run) -> list[str]:
    """Return the id of a run, and the one that it had in the store that it comes from."""
    return [run_id for run_id in (run.info.run_id, run.data.tags.get(stores.CONTINUES)) if run_id]


def _register(client: MlflowClient, run: Run, chosen_by: str) -> ModelVersion:
    model_id = package_model(client, run, _find_file(run, "classifier"), _find_file(run, "backbone"), chosen_by)
    mlflow.set_tracking_uri(client.tracking_uri)
    registered = mlflow.register_model(f"models:/{model_id}", TASKS[find_task(run)].registered_name)
    return client.update_model_version(registered.name, registered.version, describe_model(run, chosen_by))


def _find_file(run: Run, name: str) -> Path:
    md5 = run.data.tags.get(f"celebflow.{name}_md5", "")
    if not md5:
        raise CelebflowError(
            f"Run {run.info.run_id} has no {name}: it was not evaluated, or is no run of this pipeline. Choose another "
            "run: `celebflow runs` lists them."
        )
    file = find_cached_file(md5)
    if file is None:
        restore = run.data.tags.get(RESTORE_TAG, "")
        rerun = "" if restore.endswith("dvc repro") else " and `dvc repro`"
        remedy = f", or reproduce it with `{restore}`{rerun}" if restore else ""
        problem = f"The {name} of run {run.info.run_id} is not in DVC's cache."
        raise CelebflowError(f"{problem} Fetch it with `dvc pull --all-commits`{remedy}.")
    return file
