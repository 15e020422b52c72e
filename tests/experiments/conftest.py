"""A repository with two results that the tests of experiments share; a test that changes it takes a clone."""

from pathlib import Path

import pytest

from tests.repository import Repository, clone_repository, make_repository_with_result


@pytest.fixture(scope="session")
def two_results(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Make a repository with a result in HEAD, and a worse one in the workspace, in the experiment faint and in MLflow.

    The last result is the worse, so that nothing finds the best by its date.
    """
    repository = make_repository_with_result(tmp_path_factory)
    repository.edit("learning_rate: 0.001", "learning_rate: 1.0e-09")
    assert repository.repro() == ["train", "evaluate", "plot"]
    repository.run("dvc", "exp", "save", "--name", "faint")
    return repository


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
