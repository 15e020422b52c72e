"""Errors of a store say what cannot be used, and no remedy would lose runs that are whole."""

import logging
import sqlite3
import sys
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from celebflow.errors import CelebflowError
from celebflow.tracking import stores

SECRET = "S3cretWord"  # noqa: S105 - it is none


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder whose store is its own."""
    for name in ("DVC_ROOT", "MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _open_database(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=0, isolation_level=None)


def _advise(error: Exception) -> str:
    return f"{stores.describe_failure(error)}. {stores.advise_on_failure(error)}"


def test_a_file_that_cannot_be_used_is_named_and_the_database_stays(project: Path) -> None:
    (project / "mlartifacts").touch()
    with pytest.raises(NotADirectoryError) as caught:
        (project / "mlartifacts" / "run").mkdir()
    message = _advise(caught.value)
    for part in (f"{project / 'mlartifacts'}", "Not a directory", "that path"):
        assert part in message
    assert "away" not in message


def test_a_database_that_another_program_writes_to_stays(project: Path) -> None:
    other, own = (_open_database(project / "mlflow.db") for _ in range(2))
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError) as caught:
        own.execute("CREATE TABLE runs (id)")
    message = _advise(caught.value)
    other.close()
    own.close()
    for part in (f"{project / 'mlflow.db'}", "locked", "Another program", "wait"):
        assert part in message
    assert "away" not in message


def test_a_database_that_is_none_may_be_moved_away(project: Path) -> None:
    (project / "mlflow.db").write_text("not a database, but longer than its header would be " * 3)
    database = _open_database(project / "mlflow.db")
    with pytest.raises(sqlite3.DatabaseError) as caught:
        database.execute("CREATE TABLE runs (id)")
    database.close()
    assert f"Move {project / 'mlflow.db'} away" in _advise(caught.value)


@pytest.mark.parametrize(
    "text", ["Detected out-of-date database schema (found version a, but expected b).", "No such database schema"]
)
def test_a_database_of_another_version_of_mlflow_stays(project: Path, text: str) -> None:
    message = _advise(MlflowException(text))
    assert f"mlflow db upgrade sqlite:///{project / 'mlflow.db'}" in message
    assert "away" not in message


def test_what_mlflow_logs_has_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.getLogger("mlflow").handlers[0]
    try:
        raise ValueError("no such column")
    except ValueError:
        record = logging.LogRecord("mlflow.store", logging.ERROR, "", 0, "An error", None, sys.exc_info())
    assert handler.filter(record)
    assert handler.format(record).endswith("An error")


@pytest.mark.parametrize(
    "address",
    [
        f"http://ann:{SECRET}@127.0.0.1:9/registry",
        f"http://127.0.0.1:9/?token={SECRET}",
        f"postgresql://ann:{SECRET}@127.0.0.1:9/registry",
        f"other://ann:{SECRET}@models",
        f"http:/ann:{SECRET}@127.0.0.1:9",
    ],
)
def test_a_registry_that_cannot_be_used_is_named_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", address)
    with pytest.raises(CelebflowError, match="MLFLOW_REGISTRY_URI") as caught:
        stores.require_registry()
    assert "away" not in str(caught.value)
    assert SECRET not in str(caught.value) + capsys.readouterr().err


def test_errors_of_the_store_hide_the_registry_s_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://ann:{SECRET}@127.0.0.1:9/registry"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", address)
    assert SECRET not in _advise(MlflowException(f"API request to {address} failed"))


def test_a_full_disk_is_no_reason_to_upgrade_the_store_of_waiting_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> None:
        raise MlflowException("(sqlite3.OperationalError) database or disk is full")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores, "_open", refuse)
    with pytest.raises(CelebflowError, match=r"mlflow\.db cannot be written.*Free some space"):
        stores.open_waiting_store()


def test_a_database_that_could_not_be_made_is_made_whole_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make = SqlAlchemyStore.__init__

    def fail(self: SqlAlchemyStore, db_uri: str, default_artifact_root: str) -> None:
        make(self, db_uri, default_artifact_root)  # type: ignore[no-untyped-call]
        with self.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE spans")
        raise MlflowException("(sqlite3.OperationalError) database or disk is full")

    monkeypatch.setattr(SqlAlchemyStore, "__init__", fail)
    with pytest.raises(MlflowException, match="disk is full"):
        stores.open_store()
    monkeypatch.setattr(SqlAlchemyStore, "__init__", make)
    assert stores.open_store().search_experiments()
    assert not list(tmp_path.glob("*.part"))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT name FROM sqlite_master WHERE name = 'spans'").fetchone()


def test_a_place_of_files_that_cannot_be_reached_is_no_fault_of_the_database(project: Path) -> None:
    advice = _advise(ConnectionRefusedError(111, "Connection refused"))
    assert "reached" in advice and "tracking.experiment" in advice
    assert "away" not in advice
