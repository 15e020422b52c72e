"""The files of runs stay with a store that was moved or copied."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from celebflow.errors import CelebflowError
from celebflow.tracking import stores

pytestmark = pytest.mark.slow  # MLflow takes seconds to make a database


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with one run and one artifact in its own store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    folder = tmp_path / "before"
    folder.mkdir()
    monkeypatch.chdir(folder)
    _log(stores.open_store(), "one")
    return folder


def _log(client: MlflowClient, text: str) -> None:
    run = client.create_run(stores.select_experiment(client, "faces"))
    client.log_text(run.info.run_id, text, "note.txt")


def _read(client: MlflowClient, folder: Path) -> set[str]:
    folder.mkdir()
    return {
        Path(client.download_artifacts(run.info.run_id, "note.txt", str(folder / run.info.run_id))).read_text()
        for run in stores.list_runs(client)
        if (folder / run.info.run_id).mkdir() is None
    }


@pytest.mark.parametrize("place", [shutil.move, shutil.copytree])
def test_artifacts_follow_a_store_to_its_new_place(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object
) -> None:
    new = tmp_path / "after? %20"
    place(project, new)  # type: ignore[operator]
    monkeypatch.chdir(new)
    client = stores.open_store()
    _log(client, "two")
    if project.exists():
        assert len(list((project / "mlartifacts").rglob("note.txt"))) == 1, "nothing is written to the old place"
        shutil.rmtree(project)
    assert _read(client, tmp_path / "read") == {"one", "two"}
    assert len(list((new / "mlartifacts").rglob("note.txt"))) == 2


def test_artifacts_that_are_elsewhere_on_purpose_stay_there(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "disk" / "mlartifacts"
    client = stores.open_store()
    experiment = client.create_experiment("other", elsewhere.as_uri())
    client.log_text(client.create_run(experiment).info.run_id, "three", "note.txt")
    new = tmp_path / "after"
    shutil.move(project, new)
    monkeypatch.chdir(new)
    client = stores.open_store()
    assert client.get_experiment(experiment).artifact_location == elsewhere.as_uri()
    assert _read(client, tmp_path / "read") == {"one", "three"}


def test_the_experiment_that_mlflow_itself_makes_is_refused(project: Path) -> None:
    client = stores.open_store()
    with pytest.raises(CelebflowError, match=r"tracking\.experiment is Default.*another name"):
        stores.select_experiment(client, "Default")
