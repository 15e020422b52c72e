"""`celebflow crossvalidate` measures the recipe on every photograph, and keeps the result where others are."""

import json
import signal
import time

import pytest

from celebflow.evaluation.cross_validation import FoldResult, Summary
from celebflow.experiments.crossvalidation import CrossValidation, format_cross_validation
from tests.repository import Repository

pytestmark = pytest.mark.slow


def _count_photographs(repository: Repository) -> int:
    return len((repository.folder / "splits" / "photos.csv").read_text().splitlines()) - 1


def test_two_recipes_are_cross_validated_and_compared(repository: Repository) -> None:
    before = {run.info.run_id for run in repository.runs()}
    first = json.loads(repository.invoke("crossvalidate", "--folds", "3", "--repeats", "2", "--json", only_output=True))
    assert (first["experiment"], first["unjudged_count"]) == ("crossvalidation", 0)
    assert [(each["repetition"], each["fold"]) for each in first["folds"]] == [
        (n, k) for n in (1, 2) for k in (1, 2, 3)
    ]
    count = _count_photographs(repository)
    for repetition in (1, 2):
        own = [each for each in first["folds"] if each["repetition"] == repetition]
        assert sum(each["photographs"] for each in own) == count
        assert {each["photographs"] + each["trained_on"] for each in own} == {count}
    assert first["folds"][0]["photographs_md5"] != first["folds"][3]["photographs_md5"], "other seeds, other folds"
    accuracies = [each["accuracy"] for each in first["folds"]]
    assert first["summaries"]["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 6)

    runs = [run for run in repository.runs() if run.info.run_id not in before]
    (parent,) = [run for run in runs if run.info.run_name == "crossvalidation"]
    children = [run for run in runs if run is not parent]
    assert len(children) == 6 and {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    logged = {run.info.run_name: run.data.metrics["fold/accuracy"] for run in children}
    assert logged == {
        f"repetition {each['repetition']}, fold {each['fold']}": pytest.approx(each["accuracy"])
        for each in first["folds"]
    }
    assert parent.data.metrics["crossvalidation/accuracy_mean"] == pytest.approx(sum(accuracies) / 6)
    assert parent.data.tags["celebflow.restore"] == "dvc exp apply crossvalidation"

    assert repository.run("git", "status", "--porcelain") == ""
    assert json.loads(repository.run("dvc", "status", "--json")) == {}
    repository.edit("epochs: 3", "epochs: 1")
    refused = repository.invoke("crossvalidate", "--folds", "3", fails=True)
    assert "train" in refused and "Run `dvc repro` first" in refused
    repository.repro()
    text = repository.invoke("crossvalidate", "--folds", "3", "--repeats", "2", "--name", "short", only_output=True)
    assert "6 trainings on" in text and "experiment short" in text
    assert repository.list_experiments() == {"crossvalidation", "short"}

    names = "crossvalidation", "short", "--split", "crossvalidation"
    compared = json.loads(repository.invoke("compare", *names, "--json", only_output=True))
    assert compared["count"] == count and compared["folds"]["fold_count"] == 6
    short = json.loads(repository.invoke("compare", "workspace", *names[1:], "--json", only_output=True))
    assert short["folds"]["difference"] == 0
    assert "The mean difference of 6 folds is" in repository.invoke("compare", *names)
    by_run = repository.invoke("compare", parent.info.run_id, *names[1:], "--json", only_output=True)
    assert json.loads(by_run)["folds"] == compared["folds"]
    assert "celebflow crossvalidate" in repository.invoke("compare", "HEAD", *names[1:], fails=True)
    assert "--html shows val or test" in repository.run("celebflow", "compare", *names, "--html", "x.html", status=2)
    repository.invoke("crossvalidate", "--folds", "4")
    assert repository.list_experiments() == {"crossvalidation", "short", "crossvalidation-2"}
    assert "other folds" in repository.invoke("compare", "crossvalidation-2", *names[1:], fails=True)
    assert "dvc exp remove short" in repository.invoke("crossvalidate", "--name", "short", fails=True)
    assert "valid" in repository.invoke("crossvalidate", "--name", "a b", fails=True)


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


def test_the_text_has_each_metric() -> None:
    folds = [FoldResult(1, number, 80, 20, "", 0.9 + number / 100, 0.8, None) for number in (1, 2)]
    result = CrossValidation("wide", folds, {"accuracy": Summary(0.915, 0.00707)}, 3)
    text = format_cross_validation(result)
    assert "2 trainings on 80 photographs" in text and "Not judged: 3" in text
    assert text.splitlines()[-1].split() == ["accuracy", "0.9150", "0.0071", "0.9100", "0.9200"]
