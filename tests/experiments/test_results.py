"""Results are read with DVC, whose reasons not to read them are told with the remedy."""

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import dvc.api
import pytest
import yaml
from celery.backends.filesystem import FilesystemBackend  # type: ignore[import-untyped]
from dvc.exceptions import NotDvcRepoError

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments.lookup import (
    find_person_predictions,
    find_predictions,
    find_predictions_of_params,
    find_result,
)
from celebflow.experiments.results import (
    WORKSPACE,
    copy_outputs,
    find_cached_file,
    find_pending_changes,
    format_results,
    list_results,
    read_experiment_run,
)
from celebflow.tracking.provenance import read_locked_md5s
from tests import COMMITTED_PARAMS
from tests.repository import Repository

REMOTE = "['remote \"{}\"']\n    url = {}\n[core]\n    remote = photographs\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with params, outside of git and DVC."""
    for name in ("DVC_ROOT", "GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "a project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    paths.PARAMS.write_text(COMMITTED_PARAMS, encoding="utf-8")
    return folder


def _commit() -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "--message", "start"], check=True)


def test_without_git_or_dvc_the_remedy_is_told(folder: Path) -> None:
    (folder / ".dvc").mkdir()
    with pytest.raises(CelebflowError, match="not a git repository.*`git init`"):
        find_cached_file("0" * 32)
    shutil.rmtree(folder / ".dvc")
    _commit()
    with pytest.raises(CelebflowError, match="`dvc init`"):
        find_cached_file("0" * 32)


