"""A search tries what it was asked to, judges by validation, and leaves the workspace as it was."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest

from celebflow.errors import CelebflowError
from celebflow.experiments import search as search_module
from celebflow.experiments.search import Space, Trial, parse_space, search
from celebflow.params import Params
from tests.repository import EVERY_STAGE, Repository, make_repository


class Proposals:
    """Stands in for an Optuna trial: remembers what it is asked for, and proposes the last or the lowest."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Propose the last."""
        self.asked.append((name, list(choices)))
        return choices[-1]

    def suggest_int(self, name: str, low: int, high: int, log: bool) -> int:
        """Propose the lowest."""
        self.asked.append(("int", name, low, high, log))
        return low

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
        """Propose the lowest."""
        self.asked.append(("float", name, low, high, log))
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
    params: Params, values: str, choices: tuple[object, ...]
) -> None:
    space = parse_space(f"train.hidden_units={values}", params)
    assert space == Space("train.hidden_units", choices=choices)
    assert [type(choice) for choice in space.choices] == [type(choice) for choice in choices]
    proposals = Proposals()
    assert space.suggest(proposals) == choices[-1]
    assert proposals.asked == [("train.hidden_units", list(range(len(choices))))]


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
def test_ranges_are_of_whole_numbers_or_of_others_and_long_ones_logarithmic(
    params: Params, values: str, kind: str, low: float, high: float, log: bool
) -> None:
    space = parse_space(f"train.weight_decay={values}", params)
    assert space == Space("train.weight_decay", low=low, high=high)
    proposals = Proposals()
    value = space.suggest(proposals)
    assert value == low and type(value) is {"int": int, "float": float}[kind]
    assert proposals.asked == [(kind, "train.weight_decay", low, high, log)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train.dropuot=0.1,0.2",
            r"'train\.dropuot' is no param to search\. These are: extract\.image_size_px, .*train",
        ),
        ("extract.face=none", r"'extract\.face' is no param to search\. These are: .*extract\.face\.crop"),
        ("prepare.seed=1,2", r"'prepare\.seed' is no param to search"),
        ("tracking.experiment=a,b", r"'tracking\.experiment' is no param to search"),
        ("train.dropout", r"says no values\. Write train\.dropout=a,b,c or train\.dropout=low\.\.high"),
        ("train.dropout=", r"says no values\. Write train\.dropout=a,b,c"),
        ("train.dropout=0.5..0.1", r"0\.5\.\.0\.1 is no range of train\.dropout\. Write low\.\.high, with numbers"),
        ("train.dropout=0.5..0.5", "is no range of train.dropout"),
        ("train.dropout=..0.5", "is no range of train.dropout"),
        ("train.dropout=a..b", "is no range of train.dropout"),
        ("train.dropout=false..true", "is no range of train.dropout"),
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
    with pytest.raises(CelebflowError, match=r"is no metric of validation, val\.accuracy say"):
        search("search", params, {}, [space], 2, metric, lambda _: None)
    assert list(tmp_path.iterdir()) == [tmp_path / "base.yaml"], "nothing was written"


class Parent:
    """Stands in for the parent run in MLflow."""

    run_id = "f" * 32

    def __init__(self) -> None:
        self.best: list[tuple[str, str, float, int]] = []
        self.ended = ""

    def log_search_result(self, metric: str, experiment: str, value: float, trial_number: int) -> None:
        """Remember."""
        self.best.append((metric, experiment, value, trial_number))


class Experiments:
    """Stands in for DVC: each experiment's metric is the next of `results`, None for one that fails."""

    def __init__(self, *results: float | None) -> None:
        self.results = results
        self.ran: list[tuple[str, dict[str, object], str]] = []

    def run(self, name: str, changes: Mapping[str, object], parent_run_id: str) -> str:
        """Return what a failed one says."""
        self.ran.append((name, dict(changes), parent_run_id))
        return "it broke" if self.results[len(self.ran) - 1] is None else ""

    def read(self, name: str, split: str, figure: str) -> float:
        """Return its metric."""
        assert (name, split) == (self.ran[-1][0], "val")
        result = self.results[len(self.ran) - 1]
        assert result is not None
        return result


