"""The pipeline against an MLflow server over PostgreSQL, read back through the REST API; see `make test-services`."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.repository import EVERY_STAGE, Repository, make_repository

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Start PostgreSQL in a folder of its own, on a socket only, and yield the address of an empty database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(found).parent for found in [shutil.which("pg_ctl")] if found
    ]
    assert programs, "PostgreSQL is missing: sudo apt-get install postgresql"
    folder = Path(tempfile.mkdtemp(prefix="celebflow-postgres-"))
    # PostgreSQL refuses to run as root; Debian's package creates a user for it.
    root = os.geteuid() == 0
    if root:
        shutil.chown(folder, "postgres", "postgres")

    def run(program: str, *arguments: str) -> None:
        command = [str(programs[-1] / program), *arguments]
        as_other = ["runuser", "-u", "postgres", "--"] if root else []
        subprocess.run([*as_other, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    run("initdb", "--pgdata", "data", "--auth", "trust", "--username", "celebflow")
    run("pg_ctl", "--pgdata", "data", "--log", "log", "--wait", "start", "-o", f"-c listen_addresses='' -k {folder}")
    try:
        run("createdb", "--host", str(folder), "--username", "celebflow", "mlflow")
        yield f"postgresql://celebflow@/mlflow?host={folder}"
    finally:
        run("pg_ctl", "--pgdata", "data", "--mode", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start `mlflow server` with that database and an artifact store, and yield its address."""
    folder = tmp_path_factory.mktemp("server")
    command = ["mlflow", "server", "--backend-store-uri", database, "--workers", "2"]
    options = ["--artifacts-destination", str(folder / "artifacts")]
    with Repository(folder).serve(*command, *options, path="/health") as address:
        yield address


@pytest.fixture(scope="module")
def repository(server: str, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Run the pipeline once, logging to the server."""
    repository = make_repository(tmp_path_factory.mktemp("repository"))
    repository.environment["MLFLOW_TRACKING_URI"] = server
    assert repository.repro() == EVERY_STAGE
    return repository


def _get(address: str, endpoint: str, **query: str) -> Any:
    response = requests.get(f"{address}/api/2.0/mlflow/{endpoint}", params=query, timeout=30)
    response.raise_for_status()
    return response.json()


def _search_runs(address: str) -> list[Any]:
    experiment = _get(address, "experiments/get-by-name", experiment_name="celebflow")["experiment"]["experiment_id"]
    response = requests.post(f"{address}/api/2.0/mlflow/runs/search", json={"experiment_ids": [experiment]}, timeout=30)
    response.raise_for_status()
    runs: list[Any] = response.json()["runs"]
    return runs


def test_the_rest_api_returns_everything_that_a_run_logged(repository: Repository, server: str) -> None:
    assert not (repository.folder / "mlflow.db").exists()
    run = _get(server, "runs/get", run_id=repository.run_id())["run"]
    assert run["info"]["status"] == "FINISHED"
    assert {param["key"]: param["value"] for param in run["data"]["params"]}["train.epochs"] == "3"
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert len(tags["celebflow.classifier_md5"]) == 32
    assert "| test |" in tags["mlflow.note.content"]
    metrics = json.loads((repository.folder / "reports" / "all_metrics.json").read_text())
    logged = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert logged["val/final_macro_auc"] == pytest.approx(metrics["val"]["macro_auc"])
    history = _get(server, "metrics/get-history", run_id=repository.run_id(), metric_key="train/loss")["metrics"]
    assert [metric["step"] for metric in history] == [1, 2, 3]
    assert {item["dataset"]["name"][:4] for item in run["inputs"]["dataset_inputs"]} == {"trai", "val:", "test"}
    query = {"path": "reports/figures/val_roc.png", "run_uuid": repository.run_id()}
    picture = requests.get(f"{server}/get-artifact", params=query, timeout=30)
    assert picture.content == (repository.folder / "reports" / "figures" / "val_roc.png").read_bytes()


def test_a_run_that_waited_is_synced_to_the_server(repository: Repository, server: str) -> None:
    count = len(_search_runs(server))
    repository.edit("required: true", "required: false")
    repository.edit("learning_rate: 0.001", "learning_rate: 0.002")
    with repository.variables(MLFLOW_TRACKING_URI="http://127.0.0.1:9"):
        assert repository.repro() == ["train", "evaluate", "plot"]
    assert len(_search_runs(server)) == count
    assert repository.run("celebflow", "runs", "sync", "--here").endswith("1 runs synced.\n")
    run = _search_runs(server)[0]
    assert len(_search_runs(server)) == count + 1
    assert run["info"]["run_name"].startswith("learning_rate 0.002")
    files = _get(server, "artifacts/list", run_id=run["info"]["run_id"], path="reports/figures")["files"]
    assert len(files) == len(list((repository.folder / "reports" / "figures").iterdir())) > 10


def test_a_model_is_registered_at_the_server(repository: Repository, server: str) -> None:
    repository.run("celebflow", "register", repository.run_id())
    version = _get(server, "registered-models/alias", name="celebflow", alias="champion")["model_version"]
    assert "UNTRAINED" in version["description"]
    folder = repository.folder / "downloaded"
    repository.run("mlflow", "artifacts", "download", "-u", "models:/celebflow@champion", "-d", str(folder))
    (stored,) = folder.rglob("classifier.safetensors")
    assert len(stored.read_bytes()) > 1_000_000
