"""Results are read with DVC, whose reasons not to read them are told with the remedy."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments.results import copy_outputs, list_results
from tests import COMMITTED_PARAMS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize(
    "read", [lambda: list_results(1), lambda: copy_outputs([paths.CLASSIFIER], "HEAD", Path())], ids=["list", "copy"]
)
def test_a_repository_that_git_trusts_and_dvc_does_not_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], object]
) -> None:
    for name in ("DVC_ROOT", "GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "a project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    paths.PARAMS.write_text(COMMITTED_PARAMS, encoding="utf-8")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "--message", "start"], check=True)
    for each in (folder, folder / ".git"):
        os.chown(each, 12345, 12345)
    for name, value in (("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", "*")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    with pytest.raises(CelebflowError) as caught:
        read()
    for part in (str(folder), "another user", f"git config --global --add safe.directory '{folder}'"):
        assert part in str(caught.value)
