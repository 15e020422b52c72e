"""The best run becomes a registered model, and a real server answers with what evaluate found."""

import base64
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest
import requests
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.data.decoding import decode_photograph
from celebflow.data.photos import load_photos
from celebflow.experiments.packaging import describe_model
from celebflow.experiments.registry import find_best_run
from celebflow.features.transform import Transform
from celebflow.inference.onnx_export import run_model
from celebflow.report.thumbnails import load_thumbnail
from tests.repository import Repository, make_repository

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Run an experiment that learns next to nothing after one that learns: the last is not the best."""
    repository = make_repository(tmp_path_factory.mktemp("repository"))
    repository.edit("epochs: 3", "epochs: 15")
    repository.repro()
    repository.edit("learning_rate: 0.001", "learning_rate: 1.0e-09")
    repository.repro()
    return repository


def _client(repository: Repository) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")


def test_the_better_of_two_experiments_is_registered_once(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse, better = repository.runs()
    assert worse.data.metrics["val/final_accuracy"] < better.data.metrics["val/final_accuracy"]
    output = repository.run("celebflow", "register")
    assert better.info.run_id in output and "val/final_accuracy" in output
    assert "version 1 of celebflow, alias champion" in output
    client = _client(repository)
    version = client.get_model_version_by_alias("celebflow", "champion")
    assert version.run_id == better.info.run_id
    for part in (
        "UNTRAINED",
        "accuracy",
        "validation",
        "train: 36 photographs",
        "Limits",
        "train.learning_rate: 0.001",
        "and finds no faces",
    ):
        assert part in version.description
    better.data.params["extract.face.crop"] = "detect"
    assert "from its subject's face" in describe_model(better)
    assert "version 1 of" in repository.run("celebflow", "register", "--metric", "val/final_loss")
    assert len(client.search_model_versions("name = 'celebflow'")) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    stored = Path(mlflow.artifacts.download_artifacts("models:/celebflow@champion", dst_path=str(tmp_path)))
    assert not [file for file in stored.rglob("*") if file.suffix in (".pkl", ".pickle", ".pth", ".pt")]
    assert "torch==" in (stored / "requirements.txt").read_text()
    assert (stored / "artifacts" / "model_card.md").read_text() == version.description
    (logged,) = client.search_logged_models([better.info.experiment_id], f"source_run_id = '{better.info.run_id}'")
    assert logged.artifact_location.startswith((repository.folder / "mlartifacts").as_uri())
    named = repository.run("celebflow", "register", worse.info.run_id[:8], "--alias", "challenger")
    assert "version 2 of celebflow, alias challenger" in named


@pytest.mark.parametrize(
    ("metric", "choose"),
    [
        ("val/final_accuracy", max),
        ("val/final_loss", min),
        ("val/final_uncalibrated_loss", min),
        ("val/final_calibration_error", min),
        ("val/final_uncalibrated_calibration_error", min),
    ],
)
def test_the_least_loss_and_error_are_best_and_the_greatest_of_all_else(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, metric: str, choose: Callable[..., float]
) -> None:
    monkeypatch.chdir(repository.folder)
    values = [run.data.metrics[metric] for run in repository.runs() if run.info.status == "FINISHED"]
    assert min(values) < max(values)
    best = find_best_run(_client(repository), metric)
    assert best.data.metrics[metric] == choose(values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "test/final_accuracy"], "only a metric of validation"),
        (["--metric", "val/beauty"], "has val/beauty"),
        (["nobody"], "There is no run nobody"),
        (["--alias", "latest"], "--alias is latest"),
    ],
)
def test_what_cannot_be_registered_is_told(repository: Repository, arguments: list[str], message: str) -> None:
    output = repository.run("celebflow", "register", *arguments, status=1)
    assert message in output and "Traceback" not in output


def test_runs_on_another_split_are_no_candidates(repository: Repository) -> None:
    repository.edit("prepare:\n  seed: 0", "prepare:\n  seed: 5")
    repository.repro("prepare")
    try:
        assert "No finished run" in repository.run("celebflow", "register", status=1)
    finally:
        repository.edit("prepare:\n  seed: 5", "prepare:\n  seed: 0")
        repository.repro("prepare")


def test_a_classifier_that_is_gone_is_told_with_the_remedy(repository: Repository) -> None:
    repository.edit("learning_rate: 1.0e-09", "learning_rate: 2.0e-09")
    repository.repro()
    run = repository.runs()[0]
    md5 = run.data.tags["celebflow.classifier_md5"]
    file = repository.folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    file.rename(file.with_name("kept"))
    try:
        output = repository.run("celebflow", "register", run.info.run_id, status=1)
    finally:
        file.with_name("kept").rename(file)
    assert "is not in DVC's cache" in output and "dvc pull" in output


def test_a_run_that_packaged_its_model_is_registered_without_another(repository: Repository) -> None:
    repository.edit("log_model: false", "log_model: true")
    assert repository.repro() == ["evaluate"], "training does not depend on it"
    client, run_id = _client(repository), repository.run_id()
    (run,) = [run for run in repository.runs() if run.info.run_id == run_id]
    (logged,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    repository.run("celebflow", "register", run_id, "--alias", "newest")
    assert logged.model_id in client.get_model_version_by_alias("celebflow", "newest").source
    assert len(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")) == 1


@pytest.fixture(scope="module")
def served(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the champion, and yield the address to ask."""
    repository.run("celebflow", "register")
    elsewhere = Repository(tmp_path_factory.mktemp("elsewhere"))  # the model brings its own code
    command = ("mlflow", "models", "serve", "-m", "models:/celebflow@champion", "--env-manager", "local")
    uri = f"sqlite:///{repository.folder / 'mlflow.db'}"
    with elsewhere.variables(MLFLOW_TRACKING_URI=uri), elsewhere.serve(*command, path="/ping") as address:
        yield f"{address}/invocations"


