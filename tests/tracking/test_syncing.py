"""Runs that waited are in the user's store as they would be if it had been there."""

from pathlib import Path

import pytest
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from celebflow.tracking import stores
from celebflow.tracking.syncing import sync_runs

# MLflow takes seconds to make the tables of a store.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("parent_is_running", [False, True])
def test_runs_that_waited_with_their_search_are_nested_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent_is_running: bool
) -> None:
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
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
