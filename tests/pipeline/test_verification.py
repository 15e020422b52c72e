"""The pipeline with task verification: real stages, the page in a browser, and the command that compares."""

import base64
import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import mlflow
import pytest
import requests
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from celebflow.data import invented_people
from celebflow.experiments import pages
from celebflow.params import Params
from tests.browser import take_console
from tests.repository import EVERY_STAGE, Repository, clone_repository

pytestmark = pytest.mark.slow

CHANGES = {
    "task: recognition": "task: verification",
    "max_pairs: 6000": "max_pairs: 60",
    "square_root: false": "square_root: true",
    "l2_normalize: false": "l2_normalize: true",
    "pca_components: null": "pca_components: 12",
    "classifier: mlp": "classifier: plda",
}
PEOPLE = 12


@pytest.fixture(scope="module")
def verified(template: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Return a repository with a committed result of verification, which tests do not change."""
    repository = clone_repository(template, tmp_path_factory.mktemp("verification") / "repository")
    shutil.rmtree(repository.folder / "data")
    for number, name in enumerate(invented_people.PEOPLE[:PEOPLE]):
        (repository.folder / "data" / name).mkdir(parents=True)
        for photo in range(6):
            invented_people.draw_photograph(number, photo).save(repository.folder / "data" / name / f"{photo}.jpg")
    for old, new in CHANGES.items():
        repository.edit(old, new)
    repository.run("dvc", "add", "data")
    assert repository.repro() == [stage for stage in EVERY_STAGE if stage != "backbone"]
    repository.commit("verification")
    return repository


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as content:
        return list(csv.DictReader(content))


def test_people_are_in_one_split_and_every_file_of_the_result_is_there(verified: Repository) -> None:
    splits: dict[str, set[str]] = {}
    for row in _read(verified.folder / "splits" / "photos.csv"):
        splits.setdefault(row["person"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    metrics = verified.read_metrics()
    assert metrics.keys() == {"backbone", "val", "test"} and metrics["backbone"] == "UNTRAINED"
    for split in ("val", "test"):
        rows = _read(verified.folder / "reports" / split / "predictions.csv")
        hits = [row["actual"] == row["predicted"] for row in rows]
        assert metrics[split]["accuracy"] == pytest.approx(sum(hits) / len(hits), abs=1e-6)
        assert len(rows) == 60
    assert verified.run("dvc", "status").strip().endswith("up to date.")
    run = verified.runs()[0]
    assert run.data.params["task"] == "verification"
    assert run.data.metrics["val/final_auc"] == pytest.approx(metrics["val"]["auc"], abs=1e-6)
    assert "val_scores.png" in run.data.tags["mlflow.note.content"]
    assert run.info.run_name.startswith("classifier plda") or "task verification" in run.info.run_name
    shown = json.loads(verified.run("dvc", "plots", "show", "--json"))
    assert shown.get("errors", []) == []


def test_the_page_shows_pairs_and_filters_them(verified: Repository, browser: Chrome) -> None:
    browser.get((verified.folder / "reports" / "index.html").as_uri())
    assert take_console(browser) == []
    assert "UNTRAINED" in browser.title
    for split in ("test", "val"):
        browser.find_element(By.CSS_SELECTOR, f"input[value={split}]").click()
        tiles = browser.find_elements(By.CSS_SELECTOR, "#examples .tile")
        assert {tile.get_attribute("data-split") for tile in tiles if tile.is_displayed()} <= {split}
        rows = _read(verified.folder / "reports" / split / "predictions.csv")
        errors = sum(row["actual"] != row["predicted"] for row in rows)
        counted = browser.find_elements(By.ID, "example-count")
        assert not counted or counted[0].text.startswith(f"{errors} of {errors} ")
    assert take_console(browser) == []


def test_the_command_line_answers_as_evaluate_did(verified: Repository, tmp_path: Path) -> None:
    rows = _read(verified.folder / "reports" / "test" / "predictions.csv")[:10]
    pairs = verified.folder / "data" / "some.csv"
    pairs.write_text("first,second\n" + "".join(f"{row['first']},{row['second']}\n" for row in rows))
    answers = json.loads(verified.invoke("verify", "--pairs", str(pairs), "--json", only_output=True))
    pairs.unlink()
    assert [answer["answer"] for answer in answers] == [row["predicted"] for row in rows]
    for answer, row in zip(answers, rows, strict=True):
        assert answer["log_odds"] == pytest.approx(float(row["log_odds"]), abs=1e-2)
    one = verified.invoke("verify", f"data/{rows[0]['first']}", f"data/{rows[0]['first']}")
    assert " same " in one and "On val, " in one
    lines = verified.invoke("verify", "--csv", *[f"data/{rows[0][side]}" for side in ("first", "second")]).splitlines()
    assert (
        lines[0] == "first,second,answer,probability,log_odds,false_match_rate,false_non_match_rate" and len(lines) == 2
    )


def test_what_cannot_be_compared_is_told(verified: Repository, repository: Repository) -> None:
    photograph = str(next((verified.folder / "data").rglob("*.jpg")))
    assert "has no photograph to be compared with" in verified.invoke("verify", photograph, fails=True)
    assert "no pair" in verified.invoke("verify", fails=True)
    output = verified.invoke("verify", photograph, "dvc.yaml", fails=True)
    assert "dvc.yaml: is not" in output and "1 files are not readable photographs" in output
    assert "task recognition" in repository.invoke("verify", photograph, photograph, fails=True)
    for command in (("predict", photograph), ("openset", "data")):
        assert "celebflow verify" in verified.invoke(*command, fails=True)


def test_new_photographs_are_compared_with_those_of_train(verified: Repository, tmp_path: Path) -> None:
    for number, name in enumerate(invented_people.PEOPLE[:PEOPLE]):
        photograph = invented_people.draw_photograph(number, 6)
        for folder, picture in (("same", photograph), ("darkened", photograph.point(lambda value: value // 4))):
            (tmp_path / folder / name).mkdir(parents=True)
            picture.save(tmp_path / folder / name / "6.png")
    assert "No difference" in verified.invoke("drift", str(tmp_path / "same"))
    darkened = verified.invoke("drift", str(tmp_path / "darkened"), "--sheet", str(tmp_path / "sheet.png"))
    assert "look different" in darkened and "unknown" not in darkened and (tmp_path / "sheet.png").exists()


def test_runs_lists_the_task_among_the_params_that_differ(verified: Repository) -> None:
    rows = verified.invoke("runs", "--commits", "-1").splitlines()
    assert any("task=recognition" in row for row in rows), rows


def test_results_are_compared_pair_by_pair(verified: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "load_params", lambda path: Params())  # as params.yaml would be after git checkout
    compared = json.loads(verified.invoke("compare", "HEAD", "--json", "--html", "page.html", only_output=True))
    assert compared["count"] == 60 and compared["overall"]["p_value"] == 1.0
    verified.invoke("page", "--against", "HEAD", "--output", "against.html")
    for name in ("page.html", "against.html"):
        file = verified.folder / name
        assert "Both results are correct on the same pairs." in file.read_text(encoding="utf-8")
        file.unlink()


def test_a_run_is_registered_and_mlflow_serves_what_the_command_line_answers(
    verified: Repository, tmp_path: Path
) -> None:
    repository = clone_repository(verified, tmp_path / "registered")
    output = repository.run("celebflow", "register")
    assert "val/final_accuracy" in output and "version 1 of celebflow-verification, alias champion" in output
    model = "models:/celebflow-verification@champion"
    client = mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")
    description = client.get_model_version_by_alias("celebflow-verification", "champion").description or ""
    assert "A verifier" in description and "| false match rate | " in description
    rows = _read(repository.folder / "reports" / "test" / "predictions.csv")[:6]
    files = [str(repository.folder / "data" / row[side]) for row in rows for side in ("first", "second")]
    expected = json.loads(repository.invoke("verify", "--model", model, "--json", *files, only_output=True))
    texts = [base64.b64encode(Path(file).read_bytes()).decode() for file in files]
    records = [{"first": first, "second": second} for first, second in zip(texts[::2], texts[1::2], strict=True)]
    command = ("mlflow", "models", "serve", "-m", model, "--env-manager", "local")
    uri = f"sqlite:///{repository.folder / 'mlflow.db'}"
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Repository(tmp_path / "elsewhere")  # the model brings its own code
    with elsewhere.variables(MLFLOW_TRACKING_URI=uri), elsewhere.serve(*command, path="/ping") as address:
        response = requests.post(f"{address}/invocations", json={"dataframe_records": records}, timeout=60)
        bad = requests.post(f"{address}/invocations", json={"dataframe_records": [{"first": texts[0]}]}, timeout=60)
    predictions = response.json()["predictions"]
    assert [each["answer"] for each in predictions] == [each["answer"] for each in expected]
    for found, answer in zip(predictions, expected, strict=True):
        assert found["log_odds"] == pytest.approx(answer["log_odds"], abs=1e-3)
        assert found["probability"] == pytest.approx(answer["probability"], abs=1e-3)
    assert bad.status_code == 400 and "second" in bad.text


def test_repro_after_kills_ends_with_the_same_bytes(verified: Repository, tmp_path: Path) -> None:
    undisturbed, killed = (clone_repository(verified, tmp_path / name) for name in ("undisturbed", "killed"))
    for each in (undisturbed, killed):
        each.edit("plda_between_scale: 0.5", "plda_between_scale: 0.4")  # a result that no cache of DVC holds
    assert undisturbed.repro("train") == ["train"]
    history = killed.folder / "reports" / "history.csv"
    for is_late in (False, True):
        with killed.variables(PYTHONUNBUFFERED="1"):
            process = killed.start("dvc", "repro", "train")
        assert process.stdout is not None
        assert any(line.startswith("Fitting plda") for line in process.stdout), "it has not begun"
        assert not history.exists(), "DVC removes what a stage writes before it runs"
        while is_late and not history.exists():
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was still running"
    assert killed.repro("train") == ["train"]
    for name in ("models/classifier.safetensors", "reports/history.csv"):
        assert (killed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes(), name
    assert list((killed.folder / ".celebflow" / "checkpoints").iterdir()) == []
    assert sorted(run.info.status for run in killed.runs()[:3]) == ["FINISHED", "KILLED", "KILLED"]
