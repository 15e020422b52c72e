"""Provenance says which commit or experiment a result comes from, and how to restore it."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.params import flatten
from celebflow.tracking.provenance import (
    Provenance,
    advise_to_make,
    find_changed_params,
    find_last_result,
    find_provenance,
    find_pull,
    read_lock,
    read_locked_params,
    read_locked_result,
    read_params,
    require_own_classifier,
    restore_params,
)

_CONFIG = "[core]\n    analytics = false\n"
_REMOTE = "['remote \"my store\"']\n    url = /100%/store\n"


@pytest.mark.parametrize(
    ("config", "local", "command"),
    [
        (f"{_CONFIG}    remote = my store\n{_REMOTE}", "", "dvc pull"),
        (_CONFIG, f"[core]\n    remote = my store\n{_REMOTE}", "dvc pull"),
        (f"{_CONFIG}{_REMOTE}", "", "dvc pull --remote 'my store'"),
        (f"{_CONFIG}{_REMOTE}['remote \"b\"']\nurl = b\n", "", ""),
        (_CONFIG, "", ""),
        ("no section", "", ""),
    ],
)
def test_outputs_that_a_remote_may_have_are_fetched_before_they_are_made(
    repository: Path, config: str, local: str, command: str
) -> None:
    lock = "stages: {train: {outs: [{path: models/a.txt}, {path: features}]}, plot: {deps: [{path: b}]}}\n"
    (repository / "dvc.lock").write_text(lock)
    (repository / ".dvc").mkdir()
    (repository / ".dvc" / "config").write_text(config)
    (repository / ".dvc" / "config.local").write_text(local)
    listed = [Path("models/a.txt"), Path("features/x/0.npy"), repository / "features"]
    assert [find_pull(each) for each in listed] == [command] * 3
    expected = f"Run `{command}` to fetch it, or `dvc repro` to make it" if command else "Run `dvc repro`"
    assert advise_to_make(listed[0]) == expected
    assert find_pull(Path("b")) == find_pull(Path("models")) == find_pull(listed[0], Path("b")) == find_pull() == ""
    for damaged in ("stages: [", "stages: {train: {outs: [1]}}", ""):
        (repository / "dvc.lock").write_text(damaged)
        assert advise_to_make(listed[0]) == "Run `dvc repro`"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a git repository with committed params, and go there as a stage does."""
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT", "DVC_STAGE", "GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("train:\n  learning_rate: 0.1\n  units:\n  - 4\nprepare:\n  seed: 0\n")
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    _git("init", "--quiet", "--initial-branch", "main")
    _git("add", ".")
    _commit("start")
    return tmp_path


def _commit(message: str) -> None:
    _git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--all", "--message", message)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_a_clean_commit_is_restored_by_its_revision(repository: Path) -> None:
    commit = _git("rev-parse", "HEAD")
    (repository / "dvc.lock").write_text("stages: {prepare: {}}\n")  # DVC writes it while the pipeline runs
    found = find_provenance()
    assert found == Provenance(commit, "main", dirty=False, experiment="")
    assert found.restore_command() == f"git checkout {commit} && dvc repro"


def test_a_result_of_changed_files_is_dirty_and_no_commit_restores_it(repository: Path) -> None:
    (repository / "params.yaml").write_text("train: {}\n")
    found = find_provenance()
    assert found.dirty
    assert found.restore_command() == ""


def test_a_run_is_compared_with_the_last_result_and_not_with_what_was_committed_to_be_run(repository: Path) -> None:
    start = _git("rev-parse", "HEAD")
    assert find_last_result(start) == start
    (repository / "params.yaml").write_text("train:\n  learning_rate: 0.2\n")
    _commit("params")
    assert find_last_result(_git("rev-parse", "HEAD")) == start
    (repository / "dvc.lock").write_text("stages: {prepare: {}}\n")
    _commit("result")
    assert find_last_result("HEAD") == _git("rev-parse", "HEAD")
    assert find_last_result("") == ""


def test_an_experiment_is_restored_by_its_name(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "lower-rate")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0123456789")
    found = find_provenance()
    assert (found.commit, found.experiment) == ("0123456789", "lower-rate")
    assert found.restore_command() == "dvc exp apply lower-rate"


def test_without_git_the_provenance_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert find_provenance() == Provenance("", "", dirty=False, experiment="")
    assert find_provenance().restore_command() == ""
    assert find_changed_params({"train.learning_rate": 0.1}, "") == {}


def test_changed_params_are_those_that_differ_from_the_commit(repository: Path) -> None:
    now = {"train.learning_rate": 0.2, "train.units": [4], "prepare.seed": 0, "train.new": 1}
    assert find_changed_params(now, _git("rev-parse", "HEAD")) == {"train.learning_rate": 0.2}


def test_sections_are_flattened_to_dotted_names() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": 3}) == {"a.b.c": 1, "a.d": [2], "e": 3}


