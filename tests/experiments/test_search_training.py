"""A node of the cluster trains what the stage train would, bit for bit, and the stage takes it."""

import re
from contextlib import chdir
from pathlib import Path

import pytest
import yaml

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments.recipes import apply_changes
from celebflow.experiments.search_training import train_ahead
from celebflow.params import ComputeParams, Params, load_params
from tests.repository import Repository, clone_repository

DEAD = ComputeParams(cluster="127.0.0.1:9")


def test_changes_are_applied_as_dvc_does(params: Params) -> None:
    changes = {
        "train.hidden_units": "[128,64]",
        "train.class_weights": "balanced",
        "train.preprocessing.pca_components": None,
        "train.dropout": 0,
    }
    changed = apply_changes(params, changes).train
    assert (changed.hidden_units, changed.class_weights, changed.dropout) == ((128, 64), "balanced", 0)
    assert changed.preprocessing.pca_components is None
    with pytest.raises(CelebflowError, match="train.dropout"):
        apply_changes(params, {"train.dropout": 2})


@pytest.mark.slow
def test_the_stage_takes_what_a_node_has_trained(
    repository: Repository, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [repository.folder / file for file in (paths.CLASSIFIER, paths.HISTORY)]
    checkpoints = repository.folder / ".celebflow" / "checkpoints"
    trials: list[dict[str, object]] = [
        {"train.learning_rate": 0.002},
        {"train.learning_rate": 0.003, "train.hidden_units": "[32]", "train.keep_epoch": "best"},
        {"train.learning_rate": 0.002},
        {"train.learning_rate": 1e30},
        {"train.dropout": 2},
        {"extract.image_size_px": 96},
    ]
    with chdir(repository.folder):
        params = load_params(paths.PARAMS)
        train_ahead(params.model_copy(update={"compute": ComputeParams(cluster=address)}), trials)
        output, errors = capsys.readouterr()
        assert sum(int(count) for count in re.findall(r": (\d+) trainings, ", output)) == 3
        assert "1 trials change more than train.*, and train on this machine" in errors
        train_ahead(params.model_copy(update={"compute": DEAD}), trials[:3])  # no cluster is asked
    assert len([*checkpoints.glob("*/")]) == 2, "a training that failed is not kept"
    repository.edit("learning_rate: 0.001", "learning_rate: 0.002")
    written = []
    for is_taken in (True, False):
        assert ("A node of the cluster has done this training" in repository.run_stage("train")) == is_taken
        written.append([file.read_bytes() for file in outputs])
        assert repository.list_steps(repository.run_id(), "train/loss") == [1, 2, 3]
    assert written[0] == written[1]
    assert len([*checkpoints.glob("*/")]) == 1, "what was taken is removed"


def _read_trained(repository: Repository, experiment: str) -> dict[str, str]:
    """Return the MD5 of what the stage train of an experiment wrote, without the id of its run."""
    (ref,) = repository.run("git", "for-each-ref", "--format=%(refname)", f"refs/exps/**/{experiment}").split()
    outputs = yaml.safe_load(repository.run("git", "show", f"{ref}:dvc.lock"))["stages"]["train"]["outs"]
    return {each["path"]: each["md5"] for each in outputs if each["path"] != str(paths.MLFLOW_RUN_ID)}


@pytest.mark.services
def test_trials_at_once_are_the_same_experiments(repository: Repository, address: str, tmp_path: Path) -> None:
    one_by_one = clone_repository(repository, tmp_path / "one by one")
    repository.edit("cluster: null", f"cluster: {address}")
    search = "search", "train.learning_rate=0.001..0.01"
    output = repository.invoke(*search, "--trials", "2", "--at-once", "2")
    assert sum(int(count) for count in re.findall(r": (\d+) trainings, ", output)) == 2
    assert not [*(repository.folder / ".celebflow" / "checkpoints").iterdir()], "both were taken"
    assert repository.list_experiments() == {"search-1", "search-2"}
    one_by_one.invoke(*search, "--trials", "1")
    assert _read_trained(repository, "search-1") == _read_trained(one_by_one, "search-1")
    assert _read_trained(repository, "search-1") != _read_trained(repository, "search-2")
