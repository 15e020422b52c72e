"""A training that was killed goes on from its last epoch, and ends as if nothing had happened."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from celebflow import paths
from celebflow.classifier import checkpoints
from celebflow.classifier.checkpoints import Checkpoints, list_abandoned, open_checkpoints
from celebflow.classifier.history import EpochResult
from celebflow.classifier.training import train_classifier
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.params import ComputeParams, Params, TrainParams
from tests.conftest import draw_features

CPU = ComputeParams(device="cpu")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a repository of its own, and return where checkpoints go."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return paths.checkpoints()


@pytest.fixture
def settings(params: Params) -> TrainParams:
    """Make the recipe small."""
    return params.train.model_copy(update={"hidden_units": (16,), "epochs": 5, "batch_size": 8})


def _teach(
    features: Features, settings: TrainParams, kept: Checkpoints, stop_after: int = 99
) -> tuple[dict[str, Tensor], list[EpochResult], list[int]]:
    """Teach, and return the weights, the history, and the epochs that were reported."""
    reported: list[int] = []

    def log_epoch(result: EpochResult) -> None:
        if result.epoch > stop_after:
            raise KeyboardInterrupt
        reported.append(result.epoch)

    classifier, history = train_classifier(features, settings, CPU, kept, log_epoch)
    return classifier.state_dict(), history, reported


def _assert_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("keep_epoch", ["last", "best"])
def test_interrupted_training_ends_like_one_never_interrupted(
    settings: TrainParams, folder: Path, keep_epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_ALLOWED_SHARE", 1.0)  # such short epochs would get none
    settings = settings.model_copy(update={"keep_epoch": keep_epoch, "learning_rate": 0.003})
    features = draw_features()
    with open_checkpoints(features, settings, CPU) as kept:
        expected, expected_history, _ = _teach(features, settings, kept)
    with pytest.raises(KeyboardInterrupt), open_checkpoints(features, settings, CPU) as kept:
        _teach(features, settings, kept, stop_after=3)
    restored: list[int] = []
    restore = Checkpoints.restore

    def record(self: Checkpoints, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        history = restore(self, tensors)
        restored.append(len(history))
        return history

    monkeypatch.setattr(Checkpoints, "restore", record)
    with open_checkpoints(features, settings, CPU) as kept:
        weights, history, reported = _teach(features, settings, kept)
    assert restored == [3]
    assert history == expected_history
    assert reported == [1, 2, 3, 4, 5]
    _assert_equal(weights, expected)
    assert [path for path in folder.iterdir() if path.is_dir()] == [], "checkpoints go when the training has ended"


def test_killed_training_leaves_a_whole_checkpoint_or_the_one_before(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import torch
from celebflow.checkpoints import Checkpoints
from celebflow.training import EpochResult
kept = Checkpoints(Path(sys.argv[1]))
tensors = {"a": torch.zeros(3, 4_000_000), "b": torch.zeros(5)}
history = [EpochResult(1, 0.5, 0.5, 0.5, 0.5)]
while True:
    for tensor in tensors.values():
        tensor += 1
    kept._cost_seconds = 0.0
    kept.save(tensors, history)
    print(len(history), flush=True)
    history.append(history[-1])
"""
    moments = random.Random(0)
    for _ in range(5):
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


@pytest.mark.parametrize("damage", ["truncated", "header", "another"])
def test_a_checkpoint_that_does_not_fit_is_told_and_left(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = EpochResult(1, 0.5, 0.5, 0.5, 0.5)
    Checkpoints(tmp_path).save({"a": torch.ones(100), "b": torch.ones(2)}, [result])
    if damage == "truncated":
        os.truncate(tmp_path / "last.safetensors", 300)
        tensors = {"a": torch.zeros(100), "b": torch.zeros(2)}
    elif damage == "header":
        content = bytearray((tmp_path / "last.safetensors").read_bytes())
        content[20] ^= 0x80
        (tmp_path / "last.safetensors").write_bytes(content)
        tensors = {"a": torch.zeros(100), "b": torch.zeros(2)}
    else:
        tensors = {"a": torch.zeros(2), "b": torch.zeros(100)}
    assert Checkpoints(tmp_path).restore(tensors) == []
    assert "cannot be used" in capsys.readouterr().err
    assert all((tensor == 0).all() for tensor in tensors.values())


def test_another_recipe_has_other_checkpoints(settings: TrainParams, folder: Path) -> None:
    features = draw_features()
    others = settings.model_copy(update={"learning_rate": 0.5}), settings.model_copy(update={"seed": 1})
    for recipe in (settings, *others):
        with pytest.raises(KeyboardInterrupt), open_checkpoints(features, recipe, CPU) as kept:
            _teach(features, recipe, kept, stop_after=1)
    with pytest.raises(KeyboardInterrupt), open_checkpoints(draw_features(48), settings, CPU) as kept:
        _teach(draw_features(48), settings, kept, stop_after=1)
    assert len(list_abandoned()) == 4


def test_the_same_training_twice_at_once_keeps_apart(settings: TrainParams) -> None:
    features = draw_features()
    with open_checkpoints(features, settings, CPU) as one, open_checkpoints(features, settings, CPU) as two:
        for kept, value in ((one, 1.0), (two, 2.0)):
            kept.save({"a": torch.full((3,), value)}, [])
        assert list_abandoned() == [], "both are running"
        for kept, value in ((one, 1.0), (two, 2.0)):
            tensors = {"a": torch.zeros(3)}
            kept.restore(tensors)
            assert tensors["a"].tolist() == [value] * 3


def test_checkpoints_that_would_take_more_than_a_twentieth_of_the_time_are_left_out(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    tensors = {"a": torch.zeros(10)}
    results = [EpochResult(epoch, 0.5, 0.5, 0.5, 0.5) for epoch in (1, 2)]
    kept.restore(tensors)
    kept.save(tensors, results[:1])
    kept._cost_seconds = 1.0
    kept.save(tensors, results)
    assert kept.restore(tensors) == results[:1]
    kept._saved_at_seconds -= 19.1
    kept.save(tensors, results)
    assert kept.restore(tensors) == results


def test_a_best_epoch_that_is_gone_is_told_and_the_next_run_begins_anew(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "own")
    tensors = {"a": torch.zeros(10)}
    kept.save(tensors, [EpochResult(1, 0.5, 0.5, 0.5, 0.5)])
    with pytest.raises(CelebflowError, match="Run `dvc repro` to train anew"):
        kept.restore_best(tensors)
    assert kept.restore(tensors) == []


def test_a_full_disk_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_up(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fill_up)
    Checkpoints(tmp_path).save({"a": torch.zeros(10)}, [])
    assert list(tmp_path.iterdir()) == []


def test_best_epochs_count_among_what_checkpoints_may_cost(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    tensors = {"a": torch.zeros(10)}
    kept.restore(tensors)
    kept.save(tensors, [])
    before = kept._cost_seconds
    kept.save_best(tensors)
    assert kept._cost_seconds > before


def test_a_disk_that_cannot_be_written_stops_no_training_but_the_best_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = Checkpoints(tmp_path / "file")
    kept.save({"a": torch.zeros(3)}, [])
    assert "could not be written" in capsys.readouterr().err
    with pytest.raises(CelebflowError, match="could not be written"):
        kept.save_best({"a": torch.zeros(3)})