def test_a_database_of_dvc_that_cannot_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    _commit()
    monkeypatch.setattr(dvc.api, "DVCFileSystem", fail)
    with pytest.raises(CelebflowError, match=f"{paths.CLASSIFIER} of HEAD.*disk I/O error"):
        copy_outputs([paths.CLASSIFIER], "HEAD", folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize(
    "read", [lambda: list_results(1), lambda: copy_outputs([paths.CLASSIFIER], "HEAD", Path())], ids=["list", "copy"]
)
def test_a_repository_that_git_trusts_and_dvc_does_not_is_told_with_the_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], object]
) -> None:
    _commit()
    for each in (folder, folder / ".git"):
        os.chown(each, 12345, 12345)
    for name, value in (("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", "*")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    with pytest.raises(CelebflowError) as caught:
        read()
    for part in (str(folder), "another user", f"git config --global --add safe.directory '{folder}'"):
        assert part in str(caught.value)


def test_what_dvc_cannot_read_is_told_with_the_remedy(folder: Path) -> None:
    _commit()
    subprocess.run(["dvc", "init", "--quiet"], check=True)
    paths.PIPELINE.write_text("stages: {}\n")
    assert list_results(1)
    for name, content in (
        ("dvc.yaml", "<<<<<<< HEAD\nstages: {}\n=======\n"),
        ("data.dvc", "<<<<<<< HEAD\nouts:\n"),
        ("data.dvc", "- 1\n"),
        ("dvc.yaml", "stages: 3\n"),
    ):
        before = Path(name).read_text() if Path(name).exists() else None
        Path(name).write_text(content)
        with pytest.raises(CelebflowError, match=f"DVC cannot read .*{name}.*git checkout HEAD -- .*{name}"):
            list_results(1)
        Path(name).unlink() if before is None else Path(name).write_text(before)


@pytest.mark.slow
def test_metrics_stand_beside_the_params_and_the_run_that_made_them(clone: Repository) -> None:
    made, committed, *_ = list_results(1)
    assert (made.revision, made.changed_params) == (WORKSPACE, {"train.learning_rate": 1e-9})
    assert (made.metrics, committed.metrics) != ({}, {})
    assert find_pending_changes() == {}
    clone.edit("learning_rate: 1.0e-09", "learning_rate: 0.5")
    clone.edit("seed: 0", "seed: 4")
    assert list_results(1)[0] == made, "the change has not been run"
    assert find_pending_changes()["train.learning_rate"] == 0.5
    output = clone.invoke("runs")
    assert "before params.yaml changed" in output and "train.learning_rate" in output and "0.5" not in output
    # The lock of another result, as after a merge: its metrics are of other params than those that were committed.
    clone.run("git", "checkout", "--quiet", "HEAD", "--", "params.yaml")
    clone.run("git", "commit", "--quiet", "--all", "--message", "its dvc.lock alone")
    assert list_results(1)[1].metrics == made.metrics
    assert list_results(1)[1].run_id == made.run_id
    assert list_results(2)[2].changed_params == {"train.learning_rate": 0.001}, "the other commit's"


@pytest.mark.slow
def test_results_are_listed_also_where_dvc_cannot_keep_its_list(
    clone: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list_results(1)
    assert all(result.metrics for result in expected if not result.state)

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shutil.rmtree(".dvc/tmp/exps/cache")
    monkeypatch.setattr("dvc.repo.experiments.cache.ExpCache.put", fail)
    assert list_results(1) == expected


@pytest.mark.slow
def test_a_run_that_evaluate_has_not_ended_has_no_metrics_of_the_result_before_it(clone: Repository) -> None:
    before = list_results(1)[0]
    newer, older = (run.info.run_id for run in clone.runs())
    assert before.run_id == newer
    paths.MLFLOW_RUN_ID.unlink()  # a link to DVC's cache
    paths.MLFLOW_RUN_ID.write_text(older)
    clone.edit("learning_rate: 1.0e-09", "learning_rate: 0.5")
    now = list_results(1)[0]
    assert (now.run_id, now.metrics, now.changed_params) == (older, {}, {"train.learning_rate": 0.5})
    assert "before params.yaml changed" not in clone.invoke("runs")


@pytest.mark.slow
def test_a_stage_that_ran_since_leaves_no_metrics_of_the_result_before_it(clone: Repository) -> None:
    clone.edit("image_size_px: 64", "image_size_px: 48")
    clone.run("dvc", "repro", "extract")
    now = list_results(1)[0]
    assert (now.metrics, now.run_id) == ({}, ""), "train has not ended since"
    assert now.changed_params["extract.image_size_px"] == 48
    with pytest.raises(CelebflowError, match=r"evaluate has not ended.*dvc repro"):
        find_result(WORKSPACE, "val")
    clone.run("dvc", "repro", "train")
    for find in (find_result, find_predictions, find_person_predictions):
        with pytest.raises(CelebflowError, match=r"evaluate has not ended.*dvc repro"):
            find(WORKSPACE, "val")
    assert find_result("HEAD", "val").params["extract.image_size_px"] == 64
    start = {**find_result("HEAD", "val").params, "extract.image_size_px": 48}
    assert find_predictions_of_params([WORKSPACE], start, read_locked_md5s()["data"], "val") is None


@pytest.mark.slow
def test_the_files_of_another_branch_are_not_shown_with_the_params_of_this_one(clone: Repository) -> None:
    clone.run("git", "commit", "--quiet", "--all", "--message", "the second result")
    clone.run("git", "checkout", "--quiet", "HEAD~1")
    with pytest.raises(CelebflowError, match="dvc checkout"):
        find_result(WORKSPACE, "val")
    assert find_predictions(WORKSPACE, "val"), "these are of one result, and no params are shown"
    (newer, _) = clone.runs()
    assert "dvc checkout" in clone.run("dvc", "repro", "--force", "--single-item", "evaluate", status=255)
    (again, _) = clone.runs()
    assert again.data.tags["celebflow.classifier_md5"] == newer.data.tags["celebflow.classifier_md5"]


@pytest.mark.slow
def test_experiments_that_have_not_ended_well_have_no_metrics(clone: Repository) -> None:
    clone.run("dvc", "exp", "run", "--queue", "--name", "later", "--set-param", "train.learning_rate=0.5")
    (queued,) = [result for result in list_results(1) if result.experiment == "later"]
    assert (queued.state, queued.metrics, queued.run_id) == ("queued", {}, "")
    assert queued.changed_params == {"train.learning_rate": 0.5}
    assert "later (queued)" in format_results([queued])


@pytest.mark.slow
def test_the_run_of_an_experiment_is_not_that_of_a_branch_of_its_name(clone: Repository) -> None:
    head = clone.run("git", "rev-parse", "HEAD").strip()
    clone.run("git", "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/faster", head)
    clone.run("git", "branch", "faster", "HEAD~1")
    assert read_experiment_run("faster") == clone.runs()[1].info.run_id
    clone.run("git", "checkout", "--quiet", "--orphan", "empty")
    with pytest.raises(CelebflowError, match="no commit yet"):
        read_experiment_run("faster")


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["HEAD:params.yaml", "HEAD^{tree}"])
def test_what_is_no_commit_is_told(clone: Repository, tmp_path: Path, revision: str) -> None:
    with pytest.raises(CelebflowError, match="is no commit"):
        copy_outputs([paths.PARAMS], revision, tmp_path)


@pytest.mark.slow
def test_results_in_the_cache_need_no_library_for_the_remote(clone: Repository, tmp_path: Path) -> None:
    Path(".dvc/config.local").write_text(REMOTE.format("photographs", "oss://bucket/photographs"))
    assert all(result.run_id for result in list_results(1))
    assert copy_outputs([paths.CLASSIFIER], "HEAD", tmp_path) == [tmp_path / paths.CLASSIFIER.name]
    shutil.rmtree(".dvc/cache/files")
    with pytest.raises(CelebflowError, match="cache lacks.*`dvc pull"):
        copy_outputs([paths.CLASSIFIER], "HEAD", tmp_path)


@pytest.mark.slow
def test_results_whose_metrics_are_elsewhere_are_named_and_not_listed(
    clone: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [each.experiment for each in list_results(1)] == ["", "", "faint"]
    assert "faint" not in capsys.readouterr().err
    outputs = yaml.safe_load(paths.LOCK.read_text())["stages"]["evaluate"]["outs"]
    (md5,) = [output["md5"] for output in outputs if output["path"] == str(paths.METRICS)]
    Path(".dvc", "cache", "files", "md5", md5[:2], md5[2:]).unlink()
    shutil.rmtree(Path(".dvc", "tmp", "exps"), ignore_errors=True)  # what DVC remembers of results
    clone.run("git", "rm", "--quiet", "--cached", "dvc.lock")
    clone.run("git", "commit", "--quiet", "--message", "a commit without a result")
    assert [each.experiment for each in list_results(1)] == ["", ""]
    told = capsys.readouterr().err
    assert "faint" in told and "dvc pull --all-commits" in told and "dvc exp push" in told
    assert "main" not in told and "master" not in told, "there is nothing to get"


@pytest.mark.slow
@pytest.mark.parametrize("content", ["{", "<html></html>", ""])
def test_a_result_whose_metrics_are_damaged_is_named(
    clone: Repository, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    outputs = yaml.safe_load(paths.LOCK.read_text())["stages"]["evaluate"]["outs"]
    (md5,) = [output["md5"] for output in outputs if output["path"] == str(paths.METRICS)]
    cached = Path(".dvc", "cache", "files", "md5", md5[:2], md5[2:])
    cached.unlink()  # the workspace may have a link to it
    cached.write_text(content)
    shutil.rmtree(Path(".dvc", "tmp"))  # what DVC remembers of results
    assert "faint" not in [each.experiment for each in list_results(2)]
    assert "faint" in capsys.readouterr().err


@pytest.mark.slow
def test_before_a_checkout_the_workspace_has_its_run(clone: Repository) -> None:
    run_id = clone.run_id()
    paths.MLFLOW_RUN_ID.unlink()
    assert list_results(1)[0].run_id == run_id


@pytest.mark.slow
def test_a_remote_whose_address_is_none_is_told_and_no_traceback(clone: Repository, tmp_path: Path) -> None:
    (clone.folder / ".dvc" / "config.local").write_text(
        "[core]\n    remote = r\n['remote \"r\"']\n    url = http://127.0.0.1:99999/faces\n"
    )
    shutil.rmtree(clone.folder / ".dvc" / "cache")
    assert [each.revision for each in list_results(1)] == [WORKSPACE], "as where a remote cannot be reached"
    with pytest.raises(CelebflowError, match="Port out of range"):
        copy_outputs([paths.CLASSIFIER], "HEAD", tmp_path)


@pytest.mark.slow
def test_a_remote_that_cannot_be_reached_is_told_once_and_left_out(
    clone: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".dvc/config.local").write_text(REMOTE.format("photographs", "s3://bucket/photographs"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    shutil.rmtree(".dvc/cache/files")
    assert list_results(2)[0].revision == WORKSPACE
    told = capsys.readouterr().err
    assert told.count("DVC's remote cannot be used: Could not connect") == 1
    with pytest.raises(CelebflowError, match="HEAD cannot be read .*Could not connect.* credentials"):
        copy_outputs([paths.CLASSIFIER], "HEAD", tmp_path)


@pytest.mark.slow
def test_an_experiment_that_ends_while_results_are_listed_is_no_error(
    clone: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, show, calls = list_results(1), dvc.api.exp_show, []

    def show_after_its_end(**options: object) -> object:
        calls.append(options)
        if len(calls) == 1:
            raise NotDvcRepoError("directory '.dvc/tmp/exps/tmp/.dvc' does not exist")
        return show(**options)

    monkeypatch.setattr(dvc.api, "exp_show", show_after_its_end)
    assert list_results(1) == expected


@pytest.mark.slow
def test_a_queue_that_cannot_be_read_or_used_is_told_and_no_traceback(
    clone: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.run("dvc", "exp", "run", "--queue", "--name", "later", "--set-param", "train.learning_rate=0.5")
    queue = clone.folder / ".dvc" / "tmp" / "exps" / "celery"
    (message,) = queue.glob("broker/in/*.msg")
    whole = message.read_text()
    for damaged in ("{}", whole[:100]):
        message.write_text(damaged)
        with pytest.raises(CelebflowError, match=r"DVC cannot list its experiments.*move \.dvc/tmp/exps/celery away"):
            list_results(1)
    message.write_text(whole)
    (queue / "broker" / "processed").mkdir(exist_ok=True)
    message.rename(queue / "broker" / "processed" / message.name)  # as one whose experiment runs

    def refuse(self: object, key: object, value: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", os.fsencode(queue / "result"))

    monkeypatch.setattr(FilesystemBackend, "set", refuse)
    with pytest.raises(CelebflowError, match=r"^/.*result cannot be used .Permission denied"):
        list_results(1)


@pytest.mark.slow
def test_a_remote_that_is_not_described_is_told_with_the_remedy(clone: Repository, tmp_path: Path) -> None:
    Path(".dvc/config.local").write_text(REMOTE.format("other", "oss://bucket/photographs"))
    for read in (lambda: list_results(1), lambda: copy_outputs([paths.CLASSIFIER], "HEAD", tmp_path)):
        with pytest.raises(CelebflowError, match="remote photographs .*`dvc remote add photographs ADDRESS`"):
            read()
