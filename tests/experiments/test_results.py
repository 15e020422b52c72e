"""Results are read with DVC, whose reasons not to read them are told with the remedy."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import dvc.api
import pytest

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments.results import copy_outputs, find_cached_file, list_results
from tests import COMMITTED_PARAMS


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
