"""Photographs, results and the files of runs on S3, at a server on loopback; see `make test-services`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.repository import EVERY_STAGE, Repository, make_repository

pytestmark = pytest.mark.services

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATHEONE", "AWS_SECRET_ACCESS_KEY": "S3cretWord+/="}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server that speaks S3, with an empty bucket, and yield its address."""
    with Repository(tmp_path_factory.mktemp("s3")).serve("moto_server", path="/") as address:
        requests.put(f"{address}/bucket", timeout=30).raise_for_status()
        yield address


@pytest.fixture(scope="module")
def repository(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Run the pipeline with photographs, results and the files of its run on S3."""
    repository = make_repository(tmp_path_factory.mktemp("repository"))
    repository.environment |= {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    repository.run("dvc", "remote", "add", "--default", "storage", "s3://bucket/celebflow")
    repository.commit("remote")
    place = ("--experiment-name", "celebflow", "--artifact-location", "s3://bucket/runs")
    with repository.variables(MLFLOW_TRACKING_URI="sqlite:///mlflow.db"):
        repository.run("mlflow", "experiments", "create", *place)
    assert repository.repro() == EVERY_STAGE
    repository.commit("result")
    repository.run("dvc", "push")
    return repository


def _list_keys(endpoint: str, prefix: str) -> str:
    response = requests.get(f"{endpoint}/bucket", params={"list-type": "2", "prefix": prefix}, timeout=30)
    response.raise_for_status()
    return response.text


def test_the_files_of_a_run_are_on_s3_and_its_model_can_be_registered(repository: Repository, endpoint: str) -> None:
    keys = _list_keys(endpoint, f"runs/{repository.run_id()}")
    assert "reports/figures/val_roc.png" in keys and "params.yaml" in keys
    assert not (repository.folder / "mlartifacts").exists()
    repository.run("celebflow", "register")
    photograph = str(next(repository.folder.glob("data/*/1.png")))
    assert "1.png" in repository.run("celebflow", "predict", "--model", "models:/celebflow@champion", photograph)


def test_a_clone_fetches_photographs_and_results_and_runs_nothing(repository: Repository, tmp_path: Path) -> None:
    repository.run("git", "clone", "--quiet", str(repository.folder), str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone")
    clone.environment = repository.environment | {"DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    assert "0.2" in clone.run("celebflow", "runs"), "results on S3 are listed before they are fetched"
    clone.run("dvc", "pull")
    assert clone.repro() == []
    for file in ("data/Ada Brown/1.png", "models/classifier.safetensors", "reports/index.html"):
        if (repository.folder / file).exists():
            assert (clone.folder / file).read_bytes() == (repository.folder / file).read_bytes()


def test_no_key_is_written_or_said(repository: Repository) -> None:
    with repository.variables(AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1"):
        said = repository.run("dvc", "repro", "--force", "--single-item", "plot", status=255)
        said += repository.run("dvc", "push", status=255)
    assert "cannot be stored or read: Could not connect" in said and "Traceback" not in said
    for key in KEYS.values():
        assert key not in said
        for file in repository.folder.rglob("*"):
            assert not file.is_file() or key.encode() not in file.read_bytes(), file
