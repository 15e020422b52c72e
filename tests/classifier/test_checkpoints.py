"""A killed training resumes from its last epoch, and gives the same bits as one that was never interrupted."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from celebflow import paths
from celebflow.classifier import checkpoints
from celebflow.classifier.checkpoints import Checkpoints, DivergedError, list_abandoned, open_checkpoints
from celebflow.classifier.classifier_training import train_classifier
from celebflow.classifier.history import EpochResult
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams
from tests.conftest import draw_features
from tests.training import make_train_params

CPU = ComputeParams(device="cpu")
RESULT = EpochResult(1, 0.5, 0.5, 0.5, 0.5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a repository of its own, and return the folder of its checkpoints."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return paths.checkpoints()


def _train(
    features: Features, params: TrainParams, checkpoints: Checkpoints, stop_after: int = 99
) -> tuple[dict[str, Tensor], list[EpochResult], list[int]]:
    """Train, and return the weights, the history, and the epochs that were logged."""
    logged: list[int] = []

    def log_epoch(result: EpochResult) -> None:
        if result.epoch > stop_after:
            raise KeyboardInterrupt
        logged.append(result.epoch)

    classifier, history = train_classifier(features, params, CPU, checkpoints, log_epoch)
    return classifier.state_dict(), history, logged


def _interrupt(features: Features, params: TrainParams, stop_after: int) -> None:
    with pytest.raises(KeyboardInterrupt), open_checkpoints(features, params, CPU) as opened:
        _train(features, params, opened, stop_after)


def _assert_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("keep_epoch", ["last", "best"])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    folder: Path, keep_epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_MAX_TIME_FRACTION", 1.0)  # such short epochs would have no checkpoints
    params = make_train_params(epochs=5, keep_epoch=keep_epoch, learning_rate=0.003)
    features = draw_features()
    with open_checkpoints(features, params, CPU) as opened:
        expected, expected_history, _ = _train(features, params, opened)
    _interrupt(features, params, stop_after=3)
    restored: list[int] = []
    restore = Checkpoints.restore

    def record(self: Checkpoints, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        history = restore(self, tensors)
        restored.append(len(history))
        return history

    monkeypatch.setattr(Checkpoints, "restore", record)
    with open_checkpoints(features, params, CPU) as opened:
        weights, history, logged = _train(features, params, opened)
    assert restored == [3]
    assert history == expected_history
    assert logged == [1, 2, 3, 4, 5]
    _assert_equal(weights, expected)
    assert [path for path in folder.iterdir() if path.is_dir()] == [], "a training that has ended needs no checkpoints"


@pytest.mark.slow
def test_a_killed_training_leaves_a_whole_checkpoint_or_the_previous_one(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import torch
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.history import EpochResult
opened = Checkpoints(Path(sys.argv[1]))
tensors = {"a": torch.zeros(3, 4_000_000), "b": torch.zeros(5)}
history = [EpochResult(1, 0.5, 0.5, 0.5, 0.5)]
while True:
    for tensor in tensors.values():
        tensor += 1
    opened._cost_seconds = 0.0
    opened.save(tensors, history)
    print(len(history), flush=True)
    history.append(history[-1])
"""
    moments = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "own")], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            lines = iter(process.stdout)
            assert [next(lines) for _ in range(3)] == ["1\n", "2\n", "3\n"]
            time.sleep(moments.uniform(0, 0.1))
            os.kill(process.pid, signal.SIGKILL)
        tensors = {"a": torch.zeros(3, 4_000_000), "b": torch.zeros(5)}
        history = Checkpoints(tmp_path / "own").restore(tensors)
        assert len(history) >= 3
        assert all((tensor == len(history)).all() for tensor in tensors.values())


def test_a_checkpoint_is_a_safetensors_file(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(3, 7), "b": torch.rand(2)}
    Checkpoints(tmp_path).save(tensors, [])
    _assert_equal(load_file(tmp_path / "last.safetensors"), tensors)


