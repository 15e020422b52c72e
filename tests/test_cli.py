"""The command line starts without torch, explains itself, and ends with clear errors."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from celebflow import cli, paths
from celebflow.backbone.source import BackboneSource
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.fits import Fits
from celebflow.data.photos import Photo, load_photos, save_photos
from celebflow.errors import CelebflowError
from celebflow.experiments import recommendation, registry, search
from celebflow.features.cache import measure_cache, open_cache
from celebflow.features.origin import FeatureOrigin
from celebflow.features.sparse import SparseRow
from celebflow.features.store import save_features
from celebflow.features.transform import Transform
from celebflow.params import Params
from tests import COMMITTED_PARAMS, REPOSITORY


def _run(*arguments: str) -> str:
    """Run a command in this process, where torch is already loaded, and return its output."""
    return CliRunner().invoke(cli.main, arguments, catch_exceptions=False).output


def _start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "celebflow.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command", ["runs", "compare HEAD", "page --against HEAD", "predict --rev HEAD x.jpg", "search train.dropout=0,0.5"]
)
def test_a_project_whose_path_is_not_utf_8_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    (folder / "dvc.yaml").touch()
    monkeypatch.chdir(folder)
    error = CliRunner().invoke(cli.main, command.split()).exception
    assert isinstance(error, CelebflowError)
    for part in (str(folder), "not in UTF-8", "Rename"):
        assert part in str(error)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_the_commands_with_a_line_each(option: str) -> None:
    help_text = _run(option)
    assert "sample" in help_text
    assert not re.search(r"^  .*\.\.\.$", help_text, re.MULTILINE), "the summary of a command fits on its line"


def test_help_of_a_command_has_examples_on_lines_of_their_own() -> None:
    assert len(cli.main.commands) > 10
    for command in [[name] for name in cli.main.commands] + [["cache", "prune"], ["runs", "sync"]]:
        help_text = _run(*command, "--help")
        assert f"\n    celebflow {' '.join(command)}" in help_text
        assert "\b" not in help_text and "\\b" not in help_text


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("celebflow.cli", {"torch", "mlflow", "dvc", "matplotlib", "PIL"}),
        ("celebflow.experiments.results", {"torch", "mlflow"}),  # celebflow runs, which imports MLflow for its store
        ("celebflow.tracking.stores", {"torch"}),
        ("celebflow.experiments.lookup", {"torch", "mlflow"}),  # celebflow compare, and the option --rev
        ("celebflow.evaluation.comparison", {"torch", "mlflow"}),
        ("stages.prepare", {"torch", "mlflow"}),
        ("stages.extract", {"torch", "mlflow"}),
    ],
)
def test_slow_libraries_are_imported_only_where_they_are_used(module: str, unneeded: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) & unneeded == set()


def test_usage_and_other_errors_end_with_a_status_and_no_traceback(tmp_path: Path) -> None:
    assert _start("sampel").returncode == 2
    (tmp_path / "holiday.jpg").touch()
    result = _start("sample", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "holiday.jpg" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", ""],
        ["sample", ""],
        ["compare", "HEAD", "--html", ""],
        ["page", "--against", "HEAD", "--output", ""],
        ["openset", "--sheet", ""],
        ["verify", "--pairs", ""],
        ["predict", "--rev", "", "a.jpg"],
        ["predict", "--model", "", "a.jpg"],
        ["serve", "--rev", ""],
        ["openset", "--rev", ""],
        ["drift", ".", "--sheet", ""],
        ["compare", ""],
        ["compare", "HEAD", ""],
        ["page", "--against", ""],
        ["register", ""],
        ["enroll", "", "a.jpg"],
        ["recipe", ""],
    ],
    ids=" ".join,
)
def test_an_empty_name_which_an_unset_variable_leaves_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.main, arguments)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "it is empty" in result.stderr


def test_a_working_directory_that_was_removed_is_told_with_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    script = 'cd "$0" && rmdir "$0" && exec "$1" -P -m celebflow.cli predict a.jpg'
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = ["sh", "-c", script, str(folder), sys.executable]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: The working directory cannot be used")
    assert "change to a folder" in result.stderr


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_signals_end_programs_with_the_status_that_shells_expect(number: signal.Signals, word: str) -> None:
    code = f"""
