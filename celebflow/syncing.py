"""The MLflow runs that wait in the repository → the user's store."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Param, Run, RunTag

from celebflow import paths, stores
from celebflow.errors import CelebflowError
from celebflow.tracking import may_be_running

_METRICS_A_CALL = 1000  # as many as MLflow takes
_FINAL = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class SyncedRun:
    """A run that waited, and what it has become in the user's store."""

    name: str
    run_id: str


def sync_runs() -> Iterator[SyncedRun]:
    """Log every waiting run to the user's store, the oldest first, and yield it; those still at work are left out.

    A sync that was interrupted can be repeated: nothing is logged twice.

    Raises CelebflowError when that store cannot be used.
    """
    waiting = stores.open_waiting_store()
    try:
        client = stores.open_store()
        for run in stores.list_waiting_runs():
            if run.info.status in _FINAL or not may_be_running(run):
                yield SyncedRun(run.info.run_name, _sync(waiting, client, run))
    except stores.STORE_ERRORS as error:
        raise CelebflowError(
            f"{stores.describe_failure(error)}. What is not synced still waits in {paths.waiting_runs()}."
        ) from None


def _sync(waiting: MlflowClient, client: MlflowClient, run: Run) -> str:
    with stores.little_patience():
        target = _find_or_create_target(waiting, client, run)
    _copy_values(waiting, client, run, target)
    stored = Path(download_artifacts(run_id=run.info.run_id, tracking_uri=waiting.tracking_uri))
    client.log_artifacts(target, str(stored))
    client.set_terminated(target, run.info.status if run.info.status in _FINAL else "KILLED", run.info.end_time)
    waiting.set_tag(run.info.run_id, stores.SYNCED_AS, target)
    shutil.rmtree(stored, ignore_errors=True)
    return target


def _find_or_create_target(waiting: MlflowClient, client: MlflowClient, run: Run) -> str:
    """Return the run that a waiting one continues, or what an earlier sync began, or a new one."""
    origin = run.data.tags.get(stores.CONTINUES, run.info.run_id)
    known = stores.find_run(client, origin) or stores.find_continuation(client, origin)
    if known is not None:
        return str(known.info.run_id)
    experiment = waiting.get_experiment(run.info.experiment_id).name
    created = client.create_run(
        stores.select_experiment(client, experiment),
        start_time=run.info.start_time,
        run_name=run.info.run_name,
        tags={stores.CONTINUES: origin},
    )
    return str(created.info.run_id)


def _copy_values(waiting: MlflowClient, client: MlflowClient, run: Run, target: str) -> None:
    run_id = run.info.run_id
    client.log_batch(target, params=[Param(name, value) for name, value in run.data.params.items()])
    metrics = [metric for name in run.data.metrics for metric in waiting.get_metric_history(run_id, name)]
    for start in range(0, len(metrics), _METRICS_A_CALL):
        client.log_batch(target, metrics[start : start + _METRICS_A_CALL])
    # A description links to pictures by the run's id; the name of a run that continues another is no name.
    tags = {name: value.replace(run_id, target) for name, value in run.data.tags.items()}
    if stores.CONTINUES in tags:
        tags.pop("mlflow.runName", None)
        tags.pop(stores.CONTINUES)
    client.log_batch(target, tags=[RunTag(name, value) for name, value in tags.items()])
    if run.inputs is not None and run.inputs.dataset_inputs:
        client.log_inputs(target, run.inputs.dataset_inputs)
