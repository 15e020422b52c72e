"""MLflow's stores: the user's own, and one in the repository for runs that wait until the user's can be reached."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from celebflow import paths
from celebflow.errors import CelebflowError

# Who works on photographs of people, or without a network, wants no usage reports sent.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# What a store raises that cannot be used; requests' errors are OSErrors, a database's missing driver an ImportError.
STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError, ImportError)
# The run, perhaps of a store elsewhere, that a run is the continuation of.
CONTINUES = "celebflow.continues"
# The store that a waiting run was meant for, and the run there that it has become.
MEANT_FOR = "celebflow.meant_for"
SYNCED_AS = "celebflow.synced_as"


def store_uri() -> str:
    """Return the address of the user's store: what MLFLOW_TRACKING_URI says, else mlflow.db in the repository.

    The repository is the user's also in a temporary copy of DVC's.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.repository() / 'mlflow.db'}"


def describe_store() -> str:
    """Return the address of the user's store without the password that may stand in it."""
    return re.sub("//[^/@]*@", "//…@", store_uri())


def store_exists() -> bool:
    """Tell whether there is a store to ask; MLflow would make one of a database file that is not there."""
    kind, _, file = store_uri().partition(":///")
    return kind != "sqlite" or Path(file).exists()


def open_store() -> MlflowClient:
    """Open the user's store; raise one of STORE_ERRORS where it cannot be."""
    return _open(store_uri())


def open_waiting_store() -> MlflowClient:
    """Open the store of the waiting runs, which is made if need be."""
    paths.waiting_runs().mkdir(parents=True, exist_ok=True)
    try:
        return _open(_waiting_uri())
    except STORE_ERRORS as error:
        raise CelebflowError(
            f"The MLflow runs that wait in {paths.waiting_runs()} cannot be read ({_first_line(error)}). "
            f"Try `mlflow db upgrade {_waiting_uri()}`, or move that folder away."
        ) from None


def _open(uri: str) -> MlflowClient:
    if not uri.startswith("sqlite:"):
        return MlflowClient(uri)
    # MLflow makes the tables of a new file, for which two pipelines must not meet.
    paths.own_folder().mkdir(exist_ok=True)
    with FileLock(paths.own_folder() / "stores.lock"):
        return MlflowClient(uri)


def is_waiting_store(client: MlflowClient) -> bool:
    """Tell whether a client is of the waiting runs' store."""
    return str(client.tracking_uri) == _waiting_uri()


def _waiting_uri() -> str:
    return f"sqlite:///{_waiting_database()}"


def _waiting_database() -> Path:
    return paths.waiting_runs() / "mlflow.db"


@contextmanager
def lock_waiting_runs() -> Iterator[None]:
    """Keep a sync from taking a run that a stage is about to go on with, and two syncs apart."""
    if not _waiting_database().exists():
        yield
        return
    with FileLock(paths.waiting_runs() / "runs.lock"):
        yield


@contextmanager
def little_patience() -> Iterator[None]:
    """Give a server seconds to answer, where MLflow would try for minutes, unless the user has set how long.

    Asked once, a slow server does not make two runs where one was asked for.
    """
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
    ours = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def describe_failure(error: Exception) -> str:
    """Say of the user's store that it cannot be used, and why."""
    return f"MLflow's store {describe_store()} cannot be used: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


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
    """Return where artifacts go; None leaves it to a server, which knows.

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
    experiments = [
        experiment.experiment_id
        for experiment in _turn_pages(lambda token: client.search_experiments(page_token=token))
    ]
    if experiments:
        yield from _turn_pages(lambda token: client.search_runs(experiments, filter_string, page_token=token))


def _turn_pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def list_waiting_runs() -> list[Run]:
    """Return the runs that wait to be synced, the oldest first."""
    return [run for run in _list_all_waiting_runs() if SYNCED_AS not in run.data.tags]


def _list_all_waiting_runs() -> list[Run]:
    return list(list_runs(open_waiting_store()))[::-1] if _waiting_database().exists() else []


def follow_run(run_id: str) -> tuple[str, Run | None]:
    """Return the id that a run has in the user's store, and the waiting run that goes on from it, if there is one.

    The id is the waiting run's own when it has been in no other store.
    """
    waiting = _list_all_waiting_runs() if run_id else []
    passed: set[str] = set()
    while run_id not in passed:
        passed.add(run_id)
        later = [run for run in waiting if run_id in (run.info.run_id, run.data.tags.get(CONTINUES))]
        for run in later:
            if SYNCED_AS not in run.data.tags:
                return run_id, run
            run_id = run.data.tags[SYNCED_AS]
    return run_id, None
