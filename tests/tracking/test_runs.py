"""What stages log arrives in MLflow, by a process that ends when the stage does, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from pathlib import Path
from threading import Timer

import psutil
import pytest

from celebflow.classifier.history import EpochResult
from celebflow.errors import CelebflowError, Terminated
from celebflow.params import Params
from celebflow.tracking import mlflow_runs, runs, stores
from celebflow.tracking.runs import continue_run, start_run
from tests.conftest import draw_features
from tests.features.conftest import SOURCE

EPOCH = EpochResult(1, 0.5, 0.75, 0.6, 0.7)
# MLflow takes seconds to make the tables of a store.
pytestmark = pytest.mark.slow
_PATIENCE_SECONDS = 60


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DVC_ROOT", "DVC_STAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_stages_log_is_in_the_store_when_the_run_ends(project: Path) -> None:
    (project / "reports").mkdir()
    (project / "reports" / "history.csv").write_text("epoch\n")
    with start_run(Params(), draw_features()) as run:
        run.log_epoch(EPOCH)
        run.log_files(Path("reports"))
    with continue_run(Params(), SOURCE) as run:
        run.log_final_metrics({"val": {"accuracy": 0.7}})
    client = stores.open_store()
    (stored,) = stores.list_runs(client)
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics["train/loss"] == 0.5
    assert stored.data.metrics["val/final_accuracy"] == 0.7
    assert int(stored.data.tags["celebflow.threads"]) >= 1
    assert stored.inputs is not None
    assert [each.dataset.name for each in stored.inputs.dataset_inputs] == [
        f"{split}: {sum(photo.split == split for photo in draw_features().photos)} photographs"
        for split in ("train", "val", "test")
    ]
    assert [file.path for file in client.list_artifacts(stored.info.run_id, "reports")] == ["reports/history.csv"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (Terminated(), "KILLED")],
)
def test_a_stage_that_does_not_finish_ends_its_run_so(error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), start_run(Params(), draw_features()) as run:
        run.log_epoch(EPOCH)
        raise error
    (stored,) = stores.list_runs(stores.open_store())
    assert (stored.info.status, stored.data.metrics["val/loss"]) == (status, 0.6)


@contextmanager
def _run_stage(body: str, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Start a stage as the leader of a group; it prints the number of the process that logs first."""
    script = (
        "import os, signal, time\nfrom contextlib import *\nfrom multiprocessing import active_children\n"
        "from celebflow.params import Params\nfrom celebflow.tracking import mlflow_runs, runs\n"
        "from tests.conftest import draw_features\nfrom tests.tracking.test_runs import EPOCH\n"
        # The tests may run under nohup, or in the background of a script.
        "for each in (signal.SIGHUP, signal.SIGQUIT): signal.signal(each, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"{before}\n"
        "with runs.start_run(Params(), draw_features()) as run:\n"
        "    print(active_children()[0].pid, flush=True)\n"
        f"    {body}"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as stage:
        try:
            yield stage
        finally:
            stage.kill()


def _wait_for_logging(stage: subprocess.Popen[bytes]) -> None:
    assert stage.stdout is not None
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(stage.stdout.readline())).wait(_PATIENCE_SECONDS)


@pytest.mark.parametrize(
    "end",
    [
        "run.log_epoch(EPOCH); os.kill(os.getpid(), signal.SIGKILL)",
        "run._send('answer'); os.kill(os.getpid(), signal.SIGKILL)",
        "run.wait_until_open(); os.killpg(0, signal.SIGHUP); time.sleep(600)",
        "run.wait_until_open(); os.killpg(0, signal.SIGQUIT); time.sleep(600)",
    ],
    ids=["killed", "killed while it waits", "closed terminal", "Ctrl-backslash"],
)
def test_the_run_of_a_stage_that_is_killed_ends_at_once(end: str) -> None:
    with _run_stage(end) as stage:
        _wait_for_logging(stage)
    (stored,) = stores.list_runs(stores.open_store())
    assert stored.info.status == "KILLED"
    assert stored.data.metrics.get("val/loss") == (0.6 if "EPOCH" in end else None)


