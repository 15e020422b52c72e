"""The repository with two results as the working directory of the tests of experiments."""

from pathlib import Path

import pytest

from tests.repository import Repository, clone_repository


@pytest.fixture
def clone(two_results: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Go to a copy of the repository with two results, which the test may change."""
    clone = clone_repository(two_results, tmp_path / "clone")
    enter_repository(clone, monkeypatch)
    return clone


def enter_repository(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a repository the working directory, and its own MLflow store the one that is used."""
    monkeypatch.chdir(repository.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
