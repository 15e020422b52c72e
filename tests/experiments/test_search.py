"""A search tries the values that it may, judges by validation, and does not change the workspace."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
from filelock import FileLock

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments import search as search_module
from celebflow.experiments import search_training
from celebflow.experiments.search import (
    Space,
    Trial,
    Value,
    _require_difference,
    _run_experiment,
    format_trials,
    parse_space,
    search,
)
from celebflow.params import ComputeParams, Params
from celebflow.tasks import TASKS
from celebflow.tracking.processes import name_process
from tests.repository import Repository


class Proposals:
    """Stands in for an Optuna trial: records its calls, and suggests the last choice or the lowest number."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Suggest the last."""
        self.calls.append((name, list(choices)))
        return choices[-1]

    def suggest_int(self, name: str, low: int, high: int, log: bool) -> int:
        """Suggest the lowest."""
        self.calls.append(("int", name, low, high, log))
        return low

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
        """Suggest the lowest."""
        self.calls.append(("float", name, low, high, log))
        return low


@pytest.mark.parametrize(
    ("values", "choices"),
    [
        ("0.3,0.5,1e-3", (0.3, 0.5, 0.001)),
        ("1,2", (1, 2)),
        ("true,false,null", (True, False, None)),
        ("none, balanced", ("none", "balanced")),
        ("[64],[128,64],[]", ("[64]", "[128,64]", "[]")),
        ("600", (600,)),
        ("0.5,nan,inf", (0.5, "nan", "inf")),
    ],
)
def test_choices_are_numbers_words_and_lists_in_brackets(
    params: Params, values: str, choices: tuple[Value, ...]
) -> None:
    space = parse_space(f"train.hidden_units={values}", params)
    assert space == Space("train.hidden_units", choices=choices)
    assert [type(choice) for choice in space.choices] == [type(choice) for choice in choices]
    proposals = Proposals()
    assert space.suggest(proposals) == choices[-1]
    assert proposals.calls == [("train.hidden_units", list(range(len(choices))))]


