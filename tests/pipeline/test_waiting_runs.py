"""Runs wait in the repository while MLflow's store cannot be reached, and are synced once."""

import time
from pathlib import Path

import pytest

from tests.repository import Repository, clone_repository

pytestmark = pytest.mark.slow

AWAY = "http://127.0.0.1:9"


@pytest.fixture
def repository(repository: Repository) -> Repository:
    """Return a repository where training does not require a store."""
    repository.edit("required: true", "required: false")
    return repository


def test_run_waits_when_its_store_is_away_and_is_synced_once(repository: Repository) -> None:
    assert "No runs wait" in repository.invoke("runs", "sync")
    repository.edit("dropout: 0.5", "dropout: 0.45")
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        output = repository.run("dvc", "repro")
        assert AWAY in output and "celebflow runs sync" in output
        assert "1 runs still wait" in repository.invoke("runs", "sync", fails=True)
    with repository.variables(MLFLOW_TRACKING_URI=f"{AWAY}?other"):
        assert "is meant for" in repository.invoke("runs", "sync", fails=True), "other options are another store"
    assert AWAY in repository.invoke("runs", "sync", fails=True), "it is meant for another store"
    waiting_id = repository.run_id()
    assert len(repository.runs()) == 1
    assert repository.invoke("runs", "sync", "--here").endswith("1 runs synced.\n")
    assert "No runs wait" in repository.invoke("runs", "sync", "--here")
    run, _ = repository.runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("dropout 0.45")
    assert run.data.params["train.dropout"] == "0.45"
    assert run.data.metrics["test/final_accuracy"] == pytest.approx(repository.read_metrics()["test"]["accuracy"])
    assert repository.list_steps(run.info.run_id, "val/loss") == [1, 2, 3]
    assert run.inputs
    assert {item.dataset.name.split(":")[0] for item in run.inputs.dataset_inputs} == {"train", "val", "test"}
    assert run.data.tags["celebflow.classifier_md5"]
    assert waiting_id not in run.data.tags["mlflow.note.content"]
    assert run.info.run_id in run.data.tags["mlflow.note.content"]
    stored = {file.path for file in repository.client.list_artifacts(run.info.run_id, "reports/figures")}
    assert stored == {str(file.relative_to(repository.folder)) for file in repository.folder.glob("reports/figures/*")}
    # Later stages continue the run that it has become, which is also the one that is listed.
    repository.run_stage("evaluate")
    assert len(repository.runs()) == 2
    workspace = repository.invoke("runs").splitlines()[1].split()
    assert (workspace[0], workspace[-1]) == ("workspace", run.info.run_id)
    # When the store is away again, the run waits again.
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        repository.run_stage("evaluate")
    assert repository.invoke("runs", "sync", "--here").endswith("1 runs synced.\n")
    again, _ = repository.runs()
    assert (again.info.run_id, again.info.run_name) == (run.info.run_id, run.info.run_name)
    assert again.info.status == "FINISHED"


def test_sync_that_failed_is_repeated_without_doubling(repository: Repository) -> None:
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        repository.run_stage("train")
    artifacts = repository.folder / "mlartifacts"
    artifacts.rename(repository.folder / "kept")
    artifacts.write_text("not a folder")  # the run is created, but its files cannot be stored
    assert "still wait" in repository.invoke("runs", "sync", "--here", fails=True)
    artifacts.unlink()
    (repository.folder / "kept").rename(artifacts)
    assert repository.invoke("runs", "sync", "--here").endswith("1 runs synced.\n")
    run, _ = repository.runs()
    assert [file.path for file in repository.client.list_artifacts(run.info.run_id)] == ["params.yaml", "reports"]


def test_waiting_run_that_was_killed_is_synced_as_killed(repository: Repository) -> None:
    repository.edit("epochs: 3", "epochs: 100000")
    before = repository.run_id()
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        process = repository.start("python", "-m", "stages.train")
        deadline = time.monotonic() + 120
        while repository.run_id() == before and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "1 runs still wait" in repository.invoke("runs", "sync", "--here", fails=True)
        process.kill()
        process.communicate()
    assert repository.invoke("runs", "sync", "--here").endswith("1 runs synced.\n")
    assert repository.runs()[0].info.status == "KILLED"


def test_two_stages_at_once_make_the_waiting_store_together(repository: Repository, tmp_path: Path) -> None:
    # As in DVC's queue, each trains in a copy of its own, and both belong to one repository.
    copies = [clone_repository(repository, tmp_path / str(number)) for number in (1, 2)]
    processes = []
    for copy in copies:
        copy.edit("dropout: 0.5", f"dropout: 0.{copy.folder.name}")
        with copy.variables(MLFLOW_TRACKING_URI=AWAY, DVC_ROOT=str(repository.folder)):
            processes.append(copy.start("python", "-m", "stages.train"))
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    assert repository.invoke("runs", "sync", "--here").endswith("2 runs synced.\n")
    assert sorted(run.data.params["train.dropout"] for run in repository.runs()[:2]) == ["0.1", "0.2"]


def test_run_continues_when_its_store_fails_midway(repository: Repository, tmp_path: Path) -> None:
    repository.edit("epochs: 3", "epochs: 100")
    store = repository.folder / "mlflow.db"
    process = repository.start_training()
    run_id = repository.run_id()
    logged_count = len(repository.list_steps(run_id, "train/loss"))
    away = store.rename(tmp_path / "away.db")
    store.mkdir()  # SQLite cannot open a folder as its database
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    repository.run_stage("evaluate")
    store.rmdir()
    away.rename(store)
    assert "celebflow runs sync" in output
    assert logged_count <= len(repository.list_steps(run_id, "train/loss")) < 100
    assert repository.invoke("runs", "sync", "--here").endswith("1 runs synced.\n")
    assert repository.list_steps(run_id, "train/loss") == list(range(1, 101))
    (run,) = [run for run in repository.runs() if run.info.run_id == run_id]
    assert run.info.status == "FINISHED"
    assert not run.info.run_name.startswith("continues")
    assert run.data.tags["mlflow.note.content"].startswith("**"), "the warning of an untrained backbone"
