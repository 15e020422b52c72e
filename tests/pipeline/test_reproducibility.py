"""The outputs of a stage depend only on the deps and params that dvc.yaml declares."""

import os
from pathlib import Path

import pytest
import yaml

from celebflow import paths
from tests.repository import EVERY_STAGE, Repository, clone_repository

pytestmark = pytest.mark.slow


def _read_outputs(repository: Repository) -> dict[Path, bytes]:
    """Return the bytes of every file that a stage writes."""
    content = {}
    for stage in yaml.safe_load((repository.folder / "dvc.yaml").read_text())["stages"].values():
        for output in [*stage["outs"], *stage.get("metrics", [])]:
            place = repository.folder / output
            for file in [place] if place.is_file() else place.rglob("*"):
                content[file.relative_to(repository.folder)] = file.read_bytes() if file.is_file() else b""
    return content


def test_outputs_stay_the_same_when_everything_undeclared_changes(
    template: Repository, two_results: Repository, tmp_path: Path
) -> None:
    before = _read_outputs(template)
    assert _read_outputs(two_results) != before
    # Another result becomes the last commit, on another branch; then the first result returns to the workspace.
    repository = clone_repository(two_results, tmp_path / "repository")
    repository.run("git", "checkout", "--quiet", "-b", "other")
    repository.commit("another result")
    repository.run("git", "checkout", "--quiet", "HEAD~1", "--", "params.yaml", "dvc.lock")
    repository.run("dvc", "checkout", "--quiet")
    assert _read_outputs(repository) == before
    (repository.folder / "notes.txt").write_text("an unrelated file")
    for file in repository.folder.rglob("*"):
        if not {".git", ".dvc"} & set(file.relative_to(repository.folder).parts):
            os.utime(file, (1_000_000_000, 1_000_000_000))
    run_count = len(repository.runs())
    with repository.variables(
        CELEBFLOW_CACHE=str(tmp_path / "other_cache"),
        COLUMNS="40",
        LC_ALL="C",
        PYTHONHASHSEED="1",
        SOURCE_DATE_EPOCH="1000000000",
        TZ="Asia/Tokyo",
    ):
        assert repository.repro("--force", preloaded=False) == EVERY_STAGE
    after = _read_outputs(repository)
    assert before.pop(paths.MLFLOW_RUN_ID) != after.pop(paths.MLFLOW_RUN_ID)
    assert before.keys() == after.keys()
    assert [file for file in before if before[file] != after[file]] == []
    assert len(repository.runs()) == run_count + 1