@pytest.mark.parametrize(
    ("values", "kind", "low", "high", "log"),
    [
        ("1..5", "int", 1, 5, False),
        ("10..1000", "int", 10, 1000, True),
        ("0..100", "int", 0, 100, False),
        ("-3..3", "int", -3, 3, False),
        ("0.1..0.5", "float", 0.1, 0.5, False),
        ("0..0.5", "float", 0, 0.5, False),
        ("1e-5..1e-3", "float", 1e-5, 1e-3, True),
        ("0.05..0.5", "float", 0.05, 0.5, True),
    ],
)
def test_ranges_are_of_whole_numbers_or_other_numbers_and_wide_ones_are_logarithmic(
    params: Params, values: str, kind: str, low: float, high: float, log: bool
) -> None:
    space = parse_space(f"train.weight_decay={values}", params)
    assert space == Space("train.weight_decay", low=low, high=high)
    proposals = Proposals()
    value = space.suggest(proposals)
    assert value == low and type(value) is {"int": int, "float": float}[kind]
    assert proposals.calls == [(kind, "train.weight_decay", low, high, log)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train.dropuot=0.1,0.2",
            r"'train\.dropuot' is not a param.* extract\.image_size_px, .*train\.",
        ),
        ("extract.face=none", r"'extract\.face' is not a param.*extract\.face\.crop"),
        ("prepare.seed=1,2", r"'prepare\.seed' is not a param"),
        ("tracking.experiment=a,b", r"'tracking\.experiment' is not a param"),
        ("train.dropout", r"no values\. Write train\.dropout=a,b,c or train\.dropout=low\.\.high"),
        ("train.dropout=", r"no values\. Write train\.dropout=a,b,c"),
        ("train.dropout=0.5..0.1", r"0\.5\.\.0\.1 is not a valid range of train\.dropout\. Write low\.\.high"),
        ("train.dropout=0.5..0.5", "is not a valid range of train.dropout"),
        ("train.dropout=..0.5", "is not a valid range of train.dropout"),
        ("train.dropout=a..b", "is not a valid range of train.dropout"),
        ("train.dropout=false..true", "is not a valid range of train.dropout"),
        ("train.dropout=0.1..inf", "is not a valid range of train.dropout"),
        ("train.dropout=nan..1", "is not a valid range of train.dropout"),
        ("train.dropout=-1e308..1e308", "is not a valid range of train.dropout"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_what_to_write(params: Params, text: str, message: str) -> None:
    with pytest.raises(CelebflowError, match=message):
        parse_space(text, params)


@pytest.mark.parametrize("metric", ["test.accuracy", "accuracy", "val", "val.", "val.acuracy", "train.accuracy", ""])
def test_a_metric_that_is_not_of_validation_is_refused_before_any_work(
    params: Params, metric: str, project: Path
) -> None:
    space = Space("train.dropout", choices=(0.1, 0.2))
    with pytest.raises(CelebflowError, match=r"is not a metric of validation, such as val\.accuracy"):
        search("search", params, {}, [space], 2, metric, lambda _: None)
    assert list(project.iterdir()) == [project / paths.DATA_RECORD], "nothing has been written"


@pytest.mark.parametrize(("task", "metric"), [("recognition", "val.auc"), ("verification", "val.macro_auc")])
def test_a_metric_of_another_task_is_refused_before_any_work(
    params: Params, task: str, metric: str, project: Path
) -> None:
    space = Space("train.lda_shrinkage", choices=(0.1, 0.2))
    with pytest.raises(
        CelebflowError, match=rf"{metric} is not a metric.* of the task {task}\..*val\.calibration_error"
    ):
        search("search", params, {"task": task}, [space], 2, metric, lambda _: None)
    assert list(project.iterdir()) == [project / paths.DATA_RECORD], "nothing has been written"


@pytest.mark.parametrize("name", ["Zoë", "a#b", "what?", "{draft}"])
def test_a_path_in_which_dvc_runs_no_experiments_in_copies_is_refused_before_any_work(
    params: Params, name: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / name
    (folder / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(CelebflowError, match=re.escape(str(folder))):
        search("search", params, {}, SPACES, 2, "val.accuracy", lambda _: None)
    assert list(folder.iterdir()) == [folder / ".dvc"], "nothing has been written"


def test_without_a_commit_nothing_is_searched(params: Params, project: Path) -> None:
    shutil.rmtree(project.parent / ".git")
    for remedy in ("git init", "git commit"):
        with pytest.raises(CelebflowError, match=remedy):
            search("search", params, {}, SPACES, 2, "val.accuracy", lambda _: None)
        subprocess.run(["git", "init", "--quiet"], check=True)
    assert set(project.iterdir()) == {project / paths.DATA_RECORD, project / ".git"}, "nothing has been written"


def test_a_param_that_is_given_twice_is_refused(params: Params, project: Path) -> None:
    space = Space("train.dropout", choices=(0.1, 0.2))
    with pytest.raises(CelebflowError, match=r"train\.dropout is given more than once"):
        search("search", params, {}, [space, space], 2, "val.accuracy", lambda _: None)


@pytest.mark.parametrize(
    ("fixed", "name", "belongs"),
    [
        ({}, "train.lda_shrinkage", r"is for train\.classifier lda\. .* is mlp"),
        ({"train.classifier": "lda"}, "train.dropout", r"is for train\.classifier mlp\. .* is lda"),
        ({"train.classifier": "logistic"}, "train.class_weights", r"is for train\.classifier mlp or linear"),
        ({"task": "verification", "train.classifier": "plda"}, "train.epochs", "is not for the task verification"),
        ({}, "train.attribute_thresholds", "is not for the task recognition"),
    ],
)
def test_a_param_that_the_classifier_ignores_is_refused_before_any_work(
    params: Params, fixed: dict[str, object], name: str, belongs: str, project: Path
) -> None:
    metric = "val.auc" if "task" in fixed else "val.accuracy"
    with pytest.raises(CelebflowError, match=rf"{name} {belongs}.*make no difference"):
        search("search", params, fixed, [Space(name, choices=(1, 2))], 2, metric, lambda _: None)
    assert list(project.iterdir()) == [project / paths.DATA_RECORD], "nothing has been written"


def test_a_param_of_one_of_the_classifiers_that_are_tried_is_searched(params: Params) -> None:
    classifiers = Space("train.classifier", choices=("mlp", "lda"))
    _require_difference("recognition", "mlp", [Space("train.lda_shrinkage", low=0.1, high=0.2), classifiers])
    with pytest.raises(CelebflowError, match="mlp or lda"):
        _require_difference("recognition", "logistic", [Space("train.logistic_c", low=0.1, high=0.2), classifiers])


def test_changes_that_dvc_leaves_in_the_stash_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths.PARAMS.write_text("1")
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    for command in (["init", "--quiet"], ["add", "params.yaml"], [*identity, "commit", "--quiet", "--message=first"]):
        subprocess.run(["git", *command], check=True)
    paths.PARAMS.write_text("2")
    failing = tmp_path / "python"
    stash = "git -c user.name=A -c user.email=a@b.c stash -q"
    failing.write_text(f"#!/bin/sh\n[ -e stop ] || {stash}\ntouch stop\necho index.lock\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(failing))
    assert _run_experiment("a", {}, "", lambda pid: None).endswith("git stash pop --index")
    assert _run_experiment("a", {}, "", lambda pid: None) == "index.lock", "the stash is not of this trial"


@pytest.mark.parametrize("name", ["", "a/b", "../tuning", "-x", ".hidden", "a b", "*"])
def test_a_name_that_experiments_cannot_have_is_refused(params: Params, name: str, tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match="--name .* is not a valid"):
        search(name, params, {}, SPACES, 2, "val.accuracy", lambda _: None)


class Parent:
    """Stands in for the parent run in MLflow."""

    run_id = "f" * 32

    def __init__(self) -> None:
        self.best: list[tuple[str, str, float, int]] = []
        self.continued_ids: list[str] = []

    @contextmanager
    def open(self, params: Params, name: str, continued_id: str) -> Iterator["Parent"]:
        """Stand in for open_parent_run."""
        assert name == "tuning"
        self.continued_ids.append(continued_id)
        yield self

    def log_search_result(self, metric: str, experiment: str, value: float, trial_number: int) -> None:
        """Record the call."""
        self.best.append((metric, experiment, value, trial_number))


class Experiments:
    """Stands in for DVC: an experiment's metric is the next of `results`.

    None makes it fail, NaN leaves its metrics undefined, and KeyboardInterrupt is raised.
    """

    def __init__(self, *results: float | type[KeyboardInterrupt] | None) -> None:
        self.results = results
        self.ran: list[tuple[str, dict[str, object], str]] = []
        self.kept: dict[str, float] = {}

    def run(
        self, name: str, changes: Mapping[str, object], parent_run_id: str, on_start: Callable[[int], object]
    ) -> str:
        """Return the output of a failed experiment."""
        self.ran.append((name, dict(changes), parent_run_id))
        on_start(os.getpid())
        result = self.results[len(self.ran) - 1]
        if isinstance(result, type):
            raise result
        if result is None:
            return "it broke"
        self.kept[name] = result
        return ""

    def read(self, name: str) -> dict[str, float]:
        """Return the metrics of an experiment."""
        value = self.kept[name]
        return {} if math.isnan(value) else dict.fromkeys(TASKS["recognition"].metrics, value)


SPACES = [Space("train.dropout", low=0.1, high=0.5), Space("train.hidden_units", choices=("[64]", "[128,64]"))]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder of a repository of git with a commit, in which data.dvc alone is."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "--message", "start"], check=True)
    paths.DATA_RECORD.write_text(f"outs:\n- md5: {'a' * 32}.dir\n  path: data\n")
    return folder


def _search(
    params: Params,
    experiments: Experiments,
    monkeypatch: pytest.MonkeyPatch,
    metric: str = "val.accuracy",
    *,
    spaces: list[Space] = SPACES,
    count: int | None = None,
    parent: Parent | None = None,
    at_once: int = 1,
) -> tuple[list[Trial], Parent, list[Trial]]:
    parent = parent or Parent()
    reported: list[Trial] = []
    monkeypatch.setattr(search_module, "open_parent_run", parent.open)
    monkeypatch.setattr(search_module, "_run_experiment", experiments.run)
    monkeypatch.setattr(search_module, "_read_metrics", experiments.read)
    monkeypatch.setattr(search_module, "has_experiment", lambda name: name in experiments.kept)
    count = count or len(experiments.results)
    found = search("tuning", params, {"train.epochs": 3}, spaces, count, metric, reported.append, at_once)
    return found.trials, parent, reported


def _forget_search() -> None:
    shutil.rmtree(paths.searches())


def test_experiments_are_numbered_and_have_the_fixed_changes_and_their_own_values(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = Experiments(0.5, 0.6, 0.7)
    _, parent, reported = _search(params, experiments, monkeypatch)
    assert [name for name, _, _ in experiments.ran] == ["tuning-1", "tuning-2", "tuning-3"]
    for (_, changes, run_id), trial in zip(experiments.ran, reported, strict=True):
        assert changes == {"train.epochs": 3, **trial.values}
        assert 0.1 <= float(str(trial.values["train.dropout"])) <= 0.5
        assert trial.values["train.hidden_units"] in ("[64]", "[128,64]")
        assert run_id == parent.run_id
    assert len({trial.values["train.dropout"] for trial in reported}) == 3
    again = Experiments(0.5, 0.6, 0.7)
    _forget_search()
    _search(params, again, monkeypatch)
    assert again.ran == experiments.ran, "the seed determines the values"
    other = params.model_copy(update={"train": params.train.model_copy(update={"seed": 1})})
    elsewhere = Experiments(0.5, 0.6, 0.7)
    _forget_search()
    _search(other, elsewhere, monkeypatch)
    assert elsewhere.ran != experiments.ran


@pytest.mark.parametrize(
    ("metric", "order", "best"),
    [
        ("val.accuracy", [4, 1, 3, 2], [(1, 0.5), (4, 0.9)]),
        ("val.macro_auc", [4, 1, 3, 2], [(1, 0.5), (4, 0.9)]),
        ("val.loss", [3, 1, 4, 2], [(1, 0.5), (3, 0.2)]),
        ("val.calibration_error", [3, 1, 4, 2], [(1, 0.5), (3, 0.2)]),
    ],
)
def test_the_best_trial_comes_first_and_failed_trials_last(
    params: Params, metric: str, order: list[int], best: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, parent, reported = _search(params, Experiments(0.5, None, 0.2, 0.9), monkeypatch, metric)
    assert [trial.name for trial in found] == [f"tuning-{number}" for number in order]
    assert [trial.metric for trial in reported] == [0.5, None, 0.2, 0.9]
    assert parent.best == [(metric, f"tuning-{number}", value, number) for number, value in best]


@pytest.mark.parametrize("metric", ["val.accuracy", "val.loss"])
def test_the_first_of_equal_trials_is_the_best(params: Params, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, parent, _ = _search(params, Experiments(0.5, 0.5, 0.5), monkeypatch, metric)
    assert [trial.name for trial in found] == ["tuning-1", "tuning-2", "tuning-3"]
    assert parent.best == [(metric, "tuning-1", 0.5, 1)]


def test_a_search_fails_when_its_first_trial_fails(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    experiments = Experiments(None, 0.5)
    with pytest.raises(CelebflowError, match="(?s)The first experiment of the search failed:.*it broke"):
        _search(params, experiments, monkeypatch)
    assert len(experiments.ran) == 1
    repaired = Experiments(0.5)
    _search(params, repaired, monkeypatch, spaces=SPACES[:1])
    assert repaired.ran[0][0] == "tuning-1", "settings without a trial bind nobody"


def test_a_trial_whose_metric_is_undefined_failed_unless_it_is_the_first(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _, reported = _search(params, Experiments(0.5, math.nan, 0.7), monkeypatch)
    assert [trial.metric for trial in reported] == [0.5, None, 0.7] and found[0].name == "tuning-3"
    assert "no metric val.accuracy in tuning-2" in capsys.readouterr().err
    _forget_search()
    with pytest.raises(CelebflowError, match=r"no metric val\.accuracy in tuning-1"):
        _search(params, Experiments(math.nan, 0.5), monkeypatch)


def test_an_interrupted_search_continues_as_if_it_had_not_been(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Experiments(0.5, None, 0.7, 0.6, 0.4)
    expected = _search(params, whole, monkeypatch)
    _forget_search()

    parent = Parent()
    first = Experiments(0.5, None, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        _search(params, first, monkeypatch, count=5, parent=parent)
    second = Experiments(0.7, 0.6, 0.4)  # the experiments before have been removed
    found, _, reported = _search(params, second, monkeypatch, count=5, parent=parent)
    assert first.ran + second.ran == whole.ran[:3] + whole.ran[2:]
    assert (found, reported) == (expected[0], expected[2])
    assert parent.continued_ids == ["", parent.run_id]
    assert parent.best == expected[1].best


def test_trials_at_once_are_proposed_together_and_an_interruption_changes_nothing(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params.model_copy(update={"compute": ComputeParams(cluster="192.0.2.1:6379")})
    trained: list[Mapping[str, object]] = []
    monkeypatch.setattr(search_training, "train_ahead", lambda _, trials: trained.extend(trials))
    results = np.random.default_rng(0).random(17).round(3).tolist()
    whole = Experiments(*results)
    expected = _search(params, whole, monkeypatch, spaces=SPACES[:1], at_once=4)
    assert [dict(changes) for changes in trained] == [changes for _, changes, _ in whole.ran]
    one_by_one = Experiments(*results)
    _forget_search()
    _search(params, one_by_one, monkeypatch, spaces=SPACES[:1])
    assert one_by_one.ran[:10] == whole.ran[:10] and one_by_one.ran[12:] != whole.ran[12:], "TPE begins after ten"
    for stop in (0, 12, 13, 15):
        _forget_search()
        parent, first = Parent(), Experiments(*results[:stop], KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            _search(params, first, monkeypatch, spaces=SPACES[:1], count=17, parent=parent, at_once=4)
        trained.clear()
        second = Experiments(*results[stop:])
        found, _, reported = _search(params, second, monkeypatch, spaces=SPACES[:1], count=17, parent=parent, at_once=4)
        assert (found, reported) == (expected[0], expected[2])
        assert [dict(changes) for changes in trained] == [changes for _, changes, _ in second.ran]
    with pytest.raises(CelebflowError, match="--at-once: 4, now 2"):
        _search(params, Experiments(), monkeypatch, spaces=SPACES[:1], count=17, at_once=2)


def test_trials_at_once_need_a_cluster(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CelebflowError, match=r"compute\.cluster is null.*leave out --at-once"):
        _search(params, Experiments(), monkeypatch, count=2, at_once=2)


def test_a_search_that_has_ended_returns_its_result_again_and_continues_with_more_trials(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, parent, _ = _search(params, Experiments(0.5, None, 0.7), monkeypatch)
    # Where the search has set the param, params.yaml may have another value: the best trial's, for example.
    applied = params.model_copy(update={"train": params.train.model_copy(update={"dropout": 0.3})})
    none = Experiments()
    again, _, reported = _search(applied, none, monkeypatch, count=3, parent=parent)
    assert (again, len(reported), none.ran, len(parent.continued_ids)) == (found, 3, [], 1)
    more = Experiments(0.9)
    best, *others = _search(applied, more, monkeypatch, count=4, parent=parent)[0]
    assert (best.name, best.metric, others) == ("tuning-4", 0.9, found)


def test_an_experiment_that_ended_after_its_search_was_killed_is_not_run_again(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Experiments(0.5, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        _search(params, killed, monkeypatch)
    continued = Experiments(0.6)
    continued.kept["tuning-2"] = 0.75
    found, _, _ = _search(params, continued, monkeypatch, count=3)
    assert {trial.name: trial.metric for trial in found} == {"tuning-1": 0.5, "tuning-2": 0.75, "tuning-3": 0.6}
    assert [name for name, _, _ in continued.ran] == ["tuning-3"]


def test_an_experiment_that_still_runs_after_its_search_was_killed_is_waited_for(
    params: Params, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _search(params, Experiments(0.5, KeyboardInterrupt), monkeypatch)
    file = project / ".celebflow" / "searches" / "tuning.json"
    record = json.loads(file.read_text())
    record["running"]["process"] = name_process(os.getpid())  # what a killed search leaves
    file.write_text(json.dumps(record))
    experiments = Experiments(0.6)
    with pytest.raises(CelebflowError, match=f"tuning-2 is still running.*{os.getpid()}.*--name"):
        _search(params, experiments, monkeypatch, count=2)
    assert experiments.ran == []


def test_what_another_version_of_optuna_proposed_is_kept(
    params: Params, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        _search(params, Experiments(0.5, KeyboardInterrupt), monkeypatch)
    file = project / ".celebflow" / "searches" / "tuning.json"
    record = json.loads(file.read_text())
    record["trials"][0]["proposal"] = {"train.dropout": 0.125, "train.hidden_units": 0}
    record["running"]["proposal"] = {"train.dropout": 0.375, "train.hidden_units": 1}
    file.write_text(json.dumps(record))
    experiments = Experiments(0.6)
    _, _, reported = _search(params, experiments, monkeypatch, count=2)
    assert [list(trial.values.values()) for trial in reported] == [[0.125, "[64]"], [0.375, "[128,64]"]]
    assert experiments.ran[0][1] == {"train.epochs": 3, **reported[1].values}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("metric", ["--metric", "val.accuracy", "val.loss"]),
        ("space", ["train.dropout", "0.1..0.5", "0.1..0.6"]),
        ("more spaces", ["train.dropout", "0.1..0.5", "train.learning_rate", "0.001,0.01"]),
        ("params", ["train.patience_epochs", "None", "7"]),
        ("photographs", ["photographs", "a" * 32, "b" * 32]),
    ],
)
def test_a_search_with_other_settings_is_not_continued(
    params: Params, change: str, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _search(params, Experiments(0.5), monkeypatch)
    metric, spaces = "val.accuracy", SPACES
    if change == "metric":
        metric = "val.loss"
    elif change == "space":
        spaces = [Space("train.dropout", low=0.1, high=0.6), SPACES[1]]
    elif change == "more spaces":
        spaces = [Space("train.learning_rate", choices=(0.001, 0.01)), SPACES[1]]
    elif change == "params":
        params = params.model_copy(update={"train": params.train.model_copy(update={"patience_epochs": 7})})
    else:
        paths.DATA_RECORD.write_text(f"outs:\n- md5: {'b' * 32}.dir\n")
    experiments = Experiments(0.5, 0.6)
    with pytest.raises(CelebflowError) as raised:
        _search(params, experiments, monkeypatch, metric, spaces=spaces)
    for part in [*parts, "tuning", "another --name"]:
        assert part in str(raised.value)
    assert "train.epochs" not in str(raised.value), "what is equal is not listed"
    assert experiments.ran == []


def test_an_experiment_that_is_not_of_the_search_is_not_taken_for_its_own(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    _search(params, Experiments(0.5), monkeypatch)
    experiments = Experiments(0.6)
    experiments.kept["tuning-2"] = 0.75
    with pytest.raises(CelebflowError, match=r"tuning-2.*--name.*dvc exp remove tuning-2"):
        _search(params, experiments, monkeypatch, count=2)
    assert experiments.ran == []


def test_a_search_that_is_running_is_not_run_twice(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.searches().mkdir(parents=True)
    with FileLock(paths.searches() / "tuning.lock"), pytest.raises(CelebflowError, match="tuning is running"):
        _search(params, Experiments(0.5), monkeypatch)


_RECORD = '{"settings": {}, "start_params": {}, "start_commit": "", "trials": [], "running": null}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"trials": [{}], "running": null}',
        _RECORD.replace("{}", "[]", 1),
        _RECORD.replace("[]", '[{"proposal": {}, "metric": "0.5"}]'),
        _RECORD.replace("null", "3"),
    ],
)
def test_a_damaged_record_is_a_clear_error(params: Params, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.searches().mkdir(parents=True)
    (paths.searches() / "tuning.json").write_text(content)
    with pytest.raises(CelebflowError, match=r"searches/tuning\.json.*another --name"):
        _search(params, Experiments(0.5), monkeypatch)


def test_the_table_lists_the_first_trials_with_their_values() -> None:
    trials = [Trial(f"tuning-{number}", {"train.dropout": number / 10, "train.epochs": 3}, 0.5) for number in (2, 1, 3)]
    rows = [line.split() for line in format_trials(trials, "val.loss", max_trials=2).splitlines()]
    assert rows == [
        ["experiment", "val.loss", "train.dropout", "train.epochs"],
        ["tuning-2", "0.5", "0.2", "3"],
        ["tuning-1", "0.5", "0.1", "3"],
    ]


def _interrupt_second_trial(repository: Repository, *arguments: str) -> None:
    """Start a search, send it Ctrl-C while its second trial trains, and check how it ends."""
    process = repository.start("celebflow", "search", *arguments)
    assert process.stdout is not None
    printed = next(line for line in process.stdout if line.startswith("tuning-1: "))
    deadline = time.monotonic() + 120
    while "stages.train" not in _list_arguments(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output and "The same command continues" in output
    (row,) = [line.split() for line in output.splitlines() if line.startswith("tuning-1 ")]
    found = float(printed.split()[-1])
    assert float(row[1]) == pytest.approx(found, abs=1e-3), "the table has what was found so far"


def _list_arguments(number: int) -> list[str]:
    """Return the arguments of all processes below this one."""
    arguments = []
    for child in psutil.Process(number).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            arguments += child.cmdline()
    return arguments


@pytest.mark.slow
def test_a_search_from_a_recipe_leaves_experiments_and_nested_runs_and_does_not_change_the_workspace(
    repository: Repository,
) -> None:
    # As small as the repository's params, which a recipe does not keep.
    (repository.folder / "recipes" / "roots.yaml").write_text(
        "extract:\n  image_size_px: 64\n"
        "train:\n  preprocessing:\n    square_root: true\n  hidden_units: [64]\n  epochs: 3\n"
    )
    repository.commit("a recipe")
    (first,) = repository.runs()
    params_before = (repository.folder / "params.yaml").read_bytes()
    # A range makes the two experiments differ.
    spaces = ["train.learning_rate=0.0005..0.01", "train.hidden_units=[48,16]"]
    options = ["--recipe", "roots", "--trials", "2", "--name", "tuning", "--metric", "val.loss"]
    _interrupt_second_trial(repository, *spaces, *options)
    (interrupted,) = [run for run in repository.runs() if run.info.run_name == "tuning"]
    assert interrupted.info.status == "KILLED"
    assert repository.list_experiments() == {"tuning-1"}
    assert list((repository.folder / ".dvc" / "tmp" / "exps" / "standalone").glob("tmp*")) == [], "DVC's copy is gone"

    output = repository.invoke("search", *spaces, *options)
    again = repository.invoke("search", *spaces, *options)  # nothing is left to run
    assert again.partition("\n\n")[2] == output.partition("\n\n")[2]
    assert (repository.folder / "params.yaml").read_bytes() == params_before
    assert repository.run("git", "status", "--porcelain") == ""
    assert repository.run("dvc", "status").strip().endswith("up to date.")
    assert repository.list_experiments() == {"tuning-1", "tuning-2"}

    runs = [run for run in repository.runs() if run.info.run_id != first.info.run_id and run.info.status != "KILLED"]
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 2
    assert parent.info.run_id == interrupted.info.run_id
    assert parent.info.run_name == "tuning"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert "val/final_loss" not in parent.data.metrics, "the metric is not the parent's own"
    client = mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")
    nested = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_id for run in nested} == {run.info.run_id for run in children}
    rates = {}
    losses = {}
    for run in children:
        assert run.data.params["train.preprocessing.square_root"] == "True"
        assert run.data.params["train.hidden_units"] == "[48, 16]"
        name = run.data.tags["celebflow.dvc_experiment"]
        rates[name] = run.data.params["train.learning_rate"]
        losses[name] = run.data.metrics["val/final_loss"]
    assert set(losses) == {"tuning-1", "tuning-2"}
    assert rates["tuning-1"] != rates["tuning-2"]

    printed = re.findall(
        r"^(tuning-\d): train\.learning_rate=\S+, train\.hidden_units=\[48,16\]: val\.loss (\S+)$", output, re.MULTILINE
    )
    assert {name: float(loss) for name, loss in printed} == pytest.approx(losses, abs=1e-4)
    (best,) = re.findall(r"dvc exp apply (\S+)$", output, re.MULTILINE)
    assert losses[best] == min(losses.values())
    assert parent.data.tags["celebflow.best_experiment"] == best
    assert parent.data.metrics["search/best_val.loss"] == pytest.approx(losses[best], abs=1e-6)

    repository.run("dvc", "exp", "apply", best)
    assert f"learning_rate: {rates[best]}" in (repository.folder / "params.yaml").read_text()


@pytest.mark.slow
def test_a_search_whose_first_experiment_fails_says_why_and_its_run_failed(repository: Repository) -> None:
    arguments = ["train.classifier=nothing", "--trials", "2", "--name", "broken"]
    output = repository.invoke("search", *arguments, fails=True)
    assert "error: The first experiment of the search failed:" in output
    assert "train.classifier: Input should be 'mlp'" in output
    parent, _ = repository.runs()
    assert (parent.info.run_name, parent.info.status) == ("broken", "FAILED")
    assert repository.list_experiments() == set()
    assert repository.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_search_whose_name_is_taken_is_an_error(repository: Repository) -> None:
    repository.edit("epochs: 3", "epochs: 2")
    repository.run("dvc", "exp", "save", "--name", "taken-1")
    repository.run("git", "checkout", "--quiet", "--force", "HEAD")
    arguments = ["train.dropout=0.1,0.9", "--trials", "1", "--name", "taken"]
    output = repository.invoke("search", *arguments, fails=True)
    assert "error: There is an experiment taken-1" in output
    assert "dvc exp remove taken-1" in output
