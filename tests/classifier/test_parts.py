"""Trainings on the nodes of a Ray cluster predict what those on this machine do, bit for bit; what is kept serves."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from celebflow.classifier import cluster_training
from celebflow.classifier.cluster_training import TrainingWorker
from celebflow.classifier.fits import NOT_KEPT, Fits
from celebflow.classifier.out_of_fold_training import predict_repeatedly
from celebflow.classifier.parts import Part, predict_each
from celebflow.errors import CelebflowError
from celebflow.params import ComputeParams
from tests.conftest import draw_features
from tests.training import make_train_params

CPU = ComputeParams()
DEAD = ComputeParams(cluster="127.0.0.1:9")
RECIPES = {
    "lda": make_train_params("square_root", "l2_normalize", pca_components=10, classifier="lda"),
    "mlp": make_train_params("standardize", classifier="mlp", epochs=3, learning_rate=0.01, dropout=0.5),
}
PARTS = [Part(np.arange(8) != number, np.arange(8) == number, number) for number in range(4)]


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let this machine compute with more threads than a node has processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, "blas"):
        yield
    torch.set_num_threads(before)


def _predict(part: Part) -> NDArray[np.float32]:
    return np.array([[part.seed, part.taken.sum()]], np.float32)


def test_what_was_predicted_is_not_predicted_again(tmp_path: Path) -> None:
    asked = []

    def predict(part: Part) -> NDArray[np.float32]:
        asked.append(part.seed)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return _predict(part)

    fits = Fits(tmp_path, "features")
    with pytest.raises(KeyboardInterrupt):
        predict_each(predict, PARTS, CPU, fits, "recipe")
    found = predict_each(predict, PARTS, CPU, fits, "recipe")
    assert asked == [0, 1, 2, 2, 3]
    assert np.array_equal(found, [_predict(part) for part in PARTS])
    assert np.array_equal(predict_each(predict, PARTS, DEAD, fits, "recipe"), found), "no cluster is asked"
    others = [Part(each.taken, each.asked, each.seed + 10) for each in PARTS]
    predict_each(predict, others, CPU, fits, "recipe")
    predict_each(predict, PARTS, CPU, fits, "another recipe")
    assert asked[5:] == [10, 11, 12, 13, 0, 1, 2, 3]


def test_a_node_without_the_device_is_refused() -> None:
    with pytest.raises(CelebflowError, match="cuda"):
        TrainingWorker(_predict, "cuda", (1, 1))


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", RECIPES)
def test_predictions_are_the_same_bytes(name: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    features = draw_features(60, ("original", "mirrored"))
    here = predict_repeatedly(features, RECIPES[name], CPU, NOT_KEPT, 3, 2)
    capsys.readouterr()
    there = predict_repeatedly(features, RECIPES[name], ComputeParams(cluster=address), NOT_KEPT, 3, 2)
    for one, other in zip(here, there, strict=True):
        assert one.logits.tobytes() == other.logits.tobytes()
        assert np.array_equal(one.folds, other.folds)
    assert not np.array_equal(here[0].folds, here[1].folds)
    lines = capsys.readouterr().out.splitlines()
    assert sum(int(line.split(": ")[1].split()[0]) for line in lines if " parts, " in line) == 6
    assert not any("rounds otherwise" in line for line in lines)


@pytest.mark.slow
def test_a_node_that_rounds_otherwise_is_told(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster_training, "multiply_noise", lambda: b"of another processor")
    assert len(predict_each(_predict, PARTS, ComputeParams(cluster=address), NOT_KEPT, "recipe")) == len(PARTS)
    assert "/s; it rounds otherwise than this machine" in capsys.readouterr().out


@pytest.mark.slow
def test_the_training_of_a_node_that_dies_goes_to_another(tmp_path: Path) -> None:
    from benchmarks.cluster import kill_last_node, start_cluster

    begun, gate = tmp_path / "begun", tmp_path / "gate"
    begun.mkdir()

    def predict(part: Part) -> NDArray[np.float32]:
        (begun / str(part.seed)).touch()
        while not gate.exists():
            time.sleep(0.05)
        return _predict(part)

    with start_cluster(2, processors=1) as nodes:

        def kill_one() -> None:
            while len([*begun.iterdir()]) < 2:
                time.sleep(0.05)
            kill_last_node(nodes)
            gate.touch()

        killer = Thread(target=kill_one, daemon=True)
        killer.start()
        found = predict_each(predict, PARTS, ComputeParams(cluster=nodes.address), Fits(tmp_path / "fits"), "recipe")
        killer.join()
    assert np.array_equal(found, [_predict(part) for part in PARTS])
    assert len([*(tmp_path / "fits").iterdir()]) == len(PARTS)
