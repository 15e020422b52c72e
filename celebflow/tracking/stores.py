"""MLflow's stores: the user's, and one in the repository for runs that wait until the user's can be reached."""

import glob
import json
import logging
import os
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from filelock import FileLock
from google.protobuf.json_format import Error as ProtobufError  # type: ignore[import-untyped]
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from celebflow import paths
from celebflow.errors import CelebflowError, defer_signals, is_of_library, raise_shortage
from celebflow.tracking.addresses import (
    describe_address,
    find_database,
    hide_secrets,
    identify_address,
    is_sqlite,
    make_sqlite_address,
    resolve_address,
)
from celebflow.tracking.artifacts import ARTIFACTS, move_artifacts

# Work with photographs of people is private, so no usage reports are sent.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class FilesError(Exception):
    """Runs' files cannot be stored or read; their place, as one on S3, need not be where the store is."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


# The errors of a store that cannot be used; requests' errors are OSErrors, a missing database driver an ImportError.
STORE_ERRORS = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ProtobufError, FilesError)
# What MLflow's pages show of an experiment: training, not language models; and the view that they call shared, at
# …/runs?viewStateShareKey=celebflow, with the columns that compare runs.
_COLUMNS = ("metrics.`val/final_accuracy`", "metrics.`val/final_macro_auc`", "metrics.`test/final_accuracy`")
_VIEW = {
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "searchFilter": "",
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "datasetsFilter": [],
    "selectedColumns": _COLUMNS,
}
_PAGE_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.sharedViewState.celebflow": json.dumps(_VIEW, allow_nan=False),
}
# Variables with addresses that may hold secrets.
_ADDRESS_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
_CONNECT_SECONDS = 10
_MOMENT_SECONDS = 2
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
# The options that limit how long the drivers of databases try to connect.
_CONNECT_OPTIONS: dict[str, tuple[str, ...]] = {
    "sqlite": (),
    "postgresql": ("connect_timeout",),
    "mysql": ("connect_timeout",),
    "mssql": ("timeout",),
}
# Tags: the run, perhaps in another store, that a run continues;
CONTINUES = "celebflow.continues"
# the store that a waiting run was meant for, and the id that the run has there after a sync.
MEANT_FOR = "celebflow.meant_for"
SYNCED_AS = "celebflow.synced_as"


def store_uri() -> str:
    """Return the address of the user's store: MLFLOW_TRACKING_URI, or else mlflow.db in the project.

    A relative path is one from the project's folder, also in the temporary copies in which DVC runs experiments.

    Raises CelebflowError when MLFLOW_TRACKING_URI is not a valid address.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return resolve_address(address, paths.project()) if address else make_sqlite_address(_own_database())


def describe_store() -> str:
    """Return the address of the user's store without what may be secret in it."""
    return describe_address(store_uri())


def identify_store() -> str:
    """Return what tells the user's store from others, without what may be secret."""
    return identify_address(store_uri())


def store_exists() -> bool:
    """Return whether the user's store exists; MLflow would create a missing database file."""
    database = find_database(store_uri())
    return database is None or database.exists()


def open_store() -> MlflowClient:
    """Open the user's store; raise one of STORE_ERRORS when it cannot be used."""
    return _open(store_uri())


def require_registry() -> None:
    """See that the registry of models can be used, where MLFLOW_REGISTRY_URI names another place than the store.

    Raises CelebflowError when it is not a valid address, or cannot be used.
    """
    address = os.environ.get("MLFLOW_REGISTRY_URI", "").strip()
    if not address:
        return
    uri = resolve_address(address, paths.project(), "MLFLOW_REGISTRY_URI")
    try:
        with announce_waiting(uri), short_timeouts():
            _check_connection(uri, "MLFLOW_REGISTRY_URI")
            MlflowClient(store_uri(), uri).search_registered_models(max_results=1)
    except STORE_ERRORS as error:
        raise CelebflowError(
            f"MLflow's registry of models {describe_address(uri)} cannot be used: {_first_line(error)}. "
            "Check MLFLOW_REGISTRY_URI, or unset it to register models where runs are."
        ) from None


def open_waiting_store() -> MlflowClient:
    """Open the store of the waiting runs; create it if necessary.

    Raises CelebflowError when it cannot be read.
    """
    paths.waiting_runs().mkdir(parents=True, exist_ok=True)
    try:
        return _open(_waiting_uri())
    except STORE_ERRORS as error:
        raise_shortage(error, _waiting_database())
        raise CelebflowError(
            f"The MLflow runs that wait in {paths.waiting_runs()} cannot be read ({_first_line(error)}). "
            f"Try `mlflow db upgrade {_waiting_uri()}`, or move that folder away."
        ) from None


