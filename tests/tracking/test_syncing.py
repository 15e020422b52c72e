"""Runs that waited are in the user's store as they would be if it had been there."""

import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from celebflow import paths
from celebflow.params import load_params
from celebflow.tracking import stores
from celebflow.tracking.mlflow_runs import open_parent_run
from celebflow.tracking.syncing import sync_runs
from tests import COMMITTED_PARAMS

# MLflow takes seconds to make the tables of a store.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a git repository with params, where training does not require a store."""
    for name in ("DVC_EXP_NAME", "DVC_ROOT", "GIT_DIR", "GIT_WORK_TREE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(COMMITTED_PARAMS.replace("required: true", "required: false"))
    subprocess.run(["git", "init", "--quiet"], check=True)
    return tmp_path


@pytest.mark.parametrize("parent_is_running", [False, True])
def test_runs_that_waited_with_their_search_are_nested_under_it(parent_is_running: bool) -> None:
    waiting = stores.open_waiting_store()
    experiment = stores.select_experiment(waiting, "celebflow")
    search = waiting.create_run(experiment, run_name="search").info.run_id
    trial = waiting.create_run(experiment, run_name="trial", tags={MLFLOW_PARENT_RUN_ID: search}).info.run_id
    waiting.set_terminated(trial)
    if not parent_is_running:
        waiting.set_terminated(search)
    list(sync_runs(here=True))
    waiting.set_terminated(search)
    list(sync_runs(here=True))
    ids = {run.info.run_name: run for run in stores.list_runs(stores.open_store())}
    assert ids["trial"].data.tags[MLFLOW_PARENT_RUN_ID] == ids["search"].info.run_id


def _log_folds(*names: str) -> None:
    with open_parent_run(load_params(paths.PARAMS), "wide", "") as run:
        run.log_folds({name: {"accuracy": 0.5} for name in names})


def test_the_folds_of_a_cross_validation_that_waited_are_synced_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    _log_folds("fold 1", "fold 2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:8")
    assert {outcome.reason.split(":")[0] for outcome in sync_runs(here=False)} == {"is meant for http"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert {"cannot be used" in outcome.reason for outcome in sync_runs(here=False)} == {True}


@pytest.mark.parametrize("here", [False, True], ids=["the same store", "another store"])
def test_a_cross_validation_whose_store_fails_midway_is_synced_whole_and_under_its_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    create_run = MlflowClient.create_run

    def fail(client: MlflowClient, *arguments: object, **options: object) -> object:
        if options.get("run_name") == "fold 2" and not stores.is_waiting_store(client):
            raise OSError("the disk of the store")
        return create_run(client, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as context:
        context.setattr(MlflowClient, "create_run", fail)
        _log_folds("fold 1", "fold 2", "fold 3")
    if here:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/other.db")
    outcomes = list(sync_runs(here))
    assert [(outcome.name, outcome.reason) for outcome in outcomes] == [("wide", ""), ("fold 2", ""), ("fold 3", "")]
    parent, *folds = sorted(stores.list_runs(stores.open_store()), key=lambda run: run.info.run_name != "wide")
    assert parent.info.run_name == "wide"
    assert sorted(run.info.run_name for run in folds) == (
        ["fold 2", "fold 3"] if here else ["fold 1", "fold 2", "fold 3"]
    )
    assert {run.data.tags[MLFLOW_PARENT_RUN_ID] for run in folds} == {parent.info.run_id}