@pytest.mark.parametrize("damage", ["truncated", "header", "another classifier", "tensor", "history"])
def test_a_checkpoint_that_cannot_be_used_is_reported_and_ignored(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpoints(tmp_path).save({"a": torch.ones(100), "b": torch.ones(2)}, [RESULT])
    file = tmp_path / "last.safetensors"
    tensors = {"a": torch.zeros(100), "b": torch.zeros(2)}
    if damage == "truncated":
        os.truncate(file, 300)
    elif damage == "header":
        content = bytearray(file.read_bytes())
        content[20] ^= 0x80
        file.write_bytes(content)
    elif damage == "tensor":
        checkpoints._write(file, {"a": torch.ones(100), "b": torch.tensor([1, torch.nan])}, [RESULT])
    elif damage == "history":
        history = json.dumps([{**asdict(RESULT), "val_loss": math.nan}])
        save_file({"a": torch.ones(100), "b": torch.ones(2)}, file, {"history": history})
    else:
        tensors = {"a": torch.zeros(2), "b": torch.zeros(100)}
    assert Checkpoints(tmp_path).restore(tensors) == []
    error = capsys.readouterr().err
    assert "cannot be used" in error and file.name in error
    assert all((tensor == 0).all() for tensor in tensors.values())


def test_another_recipe_has_other_checkpoints() -> None:
    features = draw_features()
    params = make_train_params(epochs=2)
    for changed in ({}, {"learning_rate": 0.5}, {"seed": 1}):
        _interrupt(features, params.model_copy(update=changed), stop_after=1)
    _interrupt(draw_features(48), params, stop_after=1)
    assert len(list_abandoned()) == 4


def test_the_same_training_run_twice_at_once_has_separate_checkpoints() -> None:
    features = draw_features()
    params = make_train_params()
    with open_checkpoints(features, params, CPU) as one, open_checkpoints(features, params, CPU) as two:
        for opened, value in ((one, 1.0), (two, 2.0)):
            opened.save({"a": torch.full((3,), value)}, [])
        assert list_abandoned() == [], "both are running"
        for opened, value in ((one, 1.0), (two, 2.0)):
            tensors = {"a": torch.zeros(3)}
            opened.restore(tensors)
            assert tensors["a"].tolist() == [value] * 3


def test_checkpoints_take_at_most_a_twentieth_of_the_time(tmp_path: Path) -> None:
    opened = Checkpoints(tmp_path)
    tensors = {"a": torch.zeros(10)}
    opened.restore(tensors)
    opened.save(tensors, [RESULT])
    opened._cost_seconds = 1.0
    opened.save(tensors, [RESULT, RESULT])
    assert opened.restore(tensors) == [RESULT]
    opened._saved_at_seconds -= 19.1
    opened.save(tensors, [RESULT, RESULT])
    assert opened.restore(tensors) == [RESULT, RESULT]


def test_without_its_best_epoch_a_training_fails_and_the_next_run_starts_from_the_beginning(tmp_path: Path) -> None:
    opened = Checkpoints(tmp_path / "own")
    tensors = {"a": torch.zeros(10)}
    opened.save(tensors, [RESULT])
    with pytest.raises(CelebflowError, match=r"best.*dvc repro"):
        opened.restore_best(tensors)
    assert opened.restore(tensors) == []


def test_nothing_is_left_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill_up(tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]) -> None:
        file.write_bytes(b"what still had room")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", fill_up)
    Checkpoints(tmp_path).save({"a": torch.zeros(10)}, [])
    assert list(tmp_path.iterdir()) == []
    assert "No space left on device" in capsys.readouterr().err


def test_the_time_of_best_epochs_counts_as_the_time_of_checkpoints(tmp_path: Path) -> None:
    opened = Checkpoints(tmp_path)
    tensors = {"a": torch.zeros(10)}
    opened.restore(tensors)
    opened.save(tensors, [])
    before = opened._cost_seconds
    opened.save_best(tensors)
    assert opened._cost_seconds > before


def test_training_continues_without_checkpoints_but_not_without_the_best_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    opened = Checkpoints(tmp_path / "file")
    opened.save({"a": torch.zeros(3)}, [])
    assert "could not be written" in capsys.readouterr().err
    with pytest.raises(CelebflowError, match=r"could not be written.*keep_epoch"):
        opened.save_best({"a": torch.zeros(3)})


def test_tensors_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save({"a": torch.ones(9), "b": torch.ones(2)}, [RESULT])
    Checkpoints(tmp_path).save({"a": torch.zeros(9), "b": torch.tensor([0, -torch.inf])}, [RESULT, RESULT])
    tensors = {"a": torch.zeros(9), "b": torch.zeros(2)}
    assert Checkpoints(tmp_path).restore(tensors) == [RESULT]
    assert tensors["b"].tolist() == [1, 1]


def test_a_training_that_diverges_leaves_no_checkpoint(folder: Path) -> None:
    params = make_train_params(learning_rate=1e30)
    features = draw_features()
    with pytest.raises(DivergedError), open_checkpoints(features, params, CPU) as opened:
        opened.save({"a": torch.zeros(3)}, [])
        assert list(folder.glob("*/last.safetensors"))
        _train(features, params, opened)
    assert list(folder.iterdir()) == []