def test_md5s_of_the_lock_are_used_only_when_dvc_runs_the_stage(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "dvc.lock").write_text(
        "stages:\n"
        "  prepare:\n    deps:\n    - path: data\n      md5: 11.dir\n    - path: stages/prepare.py\n      md5: 22\n"
        "  extract:\n    outs:\n    - path: features\n      md5: 33.dir\n"
    )
    assert read_lock() == {}
    monkeypatch.setenv("DVC_STAGE", "train")
    assert read_lock() == {"data": "11.dir", "features": "33.dir"}


def _lock(seed: int, evaluated: str) -> str:
    run = "path: models/mlflow_run_id.txt, md5"
    params = f"params: {{params.yaml: {{train: {{seed: {seed}}}}}}}"
    return (
        f"stages:\n  plot: {{params: {{params.yaml: {{train: {{seed: 0}}, plot: {{dpi: 9}}}}}}}}\n"
        f"  evaluate: {{deps: [{{path: splits, md5: c}}, {{{run}: {evaluated}}}]}}\n"
        f"  train: {{outs: [{{{run}: b}}], {params}}}\n"
    )


def test_a_lock_says_which_params_made_its_classifier_and_whether_its_metrics_are_of_it(repository: Path) -> None:
    lock = repository / "dvc.lock"
    assert read_locked_result().trained == read_locked_result().evaluated == ""
    lock.write_text(_lock(1, "b"))
    _commit("result")
    lock.write_text(_lock(2, "a"))
    committed, here = read_locked_result("HEAD"), read_locked_result()
    assert (committed.trained, committed.evaluated) == ("b", "b")
    assert (here.trained, here.evaluated) == ("b", "a"), "evaluate has not ended since"
    assert committed.params == {"train.seed": 1, "plot.dpi": 9}
    assert here.params == read_locked_params(lock) == {"train.seed": 2, "plot.dpi": 9}, "the page has not been drawn"
    lock.write_text("stages: {train: {outs: [3]}}")
    with pytest.raises(CelebflowError, match="dvc.lock cannot be read"):
        read_locked_result()


def _lock_stages(features_of_train: str, run_of_evaluate: str, run_id: str) -> str:
    """Return a dvc.lock in which extract has made the features 2, and train the run."""
    run = "path: models/mlflow_run_id.txt, md5"
    md5 = hashlib.md5(run_id.encode(), usedforsecurity=False).hexdigest()
    return (
        "stages:\n"
        "  extract: {outs: [{path: features, md5: 2}], params: {params.yaml: {extract: {size: 64}}}}\n"
        f"  train: {{deps: [{{path: features, md5: {features_of_train}}}, {{path: stages/train.py, md5: 9}}],"
        f" outs: [{{{run}: {md5}}}], params: {{params.yaml: {{train: {{epochs: 2}}}}}}}}\n"
        f"  evaluate: {{deps: [{{{run}: {run_of_evaluate or md5}}}]}}\n"
        "  plot: {params: {params.yaml: {plot: {dpi: 9}}}}\n"
    )


@pytest.mark.parametrize(
    ("features", "evaluated", "is_trained", "is_whole"),
    [("2", "", True, True), ("1", "", False, False), ("2", "a", True, False)],
)
def test_a_lock_says_whether_its_stages_have_followed_one_another(
    repository: Path, features: str, evaluated: str, is_trained: bool, is_whole: bool
) -> None:
    (repository / "dvc.lock").write_text(_lock_stages(features, evaluated, "run"))
    locked = read_locked_result()
    assert (locked.is_trained, locked.is_whole()) == (is_trained, is_whole)
    assert locked.is_of("run") == is_trained
    assert not locked.is_of("other")


def test_params_that_made_a_classifier_are_those_of_the_lock_if_it_is_of_it(repository: Path) -> None:
    current = {"extract.size": 64, "train.epochs": 50, "train.new": 1, "plot.dpi": 150}
    assert restore_params(current, "run") == current, "there is no dvc.lock"
    (repository / "dvc.lock").write_text(_lock_stages("2", "a", "run"))
    assert restore_params(current, "run") == {**current, "train.epochs": 2}, "the page is drawn as params.yaml says"
    assert restore_params(current, "other") == current
    (repository / "models").mkdir()
    (repository / "models/mlflow_run_id.txt").write_text("run")
    assert restore_params(current)["train.epochs"] == 2
    (repository / "dvc.lock").write_text(_lock_stages("1", "", "run"))
    assert restore_params(current, "run") == current, "extract has run since"


def test_dvc_does_not_record_another_classifier_than_that_of_the_lock(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_own_classifier("run")
    monkeypatch.setenv("DVC_STAGE", "evaluate")
    require_own_classifier("run")
    (repository / "dvc.lock").write_text(_lock_stages("2", "", "run"))
    require_own_classifier("run")
    with pytest.raises(CelebflowError, match="dvc checkout"):
        require_own_classifier("other")


def test_params_are_those_of_a_revision_or_of_the_workspace(repository: Path) -> None:
    (repository / "params.yaml").write_text("train: {seed: 3}\n")
    assert read_params() == {"train.seed": 3}
    assert read_params("HEAD")["train.learning_rate"] == 0.1
    assert read_params("nothing") == {}
