"""Errors of a store say what cannot be used, and no remedy would lose runs that are whole."""

import sqlite3
from pathlib import Path

import pytest

from celebflow.tracking import stores


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder whose store is its own."""
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
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
