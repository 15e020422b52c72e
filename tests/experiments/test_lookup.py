"""The files of a result are found by its name, or it is said why not."""

import subprocess
from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.experiments.lookup import find_predictions


def test_head_without_a_commit_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with pytest.raises(CelebflowError, match="not in a git repository.*git init"):
        find_predictions("HEAD", "val")
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(CelebflowError, match="no commit yet.*git commit"):
        find_predictions("HEAD", "val")