import os
from celebflow.errors import run_to_exit
run_to_exit(lambda: os.kill(os.getpid(), {int(number)}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr.strip()) == (128 + number, word)


def test_interrupted_commands_end_as_stages_do() -> None:
    code = f"""
import os, sys
from celebflow import cli
from celebflow.data import invented_people
sys.argv = ["celebflow", "sample", "people"]
invented_people.draw_sample_data = lambda folder: os.kill(os.getpid(), {int(signal.SIGINT)})
cli.main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr.strip()) == (130, "interrupted")


def test_a_run_is_registered_as_the_champion_by_its_accuracy_of_val(monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(
        info=SimpleNamespace(run_id="f" * 32, run_name="lower rate"),
        data=SimpleNamespace(metrics={"val/final_accuracy": 0.75, "val/final_loss": 1.0}),
    )
    calls = []

    def register(run_name: str | None, metric: str, alias: str) -> tuple[SimpleNamespace, SimpleNamespace]:
        calls.append((run_name, metric, alias))
        return run, SimpleNamespace(version=3, name="celebflow")

    monkeypatch.setattr(registry, "register", register)
    output = _run("register")
    assert f"lower rate ({'f' * 32}, val/final_accuracy 0.7500) is version 3 of celebflow, alias champion" in output
    assert "mlflow models serve -m models:/celebflow@champion" in output
    _run("register", "f" * 8, "--metric", "val/other", "--alias", "newest")
    assert calls == [(None, "val/final_accuracy", "champion"), ("f" * 8, "val/other", "newest")]


def test_a_search_prints_each_trial_and_the_best_and_judges_by_accuracy_of_val(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths.PIPELINE.touch()
    paths.PARAMS.write_text(COMMITTED_PARAMS)
    trials = [
        search.Trial("tuning-2", {"train.dropout": 0.3}, 0.75),
        search.Trial("tuning-1", {"train.dropout": 0.5}, 0.5),
        search.Trial("tuning-3", {"train.dropout": 0.4}, None),
    ]

    def run_search(
        name: str,
        params: Params,
        fixed: Mapping[str, object],
        spaces: Sequence[search.Space],
        trial_count: int,
        metric: str,
        on_trial: Callable[[search.Trial], object],
        at_once: int,
    ) -> search.SearchResult:
        assert (name, params, fixed, trial_count, metric) == ("tuning", Params(), {}, 3, "val.accuracy")
        assert at_once == 1
        assert spaces == [search.Space("train.dropout", low=0.3, high=0.5)]
        for trial in trials:
            on_trial(trial)
        return search.SearchResult(trials, {}, "", "")

    monkeypatch.setattr(search, "search", run_search)
    monkeypatch.setattr(recommendation, "format_recommendation", lambda result, _: result.trials[0].name)
    lines = _run("search", "train.dropout=0.3..0.5", "--trials", "3", "--name", "tuning").splitlines()
    assert lines[:3] == [
        "tuning-2: train.dropout=0.3: val.accuracy 0.7500",
        "tuning-1: train.dropout=0.5: val.accuracy 0.5000",
        "tuning-3: train.dropout=0.4: failed",
    ]
    assert [line.split() for line in lines[4:8]] == [
        ["experiment", "val.accuracy", "train.dropout"],
        ["tuning-2", "0.75", "0.3"],
        ["tuning-1", "0.5", "0.5"],
        ["tuning-3", "0.4"],
    ]
    assert lines[-1] == "tuning-2"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make caches: features of three photographs, of a fourth and of another runtime, and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    paths.PIPELINE.touch()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("CELEBFLOW_CACHE", raising=False)
    photos = [Photo(f"Ann/{number}.jpg", "Ann", "train", f"{number:064}", f"{number:064}") for number in range(4)]
    row = SparseRow.from_dense(np.arange(5000, dtype=np.float32))
    for runtime in ("torch", "ncnn"):
        origin = FeatureOrigin(BackboneSource("imagenet", True, "0" * 64), Transform(224), runtime)
        with open_cache(paths.feature_cache(), origin) as cache:
            for photo in photos:
                cache.put(photo, {origin.transform: row}, [])
            save_features(photos[1:], cache, paths.FEATURES)
    save_photos(photos[1:], paths.PHOTOS)
    Checkpoints(paths.checkpoints() / "abc").save({"a": torch.zeros(250_000)}, [])
    Fits(paths.fits(), "features").recall("A fit", 1, lambda: {"a": torch.zeros(500_000)})
    return tmp_path / ".celebflow"


def _find_cached() -> list[bool]:
    """Return which of the photographs here have cached features."""
    photos = load_photos(paths.PHOTOS)
    with open_cache(paths.feature_cache(), FeatureOrigin.load(paths.FEATURES / "origin.json")) as cache:
        return [cache.get(photo, "original") is not None for photo in photos]


def test_cache_shows_its_size(caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked, features, checkpoints, fits = _run("cache").splitlines()
    assert "checked.db: 0 photographs" in checked
    assert "8 entries, 0.3 MB" in features
    assert "checkpoints of 1 interrupted trainings, 1.0 MB" in checkpoints
    assert "1 fits for other trainings, 2.0 MB" in fits
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    paths.PIPELINE.touch()
    assert "0 entries, 0.0 MB" in _run("cache")


def test_cache_prune_keeps_what_the_photographs_here_need(caches: Path) -> None:
    output = _run("cache", "prune")
    assert "3 entries" in output
    assert "checkpoints of 0 interrupted trainings" in output
    assert _find_cached() == [True] * 3
    assert sorted(path.name for path in caches.iterdir()) == ["checkpoints", "features", "features.lock", "fits"]
    assert list((caches / "checkpoints").iterdir()) == list((caches / "fits").iterdir()) == []


def test_cache_prune_without_a_result_removes_nothing_unless_all(caches: Path) -> None:
    paths.PHOTOS.unlink()
    with pytest.raises(CelebflowError, match="--all"):
        _run("cache", "prune")
    assert "8 entries" in _run("cache")
    assert "0 entries, 0.0 MB" in _run("cache", "prune", "--all")


@pytest.mark.parametrize("arguments", [["prune"], ["prune", "--all"]])
def test_cache_prune_asks_where_other_projects_share_the_cache(
    caches: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = caches.rename(caches.with_name("shared")) / "features"
    monkeypatch.setenv("CELEBFLOW_CACHE", "shared/features")
    with pytest.raises(CelebflowError, match=r"shared/features.*--yes"):  # no terminal
        _run("cache", *arguments)
    assert "8 entries" in _run("cache")
    assert "entries" in _run("cache", *arguments, "--yes")
    assert measure_cache(shared).entries == (0 if "--all" in arguments else 3)


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "status", "entries"), [("y", 0, 3), ("\x03", 130, 8)], ids=["yes", "Ctrl-C"])
def test_cache_prune_does_what_the_terminal_answers(
    caches: Path, answer: str, status: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = caches.rename(caches.with_name("shared")) / "features"
    monkeypatch.setenv("CELEBFLOW_CACHE", str(shared))
    controller, terminal = os.openpty()
    os.write(controller, f"{answer}\n".encode())
    command = [sys.executable, "-m", "celebflow.cli", "cache", "prune"]
    process = subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output, _ = process.communicate(timeout=60)
    os.close(controller)
    os.close(terminal)
    assert process.returncode == status, output
    assert str(shared) in output and "Traceback" not in output
    assert measure_cache(shared).entries == entries


def test_the_address_of_the_cache_is_relative_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "project" / ".dvc" / "tmp" / "copy"
    for folder in (tmp_path / "project", copy):
        (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("CELEBFLOW_CACHE", "../shared")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    monkeypatch.chdir(copy)
    assert paths.feature_cache().resolve() == tmp_path / "shared"


@pytest.mark.slow  # a process of its own, as LMDB opens a store only once per process
def test_cache_prune_during_a_pipeline_keeps_what_the_pipeline_uses(caches: Path) -> None:
    photos = load_photos(paths.PHOTOS)
    with open_cache(paths.feature_cache(), FeatureOrigin.load(paths.FEATURES / "origin.json")) as cache:
        assert _start("cache", "prune", "--all").returncode == 0
        cache.put(photos[0], {cache.origin.transform: SparseRow.from_dense(np.ones(7, np.float32))}, [])
        assert all(cache.get(photo, "original") is not None for photo in photos)


def test_a_cache_that_cannot_be_read_is_a_clear_error(caches: Path) -> None:
    (caches / "features" / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(CelebflowError, match=r"(?s)\.celebflow/features.*cannot be opened"):
        _run("cache")
