"""`celebflow crossvalidate` measures the recipe on every photograph, and keeps the result where others are."""

import csv
import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.evaluation.cross_validation import FoldResult, Summary
from celebflow.experiments.crossvalidation import CrossValidation, format_cross_validation
from celebflow.tracking.mlflow_runs import Run
from tests.repository import Repository

pytestmark = pytest.mark.slow


def _count_photographs(repository: Repository) -> int:
    return len((repository.folder / "splits" / "photos.csv").read_text().splitlines()) - 1


def test_two_recipes_are_cross_validated_and_compared(repository: Repository) -> None:
    before = {run.info.run_id for run in repository.runs()}
    first = json.loads(repository.invoke("crossvalidate", "--folds", "2", "--repeats", "2", "--json", only_output=True))
    assert (first["experiment"], first["unjudged_count"]) == ("crossvalidation", 0)
    assert [(each["repetition"], each["fold"]) for each in first["folds"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    count = _count_photographs(repository)
    for repetition in (1, 2):
        own = [each for each in first["folds"] if each["repetition"] == repetition]
        assert sum(each["photographs"] for each in own) == count
        assert {each["photographs"] + each["trained_on"] for each in own} == {count}
    assert first["folds"][0]["photographs_md5"] != first["folds"][2]["photographs_md5"], "other seeds, other folds"
    accuracies = [each["accuracy"] for each in first["folds"]]
    assert first["summaries"]["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 4)

    runs = [run for run in repository.runs() if run.info.run_id not in before]
    (parent,) = [run for run in runs if run.info.run_name == "crossvalidation"]
    children = [run for run in runs if run is not parent]
    assert len(children) == 4 and {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    logged = {run.info.run_name: run.data.metrics["fold/accuracy"] for run in children}
    assert logged == {
        f"repetition {each['repetition']}, fold {each['fold']}": pytest.approx(each["accuracy"])
        for each in first["folds"]
    }
    assert parent.data.metrics["crossvalidation/accuracy_mean"] == pytest.approx(sum(accuracies) / 4)
    assert parent.data.tags["celebflow.restore"] == "dvc exp apply crossvalidation"

    assert repository.run("git", "status", "--porcelain") == ""
    assert json.loads(repository.run("dvc", "status", "--json")) == {}
    repository.edit("epochs: 3", "epochs: 1")
    refused = repository.invoke("crossvalidate", "--folds", "3", fails=True)
    assert "train" in refused and "Run `dvc repro` first" in refused
    repository.repro()
    text = repository.invoke("crossvalidate", "--folds", "2", "--repeats", "2", "--name", "short", only_output=True)
    assert "4 trainings on" in text and "experiment short" in text
    assert repository.list_experiments() == {"crossvalidation", "short"}

    names = "crossvalidation", "short", "--split", "crossvalidation"
    compared = json.loads(repository.invoke("compare", *names, "--json", only_output=True))
    assert compared["count"] == count and compared["folds"]["fold_count"] == 4
    short = json.loads(repository.invoke("compare", "workspace", *names[1:], "--json", only_output=True))
    assert short["folds"]["difference"] == 0
    assert "The mean difference of 4 folds is" in repository.invoke("compare", *names)
    by_run = repository.invoke("compare", parent.info.run_id, *names[1:], "--json", only_output=True)
    assert json.loads(by_run)["folds"] == compared["folds"]
    assert "celebflow crossvalidate" in repository.invoke("compare", "HEAD", *names[1:], fails=True)
    assert "--html shows val or test" in repository.run("celebflow", "compare", *names, "--html", "x.html", status=2)
    repository.invoke("crossvalidate", "--folds", "3")
    assert repository.list_experiments() == {"crossvalidation", "short", "crossvalidation-2"}
    assert "other folds" in repository.invoke("compare", "crossvalidation-2", *names[1:], fails=True)
    assert "dvc exp remove short" in repository.invoke("crossvalidate", "--name", "short", fails=True)
    assert "valid" in repository.invoke("crossvalidate", "--name", "a b", fails=True)


@pytest.mark.parametrize("shared_disk", ["false", "true"])
def test_a_cluster_gives_the_same_tables(repository: Repository, address: str, shared_disk: str) -> None:
    tables = repository.folder / "reports" / "crossvalidation"
    repository.invoke("crossvalidate", "--folds", "2", "--repeats", "2")
    here = [file.read_bytes() for file in sorted(tables.iterdir())]
    repository.edit("cluster: null", f"cluster: {address}")
    repository.edit("shared_disk: false", f"shared_disk: {shared_disk}")
    assert " parts, " not in repository.invoke("crossvalidate", "--folds", "2", "--repeats", "2"), "all is kept"
    shutil.rmtree(repository.folder / ".celebflow" / "fits")
    output = repository.invoke("crossvalidate", "--folds", "2", "--repeats", "2")
    assert sum(int(count) for count in re.findall(r": (\d+) parts, ", output)) == 4
    assert [file.read_bytes() for file in sorted(tables.iterdir())] == here


def test_an_interrupted_cross_validation_leaves_no_experiment(repository: Repository) -> None:
    repository.edit("epochs: 3", "epochs: 300")
    repository.run("dvc", "commit", "--force")
    with repository.start("celebflow", "crossvalidate") as process:
        deadline = time.monotonic() + 120
        while not [run for run in repository.runs() if run.info.run_name == "crossvalidation"]:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output
    (run,) = [run for run in repository.runs() if run.info.run_name == "crossvalidation"]
    assert run.info.status == "KILLED"
    assert repository.list_experiments() == set()
    assert not (repository.folder / "reports" / "crossvalidation").exists()


def _check_told(output: str, repository: Repository) -> None:
    """Assert that the output has the means of the tables, which are there."""
    rows = (repository.folder / "reports" / "crossvalidation" / "folds.csv").read_text().splitlines()
    accuracies = [float(row["accuracy"]) for row in csv.DictReader(rows)]
    assert f"{sum(accuracies) / len(accuracies):.4f}" in output


def test_a_cross_validation_that_dvc_cannot_keep_is_told_and_logged(repository: Repository) -> None:
    (repository.folder / ".git" / "refs" / "exps").write_text("in the place of the folder\n")
    output = repository.invoke("crossvalidate", "--folds", "2", "--name", "wide", fails=True)
    _check_told(output, repository)
    assert "dvc exp save --name=wide --include-untracked=reports/crossvalidation" in output
    (run,) = [run for run in repository.runs() if run.info.run_name == "wide"]
    assert run.info.status == "FAILED" and "crossvalidation/accuracy_mean" in run.data.metrics
    assert "celebflow.dvc_experiment" not in run.data.tags
    assert "dvc exp apply" not in run.data.tags.get("celebflow.restore", "")


def test_a_cross_validation_that_mlflow_cannot_log_is_told_and_kept(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CelebflowError("the store is away")

    monkeypatch.setattr(Run, "log_folds", fail)
    output = repository.invoke("crossvalidate", "--folds", "2", "--name", "wide", fails=True)
    _check_told(output, repository)
    assert "the store is away" in output and "the experiment wide keeps them" in output
    assert repository.list_experiments() == {"wide"}


@pytest.mark.parametrize("command", ["crossvalidate", "search train.dropout=0.1,0.2"])
def test_without_an_identity_no_experiment_is_begun_beside_changes(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delitem(repository.environment, name)
        monkeypatch.delenv(name, raising=False)
    with (repository.folder / "params.yaml").open("a", encoding="utf-8") as params:
        params.write("# not committed\n")  # DVC needs no identity where there is nothing to put aside
    with repository.variables(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path), GIT_CONFIG_NOSYSTEM="1"):
        output = repository.invoke(*command.split(), fails=True)
    assert "git config --global user.name" in output and "epoch" not in output
    assert len(repository.runs()) == 1


def test_the_text_has_each_metric() -> None:
    folds = [FoldResult(1, number, 80, 20, "", 0.9 + number / 100, 0.8, None) for number in (1, 2)]
    result = CrossValidation("wide", folds, {"accuracy": Summary(0.915, 0.00707)}, 3)
    text = format_cross_validation(result)
    assert "2 trainings on 80 photographs" in text and "Not judged: 3" in text
    assert text.splitlines()[-1].split() == ["accuracy", "0.9150", "0.0071", "0.9100", "0.9200"]
