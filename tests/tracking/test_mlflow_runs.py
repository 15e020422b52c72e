"""Runs end as what they were, at whatever moment they are interrupted."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from celebflow import errors, paths
from celebflow.params import Params
from celebflow.tracking import stores
from celebflow.tracking.mlflow_runs import continue_run, start_run
from tests.features.conftest import SOURCE


@pytest.fixture
def _empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in an empty folder, as outside of DVC's stages."""
    for name in ("DVC_ROOT", "DVC_STAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow  # MLflow takes seconds to make the tables of a store
@pytest.mark.usefixtures("_empty_project")
def test_a_run_that_is_interrupted_amid_a_statement_ends_as_killed(capfd: pytest.CaptureFixture[str]) -> None:
    interruptions = {signal.SIGTERM: errors.Terminated, signal.SIGINT: KeyboardInterrupt}
    pending: list[signal.Signals] = []

    def interrupt(*arguments: object, **keywords: object) -> None:
        if pending:
            os.kill(os.getpid(), pending.pop())

    before = signal.signal(signal.SIGTERM, errors._raise_terminated)
    try:
        for target, moment in ((Engine, "after_cursor_execute"), (Pool, "reset")):
            event.listen(target, moment, interrupt)
            for number, exception in interruptions.items():
                with pytest.raises(exception), start_run(Params(), SOURCE, {}) as run:
                    pending.append(number)
                    run.set_tags({"logged": "whole"})
                    pytest.fail("the signal was lost")
                newest = next(stores.list_runs(stores.open_store()))
                assert newest.info.status == "KILLED"
                assert newest.data.tags["logged"] == "whole"
            event.remove(target, moment, interrupt)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("_empty_project")
def test_a_place_of_files_that_cannot_be_reached_ends_train_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    params = Params()
    stores.open_store().create_experiment(params.tracking.experiment, "s3://bucket/files")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://user:S3cretWord@127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    remedy = "files of runs .* cannot be stored or read: Unable to locate credentials.*required to false"
    with pytest.raises(errors.CelebflowError, match=remedy), start_run(params, SOURCE, {}):
        pytest.fail("it began")
    # MLflow keeps clients by their addresses, and another client reads the keys.
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://user:S3cretWord@127.0.0.1:10")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    tracking = params.tracking.model_copy(update={"required": False})
    optional = params.model_copy(update={"tracking": tracking})
    with start_run(optional, SOURCE, {}) as run:
        assert [waiting.info.run_id for waiting in stores.list_waiting_runs()] == [run.run_id]
    told = capfd.readouterr().err
    assert "Could not connect to the endpoint" in told and "The run waits in the repository" in told
    assert "S3cretWord" not in told
    assert [run.info.status for run in stores.list_runs(stores.open_store())] == ["RUNNING", "FAILED"]


def test_without_the_library_of_a_place_of_files_its_extra_is_named() -> None:
    with pytest.raises(stores.FilesError) as caught, stores.translate_files_errors():
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")
    assert "pip install 'celebflow[s3]'" in stores.advise_on_failure(caught.value)
    for mistake in (ModuleNotFoundError("no", name="other"), TypeError("a mistake")):
        with pytest.raises(type(mistake)), stores.translate_files_errors():
            raise mistake


@pytest.mark.slow
@pytest.mark.parametrize(("error", "status"), [(errors.Terminated(), "KILLED"), (ValueError("no"), "FAILED")])
@pytest.mark.usefixtures("_empty_project")
def test_a_run_that_is_interrupted_while_it_is_made_ends_so(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: str
) -> None:

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MlflowClient, "log_batch", fail)  # which comes after that the run is made
    with pytest.raises(type(error)), start_run(Params(), SOURCE, {}):
        pass
    (stored,) = stores.list_runs(stores.open_store())
    assert stored.info.status == status


@pytest.mark.slow
@pytest.mark.usefixtures("_empty_project")
def test_a_store_that_takes_long_is_named_while_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_run(Params(), SOURCE, {}) as run:
        capsys.readouterr()
        monkeypatch.setattr(stores, "_MOMENT_SECONDS", 0.01)
        run.log(lambda client, run_id: time.sleep(1))
        assert "Waiting for MLflow's store sqlite:///" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "is missing: train has not ended"), ("", "does not hold the id")]
)
def test_a_result_that_has_no_run_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        paths.MLFLOW_RUN_ID.parent.mkdir()
        paths.MLFLOW_RUN_ID.write_text(content)
    refusal = pytest.raises(errors.CelebflowError, match=rf"mlflow_run_id\.txt {reason}.*`dvc repro")
    with refusal, continue_run(Params(), SOURCE):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("setup", [[], [["git", "init"]], [["git", "init"], ["git", "add", "params.yaml"]]])
@pytest.mark.usefixtures("_empty_project")
def test_runs_without_a_commit_are_named_by_what_differs_from_the_defaults(
    tmp_path: Path, setup: list[list[str]]
) -> None:
    (tmp_path / "params.yaml").write_text("train: {epochs: 7}\n")
    for command in setup:
        subprocess.run(command, check=True, capture_output=True)
    for params in (Params(), Params.model_validate({"train": {"epochs": 7}})):
        with start_run(params, SOURCE, {}):
            pass
    names = {
        (run.info.run_name or "").removesuffix(" (UNTRAINED BACKBONE)") for run in stores.list_runs(stores.open_store())
    }
    assert names == {"default params", "epochs 7"}
