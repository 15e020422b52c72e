"""Interrupted and failed stages end their runs, and dvc repro continues to the same bytes."""

import os
import signal
import time

import pytest

from tests.repository import Repository, clone_repository

pytestmark = pytest.mark.slow


def test_next_run_ends_one_that_was_killed(repository: Repository) -> None:
    repository.edit("epochs: 3", "epochs: 100000")
    process = repository.start_training()
    killed = repository.run_id()
    process.kill()
    process.communicate()
    repository.edit("epochs: 100000", "epochs: 3")
    repository.run_stage("train")
    statuses = {run.info.run_id: run.info.status for run in repository.runs()}
    assert statuses.pop(killed) == "KILLED"
    assert set(statuses.values()) == {"FINISHED"}


def test_a_training_whose_params_change_meanwhile_fails_and_can_go_on_with_the_old_ones(repository: Repository) -> None:
    repository.edit("epochs: 3", "epochs: 100")
    process = repository.start_training()
    repository.edit("dropout: 0.5", "dropout: 0.25")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "params.yaml has changed while train ran: train.dropout" in output and "Traceback" not in output
    assert repository.runs()[0].info.status == "FAILED"
    assert list((repository.folder / ".celebflow" / "checkpoints").glob("*/last.safetensors"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_ends_as_killed(repository: Repository, number: signal.Signals, status: int) -> None:
    repository.edit("epochs: 3", "epochs: 100000")
    process = repository.start_training()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert "Traceback" not in output
    assert repository.runs()[0].info.status == "KILLED"


def test_failing_run_ends_as_failed(repository: Repository) -> None:
    repository.edit("device: cpu", "device: cuda:9")
    repository.edit("train:\n  seed: 0", "train:\n  seed: 1")
    output = repository.run_stage("train", fails=True)
    assert "compute.device is cuda:9" in output
    assert repository.runs()[0].info.status == "FAILED"


def test_a_training_that_diverges_fails_and_keeps_nothing(repository: Repository) -> None:
    kept = [repository.folder / name for name in ("models/classifier.safetensors", "reports/history.csv")]
    before = [file.read_bytes() for file in kept]
    repository.edit("learning_rate: 0.001", "learning_rate: 1.0e+30")
    output = repository.run_stage("train", fails=True)
    for part in ("Training diverged", "epoch 1, step", "train.learning_rate (1e+30)", "`dvc repro`"):
        assert part in output
    assert "Traceback" not in output and "epoch 1/" not in output
    failed = repository.runs()[0]
    assert failed.info.status == "FAILED"
    assert failed.data.metrics == {}
    assert [file.read_bytes() for file in kept] == before
    assert list((repository.folder / ".celebflow" / "checkpoints").iterdir()) == []


def test_repro_after_kills_ends_with_the_same_bytes(template: Repository, repository: Repository) -> None:
    # benchmarks/kills.py kills at random moments, and more often.
    undisturbed = clone_repository(template, repository.folder.with_name("undisturbed"))
    for each in (undisturbed, repository):
        each.edit("epochs: 3", "epochs: 60")
        each.edit("image_size_px: 64", "image_size_px: 160")
    assert undisturbed.repro("train") == ["extract", "train"]
    store = repository.folder / ".celebflow"
    for kept in ("features/data.mdb", "checkpoints/*/last.safetensors"):
        started = time.time()
        process = repository.start("dvc", "repro", "train")
        while not any(file.stat().st_mtime > started for file in store.glob(kept)):
            assert process.poll() is None and time.time() < started + 120
            time.sleep(0.01)
        assert process.poll() is None, "it is still running"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    output = repository.run("dvc", "repro", "train")
    assert output.count("epoch ") == 60, "epochs before the last checkpoint are printed again"
    for out in ("features/indices.npy", "features/values.npy", "features/offsets.npy", "models/classifier.safetensors"):
        assert (repository.folder / out).read_bytes() == (undisturbed.folder / out).read_bytes(), out
    assert list((store / "checkpoints").iterdir()) == []