def _search(
    params: Params, experiments: Experiments, metric: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Trial], Parent, list[Trial]]:
    parent = Parent()
    heard: list[Trial] = []

    @contextmanager
    def open_parent_run(_: Params, name: str) -> Iterator[Parent]:
        assert name == "tuning"
        yield parent

    monkeypatch.setattr(search_module, "open_parent_run", open_parent_run)
    monkeypatch.setattr(search_module, "_run_experiment", experiments.run)
    monkeypatch.setattr(search_module, "_read_metric", experiments.read)
    spaces = [Space("train.dropout", low=0.1, high=0.5), Space("train.hidden_units", choices=("[64]", "[128,64]"))]
    count = len(experiments.results)
    found = search("tuning", params, {"train.epochs": 3}, spaces, count, metric, heard.append)
    return found, parent, heard


def test_experiments_are_named_in_order_and_each_has_the_fixed_changes_and_its_own(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = Experiments(0.5, 0.6, 0.7)
    _, parent, heard = _search(params, experiments, "val.accuracy", monkeypatch)
    assert [name for name, _, _ in experiments.ran] == ["tuning-1", "tuning-2", "tuning-3"]
    for (_, changes, run_id), trial in zip(experiments.ran, heard, strict=True):
        assert changes == {"train.epochs": 3, **trial.values}
        assert 0.1 <= float(str(trial.values["train.dropout"])) <= 0.5
        assert trial.values["train.hidden_units"] in ("[64]", "[128,64]")
        assert run_id == parent.run_id
    again = Experiments(0.5, 0.6, 0.7)
    _search(params, again, "val.accuracy", monkeypatch)
    assert again.ran == experiments.ran, "what is proposed follows from the seed"
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
def test_the_best_comes_first_and_what_failed_last(
    params: Params, metric: str, order: list[int], best: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, parent, heard = _search(params, Experiments(0.5, None, 0.2, 0.9), metric, monkeypatch)
    assert [trial.name for trial in found] == [f"tuning-{number}" for number in order]
    assert [trial.metric for trial in heard] == [0.5, None, 0.2, 0.9]
    assert parent.best == [(metric, f"tuning-{number}", value, number) for number, value in best]


@pytest.mark.parametrize("metric", ["val.accuracy", "val.loss"])
def test_of_equals_the_first_is_the_best_everywhere(
    params: Params, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, parent, _ = _search(params, Experiments(0.5, 0.5, 0.5), metric, monkeypatch)
    assert [trial.name for trial in found] == ["tuning-1", "tuning-2", "tuning-3"]
    assert parent.best == [(metric, "tuning-1", 0.5, 1)]


def test_when_the_first_fails_so_does_the_search(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    experiments = Experiments(None, 0.5)
    with pytest.raises(CelebflowError, match="(?s)The first experiment of the search failed:.*it broke"):
        _search(params, experiments, "val.accuracy", monkeypatch)
    assert len(experiments.ran) == 1


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Make a small repository whose classifier is fitted at once, with a result."""
    repository = make_repository(tmp_path_factory.mktemp("repository"))
    repository.edit("classifier: network", "classifier: lda")
    repository.edit("pca_components: null", "pca_components: 8")
    assert repository.repro() == EVERY_STAGE
    repository.run("git", "add", ".")
    repository.run("git", "commit", "--quiet", "--message", "first result")
    return repository


def _list_experiments(repository: Repository) -> set[str]:
    return set(repository.run("dvc", "exp", "list", "--name-only").split())


@pytest.mark.slow
def test_a_search_leaves_experiments_and_nested_runs_and_the_workspace_as_it_was(repository: Repository) -> None:
    before = {run.info.run_id for run in repository.runs()}
    params_before = (repository.folder / "params.yaml").read_bytes()
    status = repository.run("git", "status", "--porcelain")
    assert status == ""
    # A range rather than choices: the two experiments differ.
    space = "train.lda_shrinkage=0.1..0.9"
    output = repository.run("celebflow", "search", space, "--trials", "2", "--name", "shrinkage")
    assert (repository.folder / "params.yaml").read_bytes() == params_before
    assert repository.run("git", "status", "--porcelain") == ""
    assert repository.run("dvc", "status").strip().endswith("up to date.")
    assert {"shrinkage-1", "shrinkage-2"} <= _list_experiments(repository)

    runs = [run for run in repository.runs() if run.info.run_id not in before]
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 2
    assert parent.info.run_name == "shrinkage"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.data.tags["celebflow.best_experiment"] in ("shrinkage-1", "shrinkage-2")
    assert "val/final_accuracy" not in parent.data.metrics, "it is not the parent's own"
    tried = {}
    for run in children:
        name = run.data.tags["celebflow.dvc_experiment"]
        tried[name] = (run.data.params["train.lda_shrinkage"], run.data.metrics["val/final_accuracy"])
    assert tried.keys() == {"shrinkage-1", "shrinkage-2"}
    assert tried["shrinkage-1"][0] != tried["shrinkage-2"][0]

    told = dict(re.findall(r"^(shrinkage-\d): train\.lda_shrinkage=\S+: val\.accuracy (\S+)$", output, re.MULTILINE))
    assert {name: float(value) for name, value in told.items()} == {
        name: pytest.approx(accuracy, abs=1e-4) for name, (_, accuracy) in tried.items()
    }
    (best,) = re.findall(r"Take the best over with: dvc exp apply (\S+)$", output, re.MULTILINE)
    assert tried[best][1] == max(accuracy for _, accuracy in tried.values())
    assert parent.data.tags["celebflow.best_experiment"] == best
    assert parent.data.metrics["search/best_val.accuracy"] == pytest.approx(tried[best][1], abs=1e-6)
    client = mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")
    below = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_id for run in below} == {run.info.run_id for run in children}

    repository.run("dvc", "exp", "apply", best)
    assert f"lda_shrinkage: {tried[best][0]}" in (repository.folder / "params.yaml").read_text()
    repository.run("git", "checkout", "--quiet", "--force", "HEAD")
    repository.run("dvc", "checkout", "--quiet", "--force")


@pytest.mark.slow
def test_a_search_may_start_from_a_recipe(repository: Repository) -> None:
    recipe = (repository.folder / "params.yaml").read_text().replace("square_root: false", "square_root: true")
    (repository.folder / "recipes" / "roots.yaml").write_text(recipe)
    spaces = ["train.classifier=logistic", "extract.views=[original,mirrored]"]
    arguments = ["--recipe", "roots", "--trials", "1", "--name", "choices", "--metric", "val.loss"]
    try:
        output = repository.run("celebflow", "search", *spaces, *arguments)
    finally:
        (repository.folder / "recipes" / "roots.yaml").unlink()
    assert "choices-1: train.classifier=logistic, extract.views=[original,mirrored]: val.loss" in output
    run = next(run for run in repository.runs() if run.data.tags.get("celebflow.dvc_experiment") == "choices-1")
    assert run.data.params["train.classifier"] == "logistic"
    assert run.data.params["train.transform.square_root"] == "True"
    assert run.data.params["extract.views"] == "['original', 'mirrored']"


@pytest.mark.slow
def test_a_search_whose_first_experiment_fails_says_why_and_its_run_failed(repository: Repository) -> None:
    before = {run.info.run_id for run in repository.runs()}
    experiments = _list_experiments(repository)
    arguments = ["train.classifier=nothing", "--trials", "2", "--name", "broken"]
    output = repository.run("celebflow", "search", *arguments, status=1)
    assert "error: The first experiment of the search failed:" in output
    assert "train.classifier: Input should be 'network'" in output
    assert "Traceback" not in output
    (parent,) = [run for run in repository.runs() if run.info.run_id not in before]
    assert (parent.info.run_name, parent.info.status) == ("broken", "FAILED")
    assert _list_experiments(repository) == experiments
    assert repository.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_search_whose_name_is_taken_is_an_error(repository: Repository) -> None:
    repository.run("dvc", "exp", "run", "--temp", "--name", "taken-1", "--set-param", "train.lda_shrinkage=0.35")
    arguments = ["train.lda_shrinkage=0.1,0.9", "--trials", "1", "--name", "taken"]
    output = repository.run("celebflow", "search", *arguments, status=1)
    assert "error: The first experiment of the search failed:" in output
    assert "existing experiment 'taken-1'" in output
    assert "Traceback" not in output
    assert repository.runs()[0].info.status == "FAILED"