def _open(uri: str) -> MlflowClient:
    if describe_address(uri) != uri:  # at a run's end, MLflow would print its page's address with the secrets
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    with announce_waiting(uri):
        _check_connection(uri)
        database = find_database(uri)
        if database is None:
            return MlflowClient(uri)
        # MLflow creates the tables of a new file, and two pipelines must not do that at once.
        paths.own_folder().mkdir(exist_ok=True)
        with FileLock(paths.own_folder() / "stores.lock"):
            if not database.exists() or not database.stat().st_size:
                _make_database(database)
            client = MlflowClient(uri)
            if database in (_own_database(), _waiting_database()):
                move_artifacts(database)
            return client


def _make_database(file: Path) -> None:
    """Let MLflow make the tables of a new database, all or none: it cannot go on with some of them.

    Raises one of STORE_ERRORS.
    """
    part = file.with_name(f"{file.name}.{uuid4().hex}.part")  # MLflow never opens two databases of one name anew
    try:
        MlflowClient(make_sqlite_address(part))
        part.replace(file)
    finally:
        for leftover in file.parent.glob(f"{glob.escape(file.name)}.*.part*"):  # also of processes that were killed
            leftover.unlink(missing_ok=True)


def _check_connection(uri: str, variable: str = "MLFLOW_TRACKING_URI") -> None:
    """Connect once, within seconds; MLflow would try for minutes before it says that it cannot.

    Raises one of STORE_ERRORS.
    """
    database = find_database(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    parts = urlsplit(uri)
    kind = parts.scheme.partition("+")[0]
    if parts.hostname and kind in _PORTS:
        socket.create_connection((parts.hostname, parts.port or _PORTS[kind]), timeout=_CONNECT_SECONDS).close()
    if kind not in _CONNECT_OPTIONS:
        return
    options = dict.fromkeys(_CONNECT_OPTIONS[kind], _CONNECT_SECONDS)
    try:
        engine = create_engine(uri, connect_args=options)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except (ValueError, TypeError) as error:  # an option in the address has a value of another kind
        raise CelebflowError(
            f"{variable} is {describe_address(uri)}, whose options cannot be used ({_first_line(error)}). "
            "Correct what stands after ?."
        ) from None


@contextmanager
def announce_waiting(uri: str) -> Iterator[None]:
    """Say what is being waited for when it takes more than a moment."""
    message = f"Waiting for MLflow's store {describe_address(uri)} …"
    timer = Timer(_MOMENT_SECONDS, print, [message], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _own_database() -> Path:
    return paths.project() / "mlflow.db"


def is_waiting_store(client: MlflowClient) -> bool:
    """Return whether a client belongs to the waiting runs' store."""
    return str(client.tracking_uri) == _waiting_uri()


def _waiting_uri() -> str:
    return make_sqlite_address(_waiting_database())


def _waiting_database() -> Path:
    return paths.waiting_runs() / "mlflow.db"


def finish_actions(client: MlflowClient) -> AbstractContextManager[None]:
    """Let Ctrl-C and SIGTERM wait for the actions of a `with` block, if the client's store is a SQLite database.

    An exception amid a statement could leave the database locked, so that nothing could end the run. Other stores may
    take long, and are not locked by it.
    """
    return defer_signals() if is_sqlite(str(client.tracking_uri)) else nullcontext()


def lock_waiting_runs() -> AbstractContextManager[object]:
    """Keep a sync away from a run that a stage is about to continue, and from another sync."""
    return FileLock(paths.waiting_runs() / "runs.lock") if _waiting_database().exists() else nullcontext()


@contextmanager
def short_timeouts() -> Iterator[None]:
    """Wait for a server for seconds, where MLflow would wait for minutes, unless the user has set the timeouts.

    Without retries, a slow server does not create a run twice.
    """
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
    ours = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


@contextmanager
def translate_files_errors() -> Iterator[None]:
    """Raise FilesError for what the library of a place of files raises within a `with` block.

    Each kind of place has a library with exceptions of its own, as boto3 is for S3.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("boto3", "botocore"):
            raise
        raise FilesError("they are on S3, and boto3 is not installed", "Run `pip install 'celebflow[s3]'`.") from None
    except (*STORE_ERRORS, CelebflowError):
        raise
    except Exception as error:
        if not is_of_library(error):
            raise
        raise FilesError(
            str(error),
            "See that their place can be reached, and that the credentials for it are set; or set tracking.experiment "
            "to another name.",
        ) from None


def describe_failure(error: Exception) -> str:
    """Return a sentence's beginning: the user's store, or the place of its files, cannot be used, and why."""
    reason = _first_line(error)
    if isinstance(error, FilesError):
        return f"The files of runs in MLflow's store {describe_store()} cannot be stored or read: {reason}"
    if isinstance(error, OSError) and error.filename is not None:
        reason = f"{_hide(str(error.filename))}: {error.strerror}"
    return f"MLflow's store {describe_store()} cannot be used: {reason}"


def advise_on_failure(error: Exception) -> str:
    """Return what to do about a store, or a file that an action needs, that cannot be used."""
    if "database is locked" in str(error):
        return "Another program writes to it: wait until that has ended, or end it."
    if "database schema" in str(error):
        return (
            "Another version of MLflow made it. To keep its runs, copy it and run "
            f"`mlflow db upgrade {describe_store()}`; if a newer version made it, install that."
        )
    if isinstance(error, FilesError):
        return error.remedy
    if os.environ.get("MLFLOW_TRACKING_URI", "").strip():
        return "Check MLFLOW_TRACKING_URI, or unset it to log to mlflow.db in the repository."
    if isinstance(error, OSError) and error.filename is not None:
        return "Check that path."  # the database may be whole
    if isinstance(error, OSError):  # of the network, which a file is not in
        return (
            "The experiment's files are kept elsewhere than in the repository: see that their place can be reached, "
            "or set tracking.experiment to another name."
        )
    return f"Move {_own_database()} away to begin a new one, or restore it from a copy."


def _first_line(error: Exception) -> str:
    return _hide(str(error).split("\n")[0])


def _hide(text: str) -> str:
    for variable in _ADDRESS_VARIABLES:
        text = hide_secrets(text, os.environ.get(variable, ""))
    return text


class _SecretsFilter(logging.Filter):
    """Hides the secrets of the store's address in what MLflow logs, and its tracebacks, which may hold them, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = record.stack_info = None
        text = record.getMessage()
        hidden = _hide(text)
        if hidden != text:
            record.msg, record.args = hidden, ()
        return True


for handler in logging.getLogger("mlflow").handlers:
    handler.addFilter(_SecretsFilter())


def select_experiment(client: MlflowClient, name: str) -> str:
    """Return an experiment's id; create the experiment if necessary.

    Raises CelebflowError when it has been deleted, or does not keep its files where the store is.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, _choose_artifact_location(client), _PAGE_TAGS))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            return select_experiment(client, name)  # another pipeline has just created it
    if experiment.lifecycle_stage != "active":
        raise CelebflowError(
            f"The MLflow experiment {name} is deleted: run `mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}`, or set tracking.experiment to another name."
        )
    if experiment.experiment_id == "0" and _choose_artifact_location(client) is not None:
        raise CelebflowError(
            f"tracking.experiment is {name}, which MLflow itself makes, with its files in the folder where it was "
            "started. Choose another name."
        )
    for tag in _PAGE_TAGS.keys() - experiment.tags.keys():  # an older celebflow made the experiment
        client.set_experiment_tag(experiment.experiment_id, tag, _PAGE_TAGS[tag])
    return str(experiment.experiment_id)


def _choose_artifact_location(client: MlflowClient) -> str | None:
    """Return where an experiment's artifacts go; None leaves it to the server.

    For a local store, MLflow would choose the working directory, which may be a temporary copy that DVC made.
    """
    if is_waiting_store(client):
        return (paths.waiting_runs() / ARTIFACTS).resolve().as_uri()
    return (paths.project() / ARTIFACTS).resolve().as_uri() if is_sqlite(str(client.tracking_uri)) else None


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run with this id, or None when the store lacks it or it is deleted."""
    return next(list_runs(client, f"attributes.run_id = '{run_id}'"), None)


def find_continuation(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run that continues a run of another store, or None."""
    return next(list_runs(client, f"tags.`{CONTINUES}` = '{run_id}'"), None)


def list_runs(client: MlflowClient, filter_string: str = "") -> Iterator[Run]:
    """Yield the runs of all experiments, the newest first."""
    experiments = _iterate_pages(lambda token: client.search_experiments(page_token=token))
    experiment_ids = [experiment.experiment_id for experiment in experiments]
    if experiment_ids:
        yield from _iterate_pages(lambda token: client.search_runs(experiment_ids, filter_string, page_token=token))


def _iterate_pages(fetch: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while True:
        page = fetch(token)
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
    """Return the id that a run has in the user's store, and the waiting run that continues it, or None.

    A run that is not in the user's store yet has the waiting run's own id.
    """
    for run in _list_all_waiting_runs() if run_id else []:  # the oldest first: a later one may continue it again
        if run_id in (run.info.run_id, run.data.tags.get(CONTINUES)):
            if SYNCED_AS not in run.data.tags:
                return run_id, run
            run_id = run.data.tags[SYNCED_AS]
    return run_id, None
