"""The best run becomes a registered model, and every way to use the model predicts what evaluate predicted."""

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
from celebflow.errors import CelebflowError
from celebflow.experiments.registry import download_model, find_best_run, find_named_run, find_requested_run, register
from celebflow.features.transform import Transform
from celebflow.inference.onnx_export import run_model
from celebflow.report.thumbnails import load_thumbnail
from tests.experiments.conftest import enter_repository
from tests.repository import Repository, clone_repository

pytestmark = pytest.mark.slow

CHAMPION = "models:/celebflow@champion"
_LOCKED_NOTHING = {"celebflow.data_md5": "", "celebflow.splits_md5": ""}  # without a dvc.lock


@pytest.fixture(scope="module")
def registered(two_results: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Commit the worse result and register the better one; a test that changes something takes a clone."""
    repository = clone_repository(two_results, tmp_path_factory.mktemp("registered") / "repository")
    repository.commit("worse result")
    # In a process of its own: MLflow uses what pandas has deprecated.
    output = repository.run("celebflow", "register", "--metric", "val/final_macro_auc")
    better = repository.runs()[-1]
    assert better.info.run_id in output
    assert f"val/final_macro_auc {better.data.metrics['val/final_macro_auc']:.4f}" in output
    assert "version 1 of celebflow, alias champion" in output
    return repository


def _open_store(repository: Repository) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")


def test_the_better_of_two_results_is_registered_with_code_card_and_pinned_libraries(registered: Repository) -> None:
    worse, better = registered.runs()
    assert worse.data.metrics["val/final_macro_auc"] < better.data.metrics["val/final_macro_auc"]
    client = _open_store(registered)
    version = client.get_model_version_by_alias("celebflow", "champion")
    assert version.run_id == better.info.run_id
    description = version.description or ""
    for part in ("UNTRAINED", "accuracy", "val/final_macro_auc", "train: 36 photographs", "train.learning_rate: 0.001"):
        assert part in description
    (logged,) = _list_models(client, better.info.run_id)
    assert logged.model_id in (version.source or "")
    assert logged.artifact_location.startswith((registered.folder / "mlartifacts").as_uri())
    stored = Path(logged.artifact_location.removeprefix("file://"))
    assert not [file for file in stored.rglob("*") if file.suffix in (".pkl", ".pickle", ".pth", ".pt")]
    assert "torch==" in (stored / "requirements.txt").read_text()
    assert (stored / "artifacts" / "model_card.md").read_text() == description


def _list_models(client: mlflow.MlflowClient, run_id: str) -> list[mlflow.entities.LoggedModel]:
    """Return the models that a run has packaged."""
    experiment_id = client.get_run(run_id).info.experiment_id
    return list(client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"))


def test_a_run_is_registered_and_packaged_once_and_the_next_run_is_the_next_version(
    registered: Repository, tmp_path: Path
) -> None:
    repository = clone_repository(registered, tmp_path / "clone")
    client = _open_store(repository)
    worse, better = (run.info.run_id for run in repository.runs())
    assert "version 1 of celebflow" in repository.run("celebflow", "register", "--metric", "val/final_loss")
    assert len(client.search_model_versions("name = 'celebflow'")) == 1
    output = repository.run("celebflow", "register", worse[:8], "--alias", "challenger")
    assert "version 2 of celebflow, alias challenger" in output
    client.delete_registered_model("celebflow")
    assert "version 1 of celebflow" in repository.run("celebflow", "register", better)
    assert len(_list_models(client, better)) == 1, "the model that was packaged before is used again"


@pytest.mark.parametrize(
    ("metric", "choose"),
    [
        ("val/final_macro_auc", max),
        ("val/final_loss", min),
        ("val/final_uncalibrated_loss", min),
        ("val/final_calibration_error", min),
        ("val/final_uncalibrated_calibration_error", min),
    ],
)
def test_the_best_run_has_the_lowest_loss_or_error_or_else_the_highest_metric(
    two_results: Repository, monkeypatch: pytest.MonkeyPatch, metric: str, choose: Callable[..., float]
) -> None:
    enter_repository(two_results, monkeypatch)
    values = [run.data.metrics[metric] for run in two_results.runs()]
    assert min(values) < max(values)
    best = find_best_run(_open_store(two_results), metric)
    assert best.data.metrics[metric] == choose(values)


@pytest.mark.parametrize("status", ["KILLED", "FAILED", "RUNNING"])
def test_the_best_run_is_chosen_however_a_stage_after_evaluate_ended(clone: Repository, status: str) -> None:
    client = _open_store(clone)
    best = find_best_run(client, "val/final_macro_auc")
    if status == "RUNNING":  # plot has been killed
        client.update_run(best.info.run_id, status)
    else:
        client.set_terminated(best.info.run_id, status)
    assert find_best_run(client, "val/final_macro_auc").info.run_id == best.info.run_id


def test_a_run_is_found_by_its_id_the_beginning_of_its_id_and_its_experiment(clone: Repository) -> None:
    client = _open_store(clone)
    newer, older = (run.info.run_id for run in clone.runs())
    client.set_tag(older, "celebflow.dvc_experiment", "first")
    for name in (older, older[:8], "first"):
        assert find_named_run(client, name).info.run_id == older
    client.set_tag(older, "celebflow.continues", "f00d" * 8)  # the id that a run had while it waited
    for name in ("f00d" * 8, "f00df00d"):
        assert find_named_run(client, name).info.run_id == older
    client.set_tag(newer, "celebflow.dvc_experiment", "first")
    assert find_named_run(client, "first").info.run_id == newer
    with pytest.raises(CelebflowError, match="2 runs begin with"):
        find_named_run(client, "")


@pytest.mark.parametrize(
    ("name", "metric", "alias", "message"),
    [
        (None, "test/final_accuracy", "champion", "only a metric of validation"),
        (None, "val/beauty", "champion", "has val/beauty"),
        ("nobody", "val/final_accuracy", "champion", "There is no run nobody"),
        (None, "val/final_accuracy", "latest", "--alias is latest"),
        (None, "val/final_accuracy", "v2", "--alias is v2"),
        (None, "val/final_accuracy", "my champion", "--alias is my champion"),
    ],
)
def test_what_cannot_be_registered_is_an_error(
    two_results: Repository,
    monkeypatch: pytest.MonkeyPatch,
    name: str | None,
    metric: str,
    alias: str,
    message: str,
) -> None:
    enter_repository(two_results, monkeypatch)
    with pytest.raises(CelebflowError, match=message):
        register(name, metric, alias)


@pytest.mark.parametrize(
    ("params", "message"),
    [({"task": "segmentation"}, "task segmentation.*celebflow runs"), ({}, "has no classifier.*celebflow runs")],
)
def test_a_run_that_another_program_logged_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("of others"))
    for name, value in params.items():
        client.log_param(run.info.run_id, name, value)
    with pytest.raises(CelebflowError, match=f"{run.info.run_id} .*{message}"):
        register(run.info.run_id, "val/final_accuracy", "champion")


def test_the_run_of_an_experiment_is_that_of_its_result(clone: Repository) -> None:
    # As if an experiment of this name had been removed, and the next taken from DVC's run cache.
    other = clone.runs()[-1].info.run_id
    _open_store(clone).set_tag(other, "celebflow.dvc_experiment", "faint")
    assert clone.run_id() != other
    assert find_requested_run(_open_store(clone), "faint").info.run_id == clone.run_id()
    clone.run("dvc", "exp", "rename", "faint", "renamed")
    assert find_requested_run(_open_store(clone), "renamed").info.run_id == clone.run_id()


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: register(None, "val/final_accuracy", "champion"),
        lambda folder: download_model(CHAMPION, folder / "model"),
    ],
    ids=["register", "download"],
)
def test_a_registry_that_cannot_be_used_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "postgresql://ann:S3cretWord@127.0.0.1:9/models")
    with pytest.raises(CelebflowError, match="registry.*Check MLFLOW_REGISTRY_URI") as caught:
        use(tmp_path)
    assert "S3cretWord" not in str(caught.value)


def test_runs_on_another_split_are_not_candidates(clone: Repository) -> None:
    clone.edit("prepare:\n  seed: 0", "prepare:\n  seed: 5")
    clone.repro("prepare")
    assert "error: No run on the photographs and the split" in clone.invoke("register", fails=True)


def test_a_classifier_that_the_cache_lacks_is_an_error_with_the_remedy(clone: Repository) -> None:
    run = clone.runs()[-1]
    md5 = run.data.tags["celebflow.classifier_md5"]
    (clone.folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    with pytest.raises(CelebflowError) as caught:
        register(run.info.run_id, "val/final_accuracy", "champion")
    for part in (
        "classifier",
        run.info.run_id,
        "is not in DVC's cache",
        "dvc pull",
        run.data.tags["celebflow.restore"],
    ):
        assert part in str(caught.value)


@pytest.fixture(scope="module")
def served(registered: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the champion with MLflow, and yield the address that predicts."""
    elsewhere = Repository(tmp_path_factory.mktemp("elsewhere"))  # the model brings its own code
    command = ("mlflow", "models", "serve", "-m", CHAMPION, "--env-manager", "local")
    uri = f"sqlite:///{registered.folder / 'mlflow.db'}"
    with elsewhere.variables(MLFLOW_TRACKING_URI=uri), elsewhere.serve(*command, path="/ping") as address:
        yield f"{address}/invocations"


def _request(address: str, *photographs: str) -> requests.Response:
    records = [{"photograph": photograph} for photograph in photographs]
    return requests.post(address, json={"dataframe_records": records}, timeout=60)


def _load_predictions(report: Path) -> list[dict[str, str]]:
    with (report / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def expected(registered: Repository) -> list[dict[str, str]]:
    """Return what evaluate predicted for the test photographs with the champion."""
    client = _open_store(registered)
    champion = client.get_model_version_by_alias("celebflow", "champion")
    report = mlflow.artifacts.download_artifacts(
        run_id=champion.run_id, artifact_path="reports/test", tracking_uri=client.tracking_uri
    )
    return _load_predictions(Path(report))


@pytest.mark.parametrize("options", [["--model", CHAMPION], ["--rev", "HEAD"], []])
def test_the_command_line_predicts_what_evaluate_predicted(
    registered: Repository, expected: list[dict[str, str]], options: list[str]
) -> None:
    current = _load_predictions(registered.folder / "reports" / "test")
    assert expected != current
    rows = expected if "--model" in options else current
    photographs = [f"data/{row['path']}" for row in rows]
    output = registered.invoke("predict", "--csv", "--top", "1", *options, *photographs)
    predictions = list(csv.DictReader(output[output.index("photograph,") :].splitlines()))
    assert [prediction["photograph"] for prediction in predictions] == photographs
    assert [prediction["name"] for prediction in predictions] == [row["predicted"] for row in rows]
    probabilities = [float(prediction["probability"]) for prediction in predictions]
    assert probabilities == pytest.approx([float(row["confidence"]) for row in rows], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rev", "nowhere"], "--rev is nowhere"),
        (["--model", "models:/celebflow@nobody"], "--model is models:/celebflow@nobody"),
    ],
)
def test_a_model_that_does_not_exist_is_an_error(registered: Repository, options: list[str], message: str) -> None:
    assert f"error: {message}" in registered.invoke("predict", *options, "data", fails=True)


def test_mlflow_s_server_predicts_what_evaluate_predicted(
    registered: Repository, served: str, expected: list[dict[str, str]]
) -> None:
    contents = [(registered.folder / "data" / row["path"]).read_bytes() for row in expected]
    response = _request(served, *(base64.b64encode(content).decode() for content in contents))
    assert response.status_code == 200
    predictions = response.json()["predictions"]
    for row, predicted in zip(expected, predictions, strict=True):
        assert predicted["name"] == row["predicted"]
        assert predicted["probability"] == pytest.approx(float(row["confidence"]), abs=1e-5)
        assert sum(predicted["probabilities"].values()) == pytest.approx(1)
        assert max(predicted["probabilities"], key=predicted["probabilities"].get) == row["predicted"]
    known = [predicted["probability"] for predicted in predictions if predicted["known"]]
    unknown = [predicted["probability"] for predicted in predictions if not predicted["known"]]
    assert min(known, default=1) > max(unknown, default=0)


def test_celebflow_s_server_and_onnx_predict_what_evaluate_predicted(
    registered: Repository, expected: list[dict[str, str]], tmp_path: Path
) -> None:
    contents = [(registered.folder / "data" / row["path"]).read_bytes() for row in expected]
    names = [row["predicted"] for row in expected]
    confidences = [float(row["confidence"]) for row in expected]
    candidates = []
    with registered.serve("celebflow", "serve", "--model", CHAMPION, path="/healthz") as address:
        for content in contents:
            response = requests.post(f"{address}/predict", files={"photograph": content}, timeout=60)
            candidates.append(response.json()["faces"][0]["candidates"][0])
    assert [candidate["name"] for candidate in candidates] == names
    assert [candidate["probability"] for candidate in candidates] == pytest.approx(confidences, abs=1e-5)

    file = tmp_path / "champion.onnx"
    registered.invoke("export", str(file), "--model", CHAMPION)
    metadata = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    transform = Transform.from_dict(json.loads(metadata["transform"]))
    class_names = json.loads(metadata["class_names"])
    probabilities, _ = run_model(file, transform, [decode_photograph(content) for content in contents])
    assert [class_names[person] for person in probabilities.argmax(axis=1)] == names
    assert probabilities.max(axis=1).tolist() == pytest.approx(confidences, abs=1e-4)


def test_the_server_shows_photographs_of_train_when_it_may(registered: Repository, browser: Chrome) -> None:
    photos = load_photos(registered.folder / "splits" / "photos.csv")
    photo = next(photo for photo in photos if photo.split == "train")
    file = registered.folder / "data" / photo.path
    with registered.serve("celebflow", "serve", "--show-training", path="/healthz") as address:
        response = requests.post(f"{address}/predict?nearest=true", files={"photograph": file.read_bytes()}, timeout=60)
        browser.get(address)
        browser.find_element(By.ID, "file").send_keys(str(file))
        WebDriverWait(browser, 30).until(lambda driver: driver.find_element(By.ID, "result").is_displayed())
        shown = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".nearest li")]
    nearest = response.json()["faces"][0]["nearest"]
    assert len(nearest) == 4
    assert (nearest[0]["person"], nearest[0]["similarity"]) == (photo.person, pytest.approx(1, abs=1e-5))
    with Image.open(io.BytesIO(base64.b64decode(nearest[0]["thumbnail"]))) as thumbnail:
        difference = np.abs(np.asarray(thumbnail) - load_thumbnail(file, None).astype(int))
    assert difference.mean() < 6, "JPEG loses only a little"
    assert shown == [photograph["person"] for photograph in nearest]


