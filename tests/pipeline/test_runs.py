"""Every training has its MLflow run, which leads back to what made the result."""

import shutil
from pathlib import Path

import mlflow
import pytest
import yaml

from tests.repository import Repository

pytestmark = pytest.mark.slow


def test_run_has_params_curves_metrics_and_figures(template: Repository) -> None:
    (run,) = template.runs()
    experiment = template.client.get_experiment(run.info.experiment_id)
    assert "val/final_accuracy" in experiment.tags["mlflow.sharedViewState.celebflow"], "MLflow's pages show it"
    assert run.info.status == "FINISHED"
    assert "UNTRAINED" in run.info.run_name
    assert run.data.params["train.learning_rate"] == "0.001"
    assert run.data.tags["celebflow.backbone_trained"] == "false"
    assert "plot.resolution_dpi" not in run.data.params, "it makes no difference to a result"
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert template.list_steps(run.info.run_id, name) == [1, 2, 3]
    assert run.data.metrics["test/final_accuracy"] == pytest.approx(template.read_metrics()["test"]["accuracy"])
    uri = template.client.tracking_uri
    stored = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, tracking_uri=uri))
    files = {path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file()}
    assert {"params.yaml", "reports/metrics.json", "reports/val/predictions.csv", "reports/index.html"} <= files
    assert "reports/all_metrics.json" in files
    assert {"splits/duplicates.csv", "features/faces.csv", "reports/figures/accuracy.png"} <= files
    assert "reports/figures/duplicates.png" not in files, "there are no near-duplicates"
    figures = {file.relative_to(template.folder).as_posix() for file in template.folder.glob("reports/figures/*")}
    assert len(figures) > 15
    assert {file for file in files if file.startswith("reports/figures/")} == figures


def test_run_leads_back_to_code_data_and_machine(template: Repository) -> None:
    (run,) = template.runs()
    tags = run.data.tags
    head = template.run("git", "rev-parse", "HEAD~1").strip()
    assert tags["mlflow.source.git.commit"] == head
    assert tags["celebflow.restore"] == f"git checkout {head} && dvc repro"
    assert tags["celebflow.restore"] in tags["mlflow.note.content"]
    assert "UNTRAINED" in tags["mlflow.note.content"]
    assert "| val |" in tags["mlflow.note.content"]
    lock = yaml.safe_load((template.folder / "dvc.lock").read_text())["stages"]
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    assert tags["celebflow.features_md5"] == outs["features"]
    assert tags["celebflow.classifier_md5"] == outs["models/classifier.safetensors"]
    assert tags["celebflow.data_md5"].endswith(".dir")
    assert run.inputs
    datasets = {item.tags[0].value: item.dataset.name for item in run.inputs.dataset_inputs}
    assert datasets == {"train": "train: 36 photographs", "val": "val: 12 photographs", "test": "test: 12 photographs"}


def test_evaluate_and_plot_continue_the_run(repository: Repository) -> None:
    (before,) = repository.runs()
    repository.run_stage("evaluate")
    repository.run_stage("plot")
    (run,) = repository.runs()
    assert run.info.status == "FINISHED"
    assert run.info.end_time > before.info.end_time


@pytest.mark.parametrize("following", ["", "other"])
def test_the_run_of_an_interrupted_experiment_is_not_said_to_be_restored_by_it(
    repository: Repository, following: str
) -> None:
    repository.run("dvc", "exp", "run", "--name", "lost", "--set-param", "train.learning_rate=0.002", "train")
    run_id = repository.run_id()
    assert repository.client.get_run(run_id).data.tags["celebflow.restore"] == "dvc exp apply lost"
    repository.run("dvc", "exp", "remove", "lost")  # as if it had been interrupted before it was saved
    if following:
        repository.run("dvc", "exp", "run", "--name", following)
    else:
        repository.repro()
    run = repository.client.get_run(run_id)
    assert run.info.status == "FINISHED" and "val/final_accuracy" in run.data.metrics
    texts = [run.info.run_name, *run.data.tags.values()]
    assert not any("lost" in text for text in texts)
    restore = run.data.tags.get("celebflow.restore")
    assert restore == (f"dvc exp apply {following}" if following else None)
    assert (following in run.info.run_name) and run.data.tags.get("celebflow.dvc_experiment", "") == following


def test_the_run_of_an_experiment_that_is_there_stays_its_own(repository: Repository) -> None:
    repository.run("dvc", "exp", "run", "--name", "kept", "--set-param", "train.learning_rate=0.002", "train")
    repository.repro()
    tags = repository.client.get_run(repository.run_id()).data.tags
    assert (tags["celebflow.dvc_experiment"], tags["celebflow.restore"]) == ("kept", "dvc exp apply kept")


def test_result_from_another_machine_continues_in_one_new_run(repository: Repository) -> None:
    other_id = "0123456789abcdef0123456789abcdef"
    (repository.folder / "models" / "mlflow_run_id.txt").unlink()
    (repository.folder / "models" / "mlflow_run_id.txt").write_text(other_id)
    output = repository.run("python", "-m", "stages.evaluate")
    repository.run_stage("evaluate")
    new, _ = repository.runs()
    assert new.info.run_id in output
    assert new.data.tags["celebflow.continues"] == other_id


def test_what_is_logged_and_shown_of_a_result_are_the_params_that_made_it(repository: Repository) -> None:
    (repository.folder / "mlflow.db").unlink()  # as if the result came from another machine
    repository.edit("epochs: 3", "epochs: 50")
    repository.run("dvc", "repro", "--force", "--single-item", "evaluate")
    repository.run("dvc", "repro", "--force", "--single-item", "plot")
    (run,) = repository.runs()
    assert run.data.params["train.epochs"] == "3"
    assert "50" not in run.info.run_name
    page = (repository.folder / "reports" / "index.html").read_text()
    assert "<dt>train.epochs</dt><dd>3</dd>" in page


@pytest.mark.parametrize(
    "uri", ["sqlite:////dev/null/mlflow.db", "http://127.0.0.1:9", "postgresql://127.0.0.1:9/mlflow"]
)
def test_store_that_cannot_be_used_is_an_error_before_training(repository: Repository, uri: str) -> None:
    with repository.variables(MLFLOW_TRACKING_URI=uri):
        output = repository.run_stage("train", fails=True)
    assert uri in output and "MLFLOW_TRACKING_URI" in output and "tracking.required" in output
    assert "Training" not in output and "epoch" not in output
    assert "Traceback" not in output


def test_mlflow_tracking_uri_is_honored(repository: Repository, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    shutil.copy(repository.folder / "mlflow.db", tmp_path / "elsewhere.db")  # to make a new one takes MLflow seconds
    with repository.variables(MLFLOW_TRACKING_URI=uri):
        repository.run_stage("train")
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("celebflow")
    assert experiment and len(client.search_runs([experiment.experiment_id])) == 2
    assert len(repository.runs()) == 1