def test_a_stage_that_is_killed_leaves_no_process_that_waits_for_a_store() -> None:
    before = (
        "runs._LAST_SECONDS = 0.2\n"
        "@contextmanager\n"
        "def wait(*_):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    time.sleep(600)\n"
        "    yield\n"
        "mlflow_runs.start_run = wait"
    )
    with _run_stage("time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)", before) as stage:
        _wait_for_logging(stage)


def test_a_store_that_cannot_be_used_fails_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    params = Params.model_validate({"tracking": {"required": True}})
    refusal = pytest.raises(CelebflowError, match=r"127\.0\.0\.1:9 cannot be used.*set tracking\.required to false")
    with refusal, start_run(params, draw_features()) as run:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:  # a training learns of it at the next epoch
            run.log_epoch(EPOCH)
            time.sleep(0.01)
        pytest.fail("training went on")


def test_what_no_user_can_mend_keeps_its_kind_and_traceback() -> None:
    with pytest.raises(AttributeError, match="items") as raised, start_run(Params(), draw_features()) as run:
        run._send("log_final_metrics", {"val": 1})
    assert "celebflow/tracking/mlflow_runs.py" in raised.value.__notes__[0]


def test_a_process_that_is_killed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def be_killed(*_: object) -> Iterator[None]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield

    monkeypatch.setattr(mlflow_runs, "start_run", be_killed)
    with pytest.raises(CelebflowError, match="has ended with status -9"), start_run(Params(), draw_features()):
        pass


@pytest.mark.parametrize("stubborn", [False, True])
def test_ctrl_c_does_not_wait_for_a_store_that_does_not_answer(
    project: Path, monkeypatch: pytest.MonkeyPatch, *, stubborn: bool
) -> None:
    @contextmanager
    def wait(*_: object) -> Iterator[None]:
        if stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            time.sleep(600)
        except Terminated:
            Path("ended.txt").touch()  # as mlflow_runs ends the run
            raise
        yield

    monkeypatch.setattr(mlflow_runs, "start_run", wait)
    monkeypatch.setattr(runs, "_LAST_SECONDS", 1)
    with pytest.raises(KeyboardInterrupt), start_run(Params(), draw_features()):
        raise KeyboardInterrupt
    assert not active_children()
    assert (project / "ended.txt").exists() is not stubborn


def test_another_ctrl_c_leaves_out_what_is_left_to_log_and_ends_the_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowRun:
        def log_epoch(self, _: EpochResult) -> None:
            Path("began.txt").touch()
            time.sleep(600)

    @contextmanager
    def open_slow_run(*_: object) -> Iterator[SlowRun]:
        try:
            yield SlowRun()
        except Terminated:
            time.sleep(0.5)  # as a store takes some time
            Path("ended.txt").touch()  # as mlflow_runs ends the run
            raise

    monkeypatch.setattr(mlflow_runs, "start_run", open_slow_run)
    with pytest.raises(KeyboardInterrupt), start_run(Params(), draw_features()) as run:
        run.log_epoch(EPOCH)
        while not Path("began.txt").exists():
            time.sleep(0.01)
        Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
        raise KeyboardInterrupt
    assert (project / "ended.txt").exists()


def test_ctrl_c_does_not_end_a_process_that_starts_python_anew(project: Path) -> None:
    """Elsewhere than on Linux it does, and can be interrupted before it has any handler."""
    (project / "stage.py").write_text(
        "import multiprocessing, os, signal, time\n"
        "if __name__ == '__mp_main__':\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.1)\n"
        "from celebflow.errors import run_to_exit\n"
        "from celebflow.params import Params\n"
        "from celebflow.tracking import runs\n"
        "from tests.features.conftest import SOURCE\n"
        "def main():\n"
        "    runs.get_context = lambda _: multiprocessing.get_context('spawn')\n"
        "    with runs._open('start_run', Params(), SOURCE, {}) as run:\n"
        "        run.wait_until_open()\n"
        "if __name__ == '__main__':\n"
        "    run_to_exit(main)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, "stage.py"], env=environment, capture_output=True, text=True)
    assert (ended.returncode, "Interrupt" in ended.stderr) == (0, False), ended.stderr
    assert [run.info.status for run in stores.list_runs(stores.open_store())] == ["FINISHED"]
