"""The pipeline with task attributes: real stages, and the commands that read their result."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.data import invented_people
from celebflow.data.tables import load_table
from celebflow.experiments.attribute_journal import AttributeAction
from celebflow.experiments.attribute_review import open_attribute_review
from celebflow.experiments.review_summary import list_commands
from tests.repository import EVERY_STAGE, Repository, clone_repository

pytestmark = pytest.mark.slow

CHANGES = {
    "task: recognition": "task: attributes",
    "square_root: false": "square_root: true",
    "l2_normalize: false": "l2_normalize: true",
    "pca_components: null": "pca_components: 12",
    "classifier: mlp": "classifier: logistic",
}
PEOPLE, PHOTOGRAPHS = 20, 4
ATTRIBUTES = ("Even", "=Some", "<b>Rare</b>")
ACTIONS: tuple[AttributeAction, ...] = ("flip", "blank", "keep")


@pytest.fixture(scope="module")
def answered(template: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Return a repository with a committed result of attributes, which tests do not change; some labels are blank."""
    repository = clone_repository(template, tmp_path_factory.mktemp("attributes") / "repository")
    data = repository.folder / "data"
    shutil.rmtree(data)
    (data / "photographs").mkdir(parents=True)
    random = np.random.default_rng(3)
    rows = []
    for person in range(PEOPLE):
        for number in range(PHOTOGRAPHS):
            name = f"{person}_{number}.jpg"
            invented_people.draw_photograph(person, number).save(data / "photographs" / name)
            labels = [person % 2, int(random.random() < 0.5), int((person + number) % 3 == 0)]
            rows.append([name, f"Person {person}", *("" if random.random() < 0.1 else label for label in labels)])
    with (data / "attributes.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["photograph", "person", *ATTRIBUTES], *rows])
    for old, new in CHANGES.items():
        repository.edit(old, new)
    repository.run("dvc", "add", "data")
    assert repository.repro() == [stage for stage in EVERY_STAGE if stage != "backbone"]
    repository.commit("attributes")
    return repository


def _read(file: Path) -> list[dict[str, str]]:
    return list(load_table(file))


def test_people_are_in_one_split_and_every_file_of_the_result_is_there(answered: Repository) -> None:
    splits: dict[str, set[str]] = {}
    for row in _read(answered.folder / "splits" / "photos.csv"):
        splits.setdefault(row["person"], set()).add(row["split"])
    assert len(splits) == PEOPLE and all(len(found) == 1 for found in splits.values())
    metrics = answered.read_metrics()
    assert metrics.keys() == {"backbone", "val", "test"} and metrics["backbone"] == "UNTRAINED"
    for split in ("val", "test"):
        rows = _read(answered.folder / "reports" / split / "predictions.csv")
        of_attribute: dict[str, list[bool]] = {}
        for row in rows:
            of_attribute.setdefault(row["path"].split("\t\t")[1], []).append(row["actual"] == row["predicted"])
        assert of_attribute.keys() == set(ATTRIBUTES)
        accuracy = np.mean([np.mean(hits) for hits in of_attribute.values()])
        assert metrics[split]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert answered.run("dvc", "status").strip().endswith("up to date.")
    run = answered.runs()[0]
    assert run.data.params["task"] == "attributes"
    assert run.data.metrics["val/final_average_precision"] == pytest.approx(
        metrics["val"]["average_precision"], abs=1e-6
    )
    assert "val_average_precision.png" in run.data.tags["mlflow.note.content"]
    assert json.loads(answered.run("dvc", "plots", "show", "--json")).get("errors", []) == []
    page = (answered.folder / "reports" / "index.html").read_text(encoding="utf-8")
    assert "<b>Rare</b>" not in page and "&lt;b&gt;Rare&lt;/b&gt;" in page


def test_the_command_line_answers_as_evaluate_did(answered: Repository) -> None:
    rows = _read(answered.folder / "reports" / "test" / "predictions.csv")
    path = rows[0]["path"].split("\t\t")[0]
    expected = {
        row["path"].split("\t\t")[1]: float(row["probability"]) for row in rows if row["path"].startswith(f"{path}\t")
    }
    (face,) = json.loads(answered.invoke("predict", f"data/{path}", "--json", only_output=True))
    found = {each["name"]: each["probability"] for each in face["attributes"]}
    assert found.keys() == set(ATTRIBUTES)
    for name, probability in expected.items():
        assert found[name] == pytest.approx(probability, abs=1e-5)


def test_results_are_compared_answer_by_answer(answered: Repository, tmp_path: Path) -> None:
    repository = clone_repository(answered, tmp_path / "repository")
    repository.edit("logistic_c: 1.0", "logistic_c: 300.0")
    repository.run("dvc", "repro", "evaluate")
    text = repository.invoke("compare", "HEAD", "--limit", "-1")
    assert "answers of val in both" in text
    assert repository.invoke("runs")


def test_suspect_labels_are_listed_in_every_form(answered: Repository, tmp_path: Path) -> None:
    repository = clone_repository(answered, tmp_path / "repository")
    found = json.loads(repository.invoke("suspects", "--folds", "3", "--json", only_output=True))
    labels = {row["path"]: row for row in _read(repository.folder / "splits" / "attributes.csv")}
    given = {"1": "yes", "0": "no"}
    assert found["photograph_count"] == len(labels) == PEOPLE * PHOTOGRAPHS
    known = sum(row[name] in given for row in labels.values() for name in ATTRIBUTES)
    assert found["count"] + found["unjudged_count"] == known, "blanks do not count"
    assert [each["attribute"] for each in found["attributes"]] == list(ATTRIBUTES)
    rows = _read(repository.folder / "reports" / "suspects.csv")
    assert rows, "one attribute is random"
    assert [each["path"] for each in found["suspects"]] == [row["path"] for row in rows]
    for row in rows:
        assert given[labels[row["path"]][row["attribute"]]] == row["given"] != row["likelier"]
    text = repository.invoke("suspects", "--folds", "3", "--limit", "1", "--output", "page.html", only_output=True)
    assert f"{len(rows)} of {found['count']} labels of {len(labels)} photographs are suspect" in text
    assert rows[0]["path"] in text and f"and {len(rows) - 1} more" in text
    assert "celebflow review" in text
    page = (repository.folder / "page.html").read_text(encoding="utf-8")
    assert all(row["path"] in page for row in rows)
    assert 'alt="labeled yes"' in page and 'alt="labeled no"' in page
    assert repository.run("git", "status", "--porcelain") == "?? page.html\n"
    assert repository.run("dvc", "status").strip().endswith("up to date.")


def test_labels_that_a_review_has_changed_are_those_of_the_next_result(
    answered: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = clone_repository(answered, tmp_path / "repository")
    repository.invoke("suspects", "--folds", "3")
    monkeypatch.chdir(repository.folder)
    with open_attribute_review() as review:
        flipped, blank, kept = (item.suspect for item in review.items[:3])
        for row, action in enumerate(ACTIONS):
            review.decide(row, action)
        assert review.apply([0, 1])[1] == []
        commands = list_commands(review)
    repository.run("bash", "-c", "\n".join(commands[:2]))
    assert repository.run("git", "status", "--porcelain") == ""
    repository.repro("prepare")
    cells = {row["path"]: row for row in _read(repository.folder / "splits" / "attributes.csv")}
    assert cells[flipped.path][flipped.attribute] == ("1" if flipped.likelier == "yes" else "0")
    assert cells[blank.path][blank.attribute] == ""
    repository.repro("extract")
    found = json.loads(repository.invoke("suspects", "--folds", "3", "--json", only_output=True))
    labels = {(each["path"], each["attribute"], each["given"]) for each in found["suspects"]}
    assert (kept.path, kept.attribute, kept.given) not in labels and found["confirmed_count"] <= 1


def test_the_learning_curve_is_there_in_every_form(answered: Repository, tmp_path: Path) -> None:
    repository = clone_repository(answered, tmp_path / "repository")
    found = json.loads(repository.invoke("learning-curve", "--repetitions", "2", "--json", only_output=True))
    points = found["curve"]["points"]
    sizes = [point["photographs"] for point in points]
    photos = _read(repository.folder / "splits" / "photos.csv")
    assert sizes == sorted(sizes) and len(sizes) >= 3
    assert sizes[-1] == sum(row["split"] == "train" for row in photos)
    val = json.loads((repository.folder / "reports" / "all_metrics.json").read_text())["val"]
    assert points[-1]["average_precision"] == pytest.approx(val["average_precision"], abs=0.02)
    assert points[-1]["balanced_accuracy"] == pytest.approx(val["balanced_accuracy_at_its_thresholds"], abs=0.02)
    assert found["curve"]["forecast"]["photographs"] == 2 * sizes[-1]
    assert found["counts"].keys() == set(ATTRIBUTES)
    assert len(_read(repository.folder / "reports" / "learning_curve.csv")) == len(sizes)
    text = repository.invoke("learning-curve", "--repetitions", "1", "--output", "curve.png", only_output=True)
    assert "With 2 times as many photographs" in text and "curve.png" in text
    for name in ("reports/learning_curve.png", "curve.png"):
        with Image.open(repository.folder / name) as picture:
            assert picture.width > 500
    assert repository.run("dvc", "status").strip().endswith("up to date.")


def test_what_other_commands_need_is_told(answered: Repository, tmp_path: Path) -> None:
    repository = clone_repository(answered, tmp_path / "repository")
    assert "suspects.csv is missing. Run `celebflow suspects`" in repository.invoke("review", fails=True)
    (repository.folder / "features").rename(repository.folder / "elsewhere")
    for command in ("suspects", "learning-curve"):
        assert "features is missing. Run `dvc repro`" in repository.invoke(command, fails=True)
    assert not (repository.folder / "reports" / "suspects.csv").exists()


def test_repro_after_a_kill_ends_with_the_same_bytes(answered: Repository, tmp_path: Path) -> None:
    undisturbed, killed = (clone_repository(answered, tmp_path / name) for name in ("undisturbed", "killed"))
    for each in (undisturbed, killed):
        each.edit("logistic_c: 1.0", "logistic_c: 2.0")  # a result that no cache of DVC holds
    assert undisturbed.repro("train") == ["train"]
    with killed.variables(PYTHONUNBUFFERED="1"):
        process = killed.start("dvc", "repro", "train")
    assert process.stdout is not None
    assert any(line.startswith("Fitting") for line in process.stdout), "it has not begun"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was still running"
    assert killed.repro("train") == ["train"]
    for name in ("models/classifier.safetensors", "reports/history.csv"):
        assert (killed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes(), name
    print([(r.info.status, r.info.run_name, r.data.tags.get("celebflow.process")) for r in killed.runs()])
    assert sorted(run.info.status for run in killed.runs()[:2]) == ["FINISHED", "KILLED"]
