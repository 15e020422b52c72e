"""Where MLflow keeps the files of runs: beside a SQLite store, also after both have moved."""

import sqlite3
from contextlib import closing
from pathlib import Path

ARTIFACTS = "mlartifacts"
_COLUMNS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)


def move_artifacts(database: Path) -> None:
    """Correct the places of artifacts in a SQLite store whose folder was moved or copied.

    MLflow keeps them as absolute addresses. They are corrected for experiments whose runs have artifacts beside the
    store; those of others were put elsewhere on purpose.
    """
    folder = (database.parent / ARTIFACTS).resolve()
    new = folder.as_uri()
    with closing(sqlite3.connect(database)) as store, store:
        for experiment, old in store.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
            if not old or old == new or not old.startswith("file:") or not old.endswith(f"/{ARTIFACTS}"):
                continue
            runs = store.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment,))
            if any((folder / run).exists() for (run,) in runs):
                _replace_places(store, old, new)


def _replace_places(store: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in _COLUMNS:
        begins = f"substr({column}, 1, ?) = ?"
        change = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {begins}"  # noqa: S608 - our own names
        store.execute(change, (new, len(old) + 1, len(old), old))
