"""A search tries the values that it may, judges by validation, and does not change the workspace."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest

from celebflow.errors import CelebflowError
from celebflow.experiments import search as search_module
from celebflow.experiments.search import Space, Trial, Value, format_trials, parse_space, search
from celebflow.params import Params
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
        ("train.dropout=nan..1", "is not a valid range of train.dropout"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_what_to_write(params: Params, text: str, message: str) -> None:
    with pytest.raises(CelebflowError, match=message):
        parse_space(text, params)


@pytest.mark.parametrize("metric", ["test.accuracy", "accuracy", "val", "val.", "train.accuracy", ""])
def test_a_metric_that_is_not_of_validation_is_refused_before_any_work(
    params: Params, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = Space("train.dropout", choices=(0.1, 0.2))
    with pytest.raises(CelebflowError, match=r"is not a metric of validation, such as val\.accuracy"):
        search("search", params, {}, [space], 2, metric, lambda _: None)
    assert list(tmp_path.iterdir()) == [tmp_path / "base.yaml"], "nothing has been written"


class Parent:
    """Stands in for the parent run in MLflow."""

    run_id = "f" * 32

    def __init__(self) -> None:
        self.best: list[tuple[str, str, float, int]] = []

    def log_search_result(self, metric: str, experiment: str, value: float, trial_number: int) -> None:
        """Record the call."""
        self.best.append((metric, experiment, value, trial_number))


class Experiments:
    """Stands in for DVC: an experiment's metric is the next of `results`; None makes the experiment fail."""

    def __init__(self, *results: float | None) -> None:
        self.results = results
        self.ran: list[tuple[str, dict[str, object], str]] = []

    def run(self, name: str, changes: Mapping[str, object], parent_run_id: str) -> str:
        """Return the output of a failed experiment."""
        self.ran.append((name, dict(changes), parent_run_id))
        return "it broke" if self.results[len(self.ran) - 1] is None else ""

    def read(self, name: str, split: str, figure: str) -> float:
        """Return the metric of the last experiment."""
        assert (name, split) == (self.ran[-1][0], "val")
        result = self.results[len(self.ran) - 1]
        assert result is not None
        return result


def _search(
    params: Params, experiments: Experiments, metric: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Trial], Parent, list[Trial]]:
    parent = Parent()
    reported: list[Trial] = []

    @contextmanager
    def open_parent_run(_: Params, name: str) -> Iterator[Parent]:
        assert name == "tuning"
        yield parent

    monkeypatch.setattr(search_module, "open_parent_run", open_parent_run)
    monkeypatch.setattr(search_module, "_run_experiment", experiments.run)
    monkeypatch.setattr(search_module, "_read_metric", experiments.read)
    spaces = [Space("train.dropout", low=0.1, high=0.5), Space("train.hidden_units", choices=("[64]", "[128,64]"))]
    count = len(experiments.results)
    found = search("tuning", params, {"train.epochs": 3}, spaces, count, metric, reported.append)
    return found, parent, reported


def test_experiments_are_numbered_and_have_the_fixed_changes_and_their_own_values(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = Experiments(0.5, 0.6, 0.7)
    _, parent, reported = _search(params, experiments, "val.accuracy", monkeypatch)
    assert [name for name, _, _ in experiments.ran] == ["tuning-1", "tuning-2", "tuning-3"]
    for (_, changes, run_id), trial in zip(experiments.ran, reported, strict=True):
        assert changes == {"train.epochs": 3, **trial.values}
        assert 0.1 <= float(str(trial.values["train.dropout"])) <= 0.5
        assert trial.values["train.hidden_units"] in ("[64]", "[128,64]")
        assert run_id == parent.run_id
    again = Experiments(0.5, 0.6, 0.7)
    _search(params, again, "val.accuracy", monkeypatch)
    assert again.ran == experiments.ran, "the seed determines the values"
    other = params.model_copy(update={"train": params.train.model_copy(update={"seed": 1})})
    elsewhere = Experiments(0.5, 0.6, 0.7)
    _search(other, elsewhere, "val.accuracy", monkeypatch)
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
    found, parent, reported = _search(params, Experiments(0.5, None, 0.2, 0.9), metric, monkeypatch)
    assert [trial.name for trial in found] == [f"tuning-{number}" for number in order]
    assert [trial.metric for trial in reported] == [0.5, None, 0.2, 0.9]
    assert parent.best == [(metric, f"tuning-{number}", value, number) for number, value in best]


@pytest.mark.parametrize("metric", ["val.accuracy", "val.loss"])
def test_the_first_of_equal_trials_is_the_best(params: Params, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, parent, _ = _search(params, Experiments(0.5, 0.5, 0.5), metric, monkeypatch)
    assert [trial.name for trial in found] == ["tuning-1", "tuning-2", "tuning-3"]
    assert parent.best == [(metric, "tuning-1", 0.5, 1)]


def test_a_search_fails_when_its_first_trial_fails(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    experiments = Experiments(None, 0.5)
    with pytest.raises(CelebflowError, match="(?s)The first experiment of the search failed:.*it broke"):
        _search(params, experiments, "val.accuracy", monkeypatch)
    assert len(experiments.ran) == 1


def test_the_table_lists_the_first_trials_with_their_values() -> None:
    trials = [Trial(f"tuning-{number}", {"train.dropout": number / 10, "train.epochs": 3}, 0.5) for number in (2, 1, 3)]
    rows = [line.split() for line in format_trials(trials, "val.loss", max_trials=2).splitlines()]
    assert rows == [
        ["experiment", "val.loss", "train.dropout", "train.epochs"],
        ["tuning-2", "0.5", "0.2", "3"],
        ["tuning-1", "0.5", "0.1", "3"],
    ]


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
    output = repository.invoke("search", *spaces, *options)
    assert (repository.folder / "params.yaml").read_bytes() == params_before
    assert repository.run("git", "status", "--porcelain") == ""
    assert repository.run("dvc", "status").strip().endswith("up to date.")
    assert repository.list_experiments() == {"tuning-1", "tuning-2"}

    runs = [run for run in repository.runs() if run.info.run_id != first.info.run_id]
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 2
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
    assert "error: The first experiment of the search failed:" in output
    assert "existing experiment 'taken-1'" in output
    assert repository.runs()[0].info.status == "FAILED"
