"""A repository with two results that the tests of experiments share; a test that changes it takes a clone."""

import pytest

from tests.repository import Repository, make_repository_with_result


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
