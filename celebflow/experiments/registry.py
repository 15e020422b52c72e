"""A run → a version of the registered model celebflow, the best by validation or one that is named."""

import re
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from celebflow.errors import CelebflowError
from celebflow.evaluation.metrics import is_lower_better
from celebflow.experiments.packaging import describe_model, package_model
from celebflow.experiments.results import find_cached_file
from celebflow.tracking import stores
from celebflow.tracking.provenance import read_locked_md5s

NAME = "celebflow"


def register(run_name: str | None, metric: str, alias: str) -> tuple[Run, ModelVersion]:
    """Make a run's model a version of the registered model celebflow, give it an alias, and return both.

    Without a name, the best run by `metric` is taken. A run that is registered already keeps its version.

    Raises CelebflowError when there is no such run, its files are gone, the store cannot be used, or takes no such
    alias.
    """
    if not re.fullmatch(r"[\w-]+", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise CelebflowError(f"--alias is {alias}: it takes letters, digits, - and _, and is neither latest nor v1.")
    try:
        client = stores.open_store()
        run = find_named_run(client, run_name) if run_name else find_best_run(client, metric)
        mine = f"name = '{NAME}' and run_id = '{run.info.run_id}'"
        found = client.search_model_versions(mine) if client.search_registered_models(f"name = '{NAME}'") else []
        registered = found[0] if found else _register(client, run, "" if run_name else metric)
        client.set_registered_model_alias(NAME, alias, registered.version)
    except stores.STORE_ERRORS as error:
        raise CelebflowError(f"{stores.describe_failure(error)}. Check MLFLOW_TRACKING_URI.") from None
    return run, registered


def download_model(address: str, folder: Path) -> Path:
    """Fetch the model at an address of MLflow's, models:/… or runs:/…, to `folder`, and return its own folder there.

    Raises CelebflowError when there is none, or the store cannot be used.
    """
    if not stores.store_exists():
        raise CelebflowError(
            f"--model is {address}, and there is no MLflow store {stores.describe_store()}. Go to the project's "
            "folder, or set MLFLOW_TRACKING_URI."
        )
    try:
        mlflow.set_tracking_uri(stores.open_store().tracking_uri)
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder)))
    except stores.STORE_ERRORS as error:
        raise CelebflowError(
            f"--model is {address}: {stores.describe_failure(error)}. Check the address and MLFLOW_TRACKING_URI."
        ) from None


def find_best_run(client: MlflowClient, metric: str) -> Run:
    """Return the finished run with the best `metric`, of those on the photographs and the split that are here now.

    The least is best of a loss, the greatest of all else.

    Raises CelebflowError when there is none, or when `metric` is not one of validation: what has seen test data may
    not choose.
    """
    if not metric.startswith("val/"):
        raise CelebflowError(f"--metric is {metric}; only a metric of validation, val/…, may choose a model.")
    here = read_locked_md5s()
    candidates = [
        run
        for run in stores.list_runs(client, "attributes.status = 'FINISHED'")
        if metric in run.data.metrics
        and "celebflow.classifier_md5" in run.data.tags
        and all(run.data.tags.get(f"celebflow.{name}_md5") == here.get(name, "") for name in ("data", "splits"))
    ]
    if not candidates:
        raise CelebflowError(
            f"No finished run on the photographs and the split of dvc.lock has {metric}. Run `dvc repro`, or name a "
            "run: `celebflow runs` lists them."
        )
    sign = -1 if is_lower_better(metric) else 1
    return max(candidates, key=lambda run: sign * run.data.metrics[metric])


def find_named_run(client: MlflowClient, name: str) -> Run:
    """Return the run of this id, or the newest of the DVC experiment of this name, or that whose id alone begins so.

    Raises CelebflowError when there is none, or more than one begins so.
    """
    name, _ = stores.follow_run(name)
    runs = list(stores.list_runs(client))
    tests: list[Callable[[Run], bool]] = [
        lambda run: run.info.run_id == name,
        lambda run: run.data.tags.get("celebflow.dvc_experiment") == name,
    ]
    for test in tests:
        for run in runs:
            if test(run):
                return run
    beginnings = [run for run in runs if run.info.run_id.startswith(name)]
    if len(beginnings) > 1:
        raise CelebflowError(f"The ids of {len(beginnings)} runs begin with {name}; name more of it.")
    if not beginnings:
        raise CelebflowError(f"There is no run {name} in {stores.describe_store()}: `celebflow runs` lists them.")
    return beginnings[0]


def _register(client: MlflowClient, run: Run, chosen_by: str) -> ModelVersion:
    classifier, backbone = (_find_file(run, name) for name in ("classifier", "backbone"))
    model_id = package_model(client, run, classifier, backbone, chosen_by)
    mlflow.set_tracking_uri(client.tracking_uri)
    registered = mlflow.register_model(f"models:/{model_id}", NAME)
    return client.update_model_version(NAME, registered.version, describe_model(run, chosen_by))


def _find_file(run: Run, name: str) -> Path:
    md5 = run.data.tags.get(f"celebflow.{name}_md5", "")
    file = find_cached_file(md5) if md5 else None
    if file is None:
        restore = run.data.tags.get("celebflow.restore", "")
        remedy = f", or make it anew with `{restore}` and `dvc repro`" if restore else ""
        raise CelebflowError(
            f"The {name} of run {run.info.run_id} is not in DVC's cache. "
            f"Fetch it with `dvc pull --all-commits`{remedy}."
        )
    return file