def _ask(address: str, *photographs: str) -> requests.Response:
    records = [{"photograph": photograph} for photograph in photographs]
    return requests.post(address, json={"dataframe_records": records}, timeout=60)


def _load_champions_rows(repository: Repository) -> list[dict[str, str]]:
    """Return what evaluate found of the champion on test."""
    better = _client(repository).get_model_version_by_alias("celebflow", "champion").run_id
    stored = Path(
        mlflow.artifacts.download_artifacts(
            run_id=better, artifact_path="reports/test", tracking_uri=_client(repository).tracking_uri
        )
    )
    return _load_rows(stored)


def _load_rows(report: Path) -> list[dict[str, str]]:
    with (report / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_command_line_answers_as_evaluate_did(repository: Repository) -> None:
    repository.run("celebflow", "register")
    repository.run("git", "add", "dvc.lock")
    repository.run("git", "commit", "--quiet", "--message", "a result")
    champions, present = _load_champions_rows(repository), _load_rows(repository.folder / "reports" / "test")
    assert champions != present
    for arguments, rows in (
        (["--model", "models:/celebflow@champion"], champions),
        (["--rev", "HEAD"], present),
        ([], present),
    ):
        photographs = [f"data/{row['path']}" for row in rows]
        output = repository.run("celebflow", "predict", "--csv", "--top", "1", *arguments, *photographs)
        answers = list(csv.DictReader(output[output.index("photograph,") :].splitlines()))
        assert [answer["photograph"] for answer in answers] == photographs
        assert [answer["name"] for answer in answers] == [row["predicted"] for row in rows]
        probabilities = [float(answer["probability"]) for answer in answers]
        assert probabilities == pytest.approx([float(row["probability"]) for row in rows], abs=1e-5)
    for arguments, message in (
        (["--rev", "nowhere"], "is no revision or experiment"),
        (["--model", "models:/celebflow@nobody"], "--model is models:/celebflow@nobody"),
    ):
        output = repository.run("celebflow", "predict", *arguments, photographs[0], status=1)
        assert message in output and "Traceback" not in output


def test_the_server_answers_as_evaluate_did(repository: Repository, served: str) -> None:
    rows = _load_champions_rows(repository)
    contents = [(repository.folder / "data" / row["path"]).read_bytes() for row in rows]
    answer = _ask(served, *(base64.b64encode(content).decode() for content in contents))
    assert answer.status_code == 200
    for row, predicted in zip(rows, answer.json()["predictions"], strict=True):
        assert predicted["name"] == row["predicted"]
        assert predicted["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)
        assert sum(predicted["probabilities"].values()) == pytest.approx(1)
        assert max(predicted["probabilities"], key=predicted["probabilities"].get) == row["predicted"]
    scores: dict[bool, list[float]] = {True: [1.0], False: [0.0]}
    for predicted in answer.json()["predictions"]:
        scores[predicted["known"]].append(predicted["probability"])
    assert min(scores[True]) > max(scores[False])


def test_celebflow_s_own_server_and_onnx_answer_as_evaluate_did(repository: Repository) -> None:
    repository.run("celebflow", "register")
    rows, champion = _load_champions_rows(repository), ("--model", "models:/celebflow@champion")
    contents = [(repository.folder / "data" / row["path"]).read_bytes() for row in rows]
    expected = [(row["predicted"], float(row["probability"])) for row in rows]
    with repository.serve("celebflow", "serve", *champion, path="/healthz") as address:
        answers = [
            requests.post(f"{address}/predict", files={"photograph": content}, timeout=60).json()
            for content in contents
        ]
    firsts = [answer["faces"][0]["candidates"][0] for answer in answers]
    assert [first["name"] for first in firsts] == [name for name, _ in expected]
    assert [first["probability"] for first in firsts] == pytest.approx([share for _, share in expected], abs=1e-5)

    repository.run("celebflow", "export", "champion.onnx", *champion)
    file = repository.folder / "champion.onnx"
    metadata = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    transform, names = Transform.from_dict(json.loads(metadata["transform"])), json.loads(metadata["class_names"])
    probabilities = run_model(file, transform, [decode_photograph(content) for content in contents])
    assert [names[person] for person in probabilities.argmax(axis=1)] == [name for name, _ in expected]
    assert probabilities.max(axis=1).tolist() == pytest.approx([share for _, share in expected], abs=1e-4)


def test_the_server_shows_photographs_of_train_where_it_is_allowed(repository: Repository, browser: Chrome) -> None:
    photos = load_photos(repository.folder / "splits" / "photos.csv")
    photo = next(photo for photo in photos if photo.split == "train")
    content = (repository.folder / "data" / photo.path).read_bytes()
    with repository.serve("celebflow", "serve", "--show-training", path="/healthz") as address:
        answer = requests.post(f"{address}/predict?nearest=true", files={"photograph": content}, timeout=60).json()
        browser.get(address)
        browser.find_element(By.ID, "file").send_keys(str(repository.folder / "data" / photo.path))
        WebDriverWait(browser, 30).until(lambda driver: driver.find_element(By.ID, "answer").is_displayed())
        shown = [each.text for each in browser.find_elements(By.CSS_SELECTOR, ".nearest li")]
    nearest = answer["faces"][0]["nearest"]
    assert len(nearest) == 4
    assert (nearest[0]["person"], nearest[0]["similarity"]) == (photo.person, pytest.approx(1, abs=1e-5))
    with Image.open(io.BytesIO(base64.b64decode(nearest[0]["thumbnail"]))) as thumbnail:
        expected = load_thumbnail(repository.folder / "data" / photo.path).astype(int)
        assert np.abs(np.asarray(thumbnail) - expected).mean() < 6, "but for what JPEG loses"
    assert shown == [near["person"] for near in nearest]


@pytest.mark.parametrize(
    ("photograph", "message"),
    [
        ("/etc/passwd", "paths and addresses are not read"),
        ("file:///etc/passwd", "paths and addresses are not read"),
        ("http://127.0.0.1:9/a.png", "paths and addresses are not read"),
        (base64.b64encode(b"no photograph").decode(), "is no JPEG"),
        ("etc/passwd/", "is not in base64"),
        ("abcd/efg", "is no JPEG"),
        ("/home/Björn/a.jpg", "is not in base64"),
        ("", "is no JPEG"),
    ],
)
def test_what_is_no_photograph_is_a_bad_request(served: str, photograph: str, message: str) -> None:
    answer = _ask(served, photograph)
    assert answer.status_code == 400
    assert _ask(served).status_code == 400, "no rows at all"
    assert re.search(message, answer.text), answer.text
    assert "root:" not in answer.text
