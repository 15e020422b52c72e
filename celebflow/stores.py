"""MLflow's stores: the user's own, and one in the repository for runs that wait until the user's can be reached."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Who works on photographs of people, or without a network, wants no usage reports sent.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from celebflow import paths
from celebflow.errors import CelebflowError

# What a store raises that cannot be used; requests' errors are OSErrors.
STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
# The run, perhaps of a store elsewhere, that a run is the continuation of.
CONTINUES = "celebflow.continues"
# The run in the user's store that a waiting run has become.
SYNCED_AS = "celebflow.synced_as"


def store_uri() -> str:
    """Return the address of the user's store: what MLFLOW_TRACKING_URI says, else mlflow.db in the repository.

    The repository is the user's also in a temporary copy of DVC's.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.repository() / 'mlflow.db'}"


def open_store() -> MlflowClient:
    """Open the user's store; raise one of STORE_ERRORS where it cannot be."""
    return MlflowClient(store_uri())


def open_waiting_store() -> MlflowClient:
    """Open the store of the waiting runs, which is made if need be."""
    _waiting_database().parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(f"sqlite:///{_waiting_database()}")


def is_waiting_store(client: MlflowClient) -> bool:
    """Tell whether a client is of the waiting runs' store."""
    return str(client.tracking_uri) == f"sqlite:///{_waiting_database()}"


def _waiting_database() -> Path:
    return paths.waiting_runs() / "mlflow.db"


@contextmanager
def little_patience() -> Iterator[None]:
    """Give a server seconds to answer, where MLflow would try for minutes, unless the user has set how long."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    ours = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def describe_failure(error: Exception) -> str:
    """Say of the user's store that it cannot be used, and why."""
    reason = str(error).split("\n")[0]
    return f"MLflow's store {store_uri()} cannot be used: {reason}"


def select_experiment(client: MlflowClient, name: str) -> str:
    """Return an experiment's id; it is made where it does not exist.

    Raises CelebflowError when it is deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage != "active":
            raise CelebflowError(
                f"The MLflow experiment {name} is deleted: run `mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}`, or set tracking.experiment to another name."
            )
        return str(experiment.experiment_id)
    try:
        # The kind says training, not language models; MLflow 3.17 opens a run's own link under GenAI all the same.
        return str(
            client.create_experiment(
                name, _choose_artifact_location(client), {"mlflow.experimentKind": "custom_model_development"}
            )
        )
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        return select_experiment(client, name)  # another pipeline was quicker


def _choose_artifact_location(client: MlflowClient) -> str | None:
    """Return where artefacts go; None leaves it to a server, which knows.

    In a local store, MLflow would take the working directory, which may be a temporary copy of DVC's.
    """
    if is_waiting_store(client):
        return (paths.waiting_runs() / "mlartifacts").resolve().as_uri()
    local = str(client.tracking_uri).startswith("sqlite:")
    return (paths.repository() / "mlartifacts").resolve().as_uri() if local else None


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run that is not deleted, or None when the store has none of this id."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def find_continuation(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run that continues one of another store."""
    for run in list_runs(client, f"tags.`{CONTINUES}` = '{run_id}'"):
        return run
    return None


def list_runs(client: MlflowClient, filter_string: str = "") -> Iterator[Run]:
    """Yield the runs of all experiments, the newest first."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    token = None
    while experiments:
        page = client.search_runs(experiments, filter_string, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def list_waiting_runs() -> list[Run]:
    """Return the runs that wait to be synced, the oldest first."""
    if not _waiting_database().exists():
        return []
    return [run for run in list_runs(open_waiting_store()) if SYNCED_AS not in run.data.tags][::-1]


def find_waiting_run(run_id: str) -> Run | None:
    """Return the waiting run that has this id or continues it, synced or not."""
    if not _waiting_database().exists():
        return None
    client = open_waiting_store()
    return find_run(client, run_id) or find_continuation(client, run_id)


def resolve_run_id(run_id: str) -> str:
    """Return the id that a run has in the user's store, where it waited and was synced; else its own."""
    run = find_waiting_run(run_id)
    return str(run.data.tags.get(SYNCED_AS, run_id)) if run else run_id