@pytest.mark.parametrize(
    ("photograph", "message"),
    [
        ("/etc/passwd", "not in base64"),
        ("file:///etc/passwd", "not in base64"),
        ("http://127.0.0.1:9/a.png", "not in base64"),
        (base64.b64encode(b"no photograph").decode(), "is not a JPEG"),
        ("etc/passwd/", "is not in base64"),
        ("abcd/efg", "is not a JPEG"),
        ("/home/Björn/a.jpg", "is not in base64"),
        ("", "is empty"),
    ],
)
def test_what_is_not_a_photograph_is_a_bad_request(served: str, photograph: str, message: str) -> None:
    response = _request(served, photograph)
    assert response.status_code == 400
    assert re.search(message, response.text), response.text
    assert "root:" not in response.text


def test_a_request_without_rows_is_a_bad_request(served: str) -> None:
    assert _request(served).status_code == 400


def test_runs_that_diverged_are_never_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("celebflow")
    accuracy, loss = "val/final_accuracy", "val/final_loss"
    ids = []
    for values in ((0.5, 2.0), (np.nan, 1.0), (np.inf, 1.0), (0.9, np.nan), (0.9, -np.inf)):
        run = client.create_run(experiment, tags={"celebflow.classifier_md5": "0" * 32, **_LOCKED_NOTHING})
        for name, value in zip((accuracy, loss), values, strict=True):
            client.log_metric(run.info.run_id, name, float(value))
        client.set_terminated(run.info.run_id)
        ids.append(run.info.run_id)
    for metric in (accuracy, loss):
        assert find_best_run(client, metric).info.run_id == ids[0]
    for run_id, name in zip(ids[1:], (accuracy, accuracy, loss, loss), strict=True):
        with pytest.raises(CelebflowError, match=f"{run_id} diverged: {name}.*celebflow runs"):
            register(run_id, accuracy, "champion")
