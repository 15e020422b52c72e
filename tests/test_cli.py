"""The command line starts without torch, helps, and ends with clear errors."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from celebflow import cli, paths
from celebflow.backbone.vgg19 import BackboneSource
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.data.photos import Photo, load_photos, save_photos
from celebflow.features.cache import open_cache
from celebflow.features.origin import FeatureOrigin
from celebflow.features.sparse import SparseRow
from celebflow.features.store import save_features
from celebflow.features.transform import Transform


def _run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "celebflow.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_help_names_the_commands() -> None:
    for arguments in (["--help"], ["-h"]):
        result = _run(*arguments)
        assert result.returncode == 0
        assert "sample" in result.stdout
        assert not re.search(r"^  .*\.\.\.$", result.stdout, re.MULTILINE), "what a command does stands on one line"
    assert len(cli.main.commands) > 10
    for command in [[name] for name in cli.main.commands] + [["cache", "prune"], ["runs", "sync"]]:
        help_text = _run(*command, "--help").stdout
        assert f"\n    celebflow {' '.join(command)}" in help_text, "examples stand on lines of their own"
        assert "\\b" not in help_text


def test_help_imports_neither_torch_nor_mlflow() -> None:
    code = "import sys, celebflow.cli; print([m for m in ('torch', 'mlflow', 'matplotlib', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_usage_and_other_errors_end_with_a_status_and_no_traceback(tmp_path: Path) -> None:
    assert _run("sampel").returncode == 2
    (tmp_path / "holiday.jpg").touch()
    result = _run("sample", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "holiday.jpg" in result.stderr


def test_signals_end_programs_with_the_status_that_shells_expect() -> None:
    for number, word in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")):
        code = f"""
import os
from celebflow.errors import run_to_exit
run_to_exit(lambda: os.kill(os.getpid(), {int(number)}))
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (result.returncode, result.stderr.strip()) == (128 + number, word)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with three photographs, features of four and of another runtime, and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("CELEBFLOW_CACHE", raising=False)
    photos = [Photo(f"Ann/{number}.jpg", "Ann", "train", f"{number:064}", f"{number:064}") for number in range(4)]
    row = SparseRow.from_dense(np.arange(5000, dtype=np.float32))
    for runtime in ("torch", "ncnn"):
        origin = FeatureOrigin(BackboneSource("imagenet", True, "0" * 64), Transform(224), runtime)
        with open_cache(paths.feature_cache(), origin) as cache:
            for photo in photos:
                cache.put(photo, {"original": row}, 0)
            save_features(photos[1:], cache, paths.FEATURES)
    save_photos(photos[1:], paths.PHOTOS)
    Checkpoints(paths.checkpoints() / "abc").save({"a": torch.zeros(250_000)}, [])
    return tmp_path


def test_cache_shows_its_size(filled: Path, tmp_path: Path) -> None:
    result = _run("cache", folder=filled)
    features, checkpoints = result.stdout.splitlines()
    assert "8 entries, 0.3 MB" in features
    assert "checkpoints of 1 interrupted trainings, 1.0 MB" in checkpoints
    (tmp_path / "empty").mkdir()
    assert "0 entries, 0.0 MB" in _run("cache", folder=tmp_path / "empty").stdout


def test_cache_prune_keeps_what_the_photographs_here_need(filled: Path) -> None:
    result = _run("cache", "prune", folder=filled)
    assert "3 entries" in result.stdout
    assert "checkpoints of 0 interrupted trainings" in result.stdout
    origin = FeatureOrigin.load(paths.FEATURES / "origin.json")
    photos = load_photos(paths.PHOTOS)
    with open_cache(paths.feature_cache(), origin) as cache:
        assert [cache.get(photo, "original") is not None for photo in photos] == [True] * 3
    assert sorted(path.name for path in (filled / ".celebflow").iterdir()) == [
        "checkpoints",
        "features",
        "features.lock",
    ]
    assert list((filled / ".celebflow" / "checkpoints").iterdir()) == []


def test_cache_prune_without_a_result_drops_nothing_unless_all(filled: Path) -> None:
    (filled / "splits" / "photos.csv").unlink()
    result = _run("cache", "prune", folder=filled)
    assert (result.returncode, "--all" in result.stderr) == (1, True)
    assert "8 entries" in _run("cache", folder=filled).stdout
    assert "0 entries, 0.0 MB" in _run("cache", "prune", "--all", folder=filled).stdout


def test_cache_prune_during_a_pipeline_leaves_it_its_own(filled: Path) -> None:
    origin = FeatureOrigin.load(paths.FEATURES / "origin.json")
    photos = load_photos(paths.PHOTOS)
    with open_cache(paths.feature_cache(), origin) as cache:
        assert _run("cache", "prune", "--all", folder=filled).returncode == 0
        cache.put(photos[0], {"original": SparseRow.from_dense(np.ones(7, np.float32))}, 0)
        assert all(cache.get(photo, "original") is not None for photo in photos)


def test_a_cache_that_cannot_be_read_is_a_clear_error(filled: Path) -> None:
    (filled / ".celebflow" / "features" / "data.mdb").write_bytes(b"x" * 8192)
    result = _run("cache", folder=filled)
    assert (result.returncode, "cannot be opened" in result.stderr) == (1, True)
