"""MLflow runs that wait in the repository → the user's store."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.tracking import stores
from celebflow.tracking.processes import PROCESS_TAG, may_be_running

_METRICS_PER_CALL = 1000  # MLflow's maximum
_FINAL = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a sync for one run: its id in the user's store, or the reason why it still waits."""

    name: str
    run_id: str = ""
    reason: str = ""


def sync_runs(here: bool) -> Iterator[Outcome]:
    """Log every waiting run to the user's store, the oldest first, and yield the outcomes.

    Runs that are still running keep waiting and, unless `here` is true, runs that were meant for another store. An
    interrupted sync can be repeated: nothing is logged twice.
    """
    for run in stores.list_waiting_runs():
        with stores.lock_waiting_runs():
            yield _try_to_sync(run.info.run_id, here)


def _try_to_sync(run_id: str, here: bool) -> Outcome:
    waiting = stores.open_waiting_store()
    run = waiting.get_run(run_id)  # as it is under the lock
    name = run.info.run_name
    meant_for = _find_destination(waiting, run)
    if stores.SYNCED_AS in run.data.tags:
        return Outcome(name, run.data.tags[stores.SYNCED_AS])
    if run.info.status not in _FINAL and may_be_running(run.data.tags.get(PROCESS_TAG, "")):
        return Outcome(name, reason="is still running")
    if meant_for != stores.identify_store() and not here:
        return Outcome(name, reason=f"is meant for {meant_for}: set MLFLOW_TRACKING_URI to it, or pass --here")
    try:
        return Outcome(name, _sync(waiting, stores.open_store(), run))
    except stores.STORE_ERRORS as error:
        return Outcome(name, reason=stores.describe_failure(error))
    except CelebflowError as error:
        return Outcome(name, reason=str(error))


def _find_destination(waiting: MlflowClient, run: Run) -> str | None:
    """Return the store that a waiting run was meant for; the runs of folds are meant for that of the one above them."""
    parent_id = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
    parent = stores.find_run(waiting, parent_id) if parent_id and stores.MEANT_FOR not in run.data.tags else None
    return (parent or run).data.tags.get(stores.MEANT_FOR)


def _sync(waiting: MlflowClient, client: MlflowClient, run: Run) -> str:
    run_id = run.info.run_id
    with stores.short_timeouts():
        target = _find_or_create_target(waiting, client, run)
    _copy_values(waiting, client, run, target)
    # MLflow stores an absolute address, but the repository may have been moved since.
    artifacts = paths.waiting_runs() / "mlartifacts" / run_id / "artifacts"
    if artifacts.exists():
        with stores.translate_files_errors():
            client.log_artifacts(target, str(artifacts))
    client.set_terminated(target, run.info.status if run.info.status in _FINAL else "KILLED", run.info.end_time)
    waiting.set_tag(run_id, stores.SYNCED_AS, target)
    shutil.rmtree(artifacts, ignore_errors=True)
    return target


def _find_or_create_target(waiting: MlflowClient, client: MlflowClient, run: Run) -> str:
    """Return the id of the run that a waiting run continues, that an earlier sync began, or that is new."""
    origin = run.data.tags.get(stores.CONTINUES, run.info.run_id)
    found = stores.find_run(client, origin) or stores.find_continuation(client, origin)
    if found is not None:
        return str(found.info.run_id)
    experiment_id = stores.select_experiment(client, waiting.get_experiment(run.info.experiment_id).name)
    created = client.create_run(experiment_id, run.info.start_time, {stores.CONTINUES: origin}, run.info.run_name)
    return str(created.info.run_id)


def _copy_values(waiting: MlflowClient, client: MlflowClient, run: Run, target: str) -> None:
    run_id = run.info.run_id
    logged_params = client.get_run(target).data.params
    params = [Param(name, value) for name, value in run.data.params.items() if name not in logged_params]
    client.log_batch(target, params=params)
    metrics = [metric for name in run.data.metrics for metric in waiting.get_metric_history(run_id, name)]
    for start in range(0, len(metrics), _METRICS_PER_CALL):
        client.log_batch(target, metrics[start : start + _METRICS_PER_CALL])
    left_out = {stores.CONTINUES, stores.MEANT_FOR, "mlflow.runName"}  # a run that is continued keeps its own name
    tags = {name: value for name, value in run.data.tags.items() if name not in left_out}
    if parent := tags.get(MLFLOW_PARENT_RUN_ID):  # which may have waited, too
        tags[MLFLOW_PARENT_RUN_ID], _ = stores.follow_run(parent)
    # Descriptions link to pictures by the run's id.
    entities = [RunTag(name, value.replace(run_id, target)) for name, value in tags.items()]
    client.log_batch(target, tags=entities)
    for nested in stores.list_runs(client, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'"):  # they were synced before
        client.set_tag(nested.info.run_id, MLFLOW_PARENT_RUN_ID, target)
    if run.inputs is not None and run.inputs.dataset_inputs:
        client.log_inputs(target, run.inputs.dataset_inputs)
