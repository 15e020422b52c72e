"""The real pipeline in small: a real git repository, the real dvc, and a real MLflow store."""

import csv
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml

from celebflow.data import invented_people
from tests.repository import EVERY_STAGE, Repository, make_repository

pytestmark = pytest.mark.slow

AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Run the whole pipeline once, commit its result, and hand the repository on from test to test."""
    repository = make_repository(tmp_path_factory.mktemp("repository"))
    assert repository.repro() == EVERY_STAGE
    repository.run("git", "add", ".")
    repository.run("git", "commit", "--quiet", "--message", "first result")
    yield repository


@pytest.fixture
def repository(reproduced: Repository) -> Iterator[Repository]:
    """Hand out the repository with the first result, and put that back afterwards."""
    yield reproduced
    reproduced.run("git", "checkout", "--quiet", "--force", "HEAD")
    reproduced.run("dvc", "checkout", "--quiet", "--force")


def test_second_repro_runs_nothing(repository: Repository) -> None:
    assert repository.repro() == []
    assert "up to date" in repository.run("dvc", "status")


def test_results_are_there_and_readable(repository: Repository) -> None:
    metrics = json.loads((repository.folder / "reports" / "metrics.json").read_text())
    assert metrics["backbone"] == "UNTRAINED"
    names = ["accepted", "accuracy", "balanced_accuracy", "calibration_error", "loss", "macro_auc", "top_5_accuracy"]
    names += ["uncalibrated_calibration_error", "uncalibrated_loss"]
    assert sorted(metrics["val"]) == sorted(metrics["test"]) == names
    for split in ("val", "test"):
        intervals = json.loads((repository.folder / "reports" / split / "intervals.json").read_text())
        for name in ("accuracy", "balanced_accuracy", "macro_auc"):
            assert intervals[name]["low"] <= metrics[split][name] <= intervals[name]["high"]
    assert "accuracy.low" in repository.run("dvc", "metrics", "show")
    faces = (repository.folder / "reports" / "faces.csv").read_text(encoding="utf-8")
    assert faces == "path,faces,seen\n", "none are looked for"
    with (repository.folder / "reports" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert float(history[-1]["val_accuracy"]) == pytest.approx(metrics["val"]["accuracy"], abs=1e-6)


def test_mlflow_run_has_params_curves_metrics_and_figures(repository: Repository) -> None:
    (run,) = repository.runs()
    assert run.info.status == "FINISHED"
    assert "UNTRAINED" in run.info.run_name
    assert run.data.params["train.learning_rate"] == "0.001"
    assert run.data.tags["celebflow.backbone_trained"] == "false"
    assert "plot.resolution_dpi" not in run.data.params, "it makes no difference to a result"
    client = mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3]
    metrics = json.loads((repository.folder / "reports" / "metrics.json").read_text())
    assert run.data.metrics["test/final_accuracy"] == pytest.approx(metrics["test"]["accuracy"], abs=1e-6)
    stored = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, tracking_uri=client.tracking_uri))
    files = {path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file()}
    assert {"params.yaml", "reports/metrics.json", "reports/val/predictions.csv", "reports/index.html"} <= files
    assert {"reports/duplicates.csv", "reports/duplicates.png"} <= files
    assert len([file for file in files if file.startswith("reports/figures/")]) == 20


def test_mlflow_run_leads_back_to_code_data_and_machine(repository: Repository) -> None:
    (run,) = [run for run in repository.runs() if run.info.run_id == repository.run_id()]
    tags = run.data.tags
    head = repository.run("git", "rev-parse", "HEAD~1").strip()
    assert tags["mlflow.source.git.commit"] == head
    assert tags["celebflow.restore"] == f"git checkout {head} && dvc repro"
    assert tags["celebflow.restore"] in tags["mlflow.note.content"]
    assert "UNTRAINED" in tags["mlflow.note.content"]
    assert "| val |" in tags["mlflow.note.content"]
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text())["stages"]
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    assert tags["celebflow.features_md5"] == outs["features"]
    assert tags["celebflow.classifier_md5"] == outs["models/classifier.safetensors"]
    assert tags["celebflow.data_md5"].endswith(".dir")
    datasets = {item.tags[0].value: item.dataset.name for item in run.inputs.dataset_inputs}
    assert datasets == {"train": "train: 36 photographs", "val": "val: 12 photographs", "test": "test: 12 photographs"}


def test_a_killed_run_is_ended_by_the_next(repository: Repository) -> None:
    repository.edit("epochs: 3", "epochs: 100000")
    process = repository.start_training()
    killed = repository.runs()[0].info.run_id
    process.kill()
    process.communicate()
    repository.edit("epochs: 100000", "epochs: 3")
    repository.run("python", "-m", "stages.train")
    statuses = {run.info.run_id: run.info.status for run in repository.runs()}
    assert statuses.pop(killed) == "KILLED"
    assert "RUNNING" not in statuses.values()


def test_learning_rate_re_runs_train_evaluate_and_plot_alone(repository: Repository) -> None:
    before = len(repository.runs())
    repository.edit("learning_rate: 0.001", "learning_rate: 0.002")
    assert repository.repro() == ["train", "evaluate", "plot"]
    assert len(repository.runs()) == before + 1
    assert repository.runs()[0].info.run_name.startswith("learning_rate 0.002"), "it says what was tried"
    assert "celebflow.restore" not in repository.runs()[0].data.tags, "no commit has this change"
    assert re.search(r"train.learning_rate\s+0.001\s+0.002", repository.run("dvc", "params", "diff"))
    assert "val.accuracy" in repository.run("dvc", "metrics", "diff", "--all")
    repository.run("dvc", "plots", "diff", "HEAD", "workspace")
    page = (repository.folder / "dvc_plots" / "index.html").read_text()
    for plot in ("accuracy", "loss", "roc", "precision_recall", "reliability", "recall_by_person", "confusion_matrix"):
        assert f'id = "{plot}"' in page or f"{plot}" in page
    assert "HEAD" in page and "workspace" in page


def test_the_page_shows_the_recipe_also_where_no_result_changed(repository: Repository) -> None:
    page = repository.folder / "reports" / "index.html"
    assert "<dt>prepare.unreadable</dt><dd>stop</dd>" in page.read_text()
    repository.edit("unreadable: stop", "unreadable: leave_out")
    assert repository.repro() == ["prepare", "plot"]
    assert "<dt>prepare.unreadable</dt><dd>leave_out</dd>" in page.read_text()
    repository.edit("required: true", "required: false")
    assert repository.repro() == [], "the page does not show it"


def test_with_two_people_every_plot_is_there(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, people=2)
    repository.repro()
    repository.run("git", "add", ".")
    repository.run("git", "commit", "--quiet", "--message", "two people")
    plots = yaml.safe_load((repository.folder / "dvc.yaml").read_text())["plots"]
    files = {Path(plot) for plot in plots if isinstance(plot, str)}
    assert files == {file.relative_to(repository.folder) for file in repository.folder.glob("reports/figures/*")}
    for command in (["show"], ["diff", "HEAD", "workspace"]):
        shown = json.loads(repository.run("dvc", "plots", *command, "--json"))
        assert "errors" not in shown
        assert {str(file) for file in files} <= set(shown["data"])


def test_another_split_extracts_nothing_again(repository: Repository) -> None:
    repository.edit("prepare:\n  seed: 0", "prepare:\n  seed: 1")
    output = repository.run("dvc", "repro", "extract")
    assert re.findall(r"Running stage '(\w+)'", output) == ["prepare", "extract"]
    assert "0 photographs extracted with ncnn, 60 found in the cache" in output


def test_forced_training_gives_the_same_classifier_and_a_new_run(repository: Repository) -> None:
    classifier = repository.folder / "models" / "classifier.safetensors"
    before, count = classifier.read_bytes(), len(repository.runs())
    repository.run("dvc", "repro", "--force", "--single-item", "train")
    assert classifier.read_bytes() == before
    assert len(repository.runs()) == count + 1


def test_experiments_outside_the_workspace_log_to_the_one_store_and_share_the_cache(repository: Repository) -> None:
    count = len(repository.runs())
    output = repository.run("dvc", "exp", "run", "--temp", "--name", "other-split", "--set-param", "prepare.seed=7")
    assert "0 photographs extracted" in output
    runs = repository.runs()
    assert len(runs) == count + 1
    assert runs[0].info.run_name.startswith("other-split: seed 7")
    assert runs[0].data.tags["celebflow.restore"] == "dvc exp apply other-split"
    assert runs[0].info.artifact_uri.startswith((repository.folder / "mlartifacts").as_uri())


def test_a_result_from_the_run_cache_still_points_to_its_own_run(repository: Repository) -> None:
    repository.edit("dropout: 0.5", "dropout: 0.3")
    assert repository.repro() == ["train", "evaluate", "plot"]
    first, count = repository.run_id(), len(repository.runs())
    repository.edit("dropout: 0.3", "dropout: 0.4")
    assert repository.repro() == ["train", "evaluate", "plot"]
    assert repository.run_id() != first
    repository.edit("dropout: 0.4", "dropout: 0.3")
    assert repository.repro() == []
    assert (repository.run_id(), len(repository.runs())) == (first, count + 1)


def test_evaluate_and_plot_again_continue_the_run(repository: Repository) -> None:
    count = len(repository.runs())
    repository.run("dvc", "repro", "--force", "--single-item", "evaluate")
    repository.edit("resolution_dpi: 150", "resolution_dpi: 100")
    assert repository.repro() == ["plot"]
    assert len(repository.runs()) == count


def test_queued_experiments_with_two_workers_log_a_run_each(repository: Repository) -> None:
    count = len(repository.runs())
    repository.run_queued("train.learning_rate=0.0003", "train.learning_rate=0.0004")
    runs = repository.runs()[: len(repository.runs()) - count]
    assert sorted(run.data.params["train.learning_rate"] for run in runs) == ["0.0003", "0.0004"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    restored = {f"dvc exp apply train-learning_rate-0-000{number}" for number in (3, 4)}
    assert {run.data.tags["celebflow.restore"] for run in runs} == restored


def test_runs_are_listed_with_commits_and_experiments(repository: Repository) -> None:
    repository.run("dvc", "exp", "run", "--temp", "--name", "listed", "-S", "train.learning_rate=0.0005")
    rows = [line.split() for line in repository.run("celebflow", "runs").splitlines()]
    by_name = {row[0]: row for row in rows}
    metrics = json.loads((repository.folder / "reports" / "metrics.json").read_text())
    head = repository.run("git", "rev-parse", "--abbrev-ref", "HEAD").strip()
    for name in ("workspace", head):
        assert by_name[name][-1] == repository.run_id()
        assert float(by_name[name][1]) == pytest.approx(metrics["val"]["accuracy"], abs=1e-4)
    assert by_name["listed"][-2:] == ["train.learning_rate=0.0005", repository.runs()[0].info.run_id]


def test_results_are_compared_wherever_they_are(repository: Repository) -> None:
    repository.run("dvc", "exp", "run", "--temp", "--name", "compared", "-S", "train.learning_rate=0.00001")
    run = repository.runs()[0]
    head = repository.run("git", "rev-parse", "HEAD").strip()
    answers = []
    for a, b in (("HEAD", "compared"), ("workspace", "compared"), (head[:8], run.info.run_id[:12])):
        answers.append(json.loads(repository.run("celebflow", "compare", a, b, "--json")))
        assert (answers[-1].pop("a"), answers[-1].pop("b")) == (a, b)
    assert answers[0] == answers[1] == answers[2]
    compared = answers[0]
    assert compared["count"] == 12
    assert compared["accuracy_b"] == pytest.approx(run.data.metrics["val/final_accuracy"], abs=1e-6)
    assert len(compared["broken"]) == compared["overall"]["only_a"] > 0
    output = repository.run("celebflow", "compare", "compared", "--split", "test", "--limit", "1")
    assert output.startswith("A: compared, B: workspace, 12 photographs of test in both.")
    assert "95 % interval" in output and "B alone is right" in output and "--limit -1 lists all" in output
    assert json.loads(repository.run("celebflow", "compare", "HEAD", "--json"))["overall"]["p_value"] == 1.0


def test_what_cannot_be_compared_says_why(repository: Repository) -> None:
    output = repository.run("celebflow", "compare", "HEAD", "nowhere", status=1)
    assert "There is no run nowhere in" in output
    first = repository.run("git", "rev-list", "--max-parents=0", "HEAD").strip()
    for arguments in (("compare", first, "HEAD"), ("predict", "--rev", first, "data")):
        output = repository.run("celebflow", *arguments, status=1)
        assert re.search(f"{first} has no (reports|models)/.*: it holds no result of `dvc repro`", output)
        assert "Traceback" not in output


def test_a_result_that_the_cache_lacks_is_told(repository: Repository, tmp_path: Path) -> None:
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text())["stages"]["evaluate"]["outs"]
    (md5,) = (out["md5"] for out in lock if out["path"] == "reports/metrics.json")
    head = repository.run("git", "rev-parse", "HEAD").strip()
    file = repository.folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    repository.edit("learning_rate: 0.001", "learning_rate: 0.00004")
    file.rename(file.with_name("kept"))
    try:
        repository.repro()
    finally:
        file.with_name("kept").rename(file)
    text = (repository.folder / "reports" / "index.html").read_text().replace("&#39;", "'")
    expected = (
        f"The result of commit {head[:7]} is not compared with: DVC's cache lacks reports/metrics.json of {head[:7]}"
    )
    assert f"{expected}. If it was made elsewhere, `dvc pull --all-commits` fetches it." in text
    clone = Repository(tmp_path / "clone")
    repository.run("git", "clone", "--quiet", ".", str(clone.folder))
    output = clone.run("celebflow", "compare", "HEAD", "HEAD", status=1)
    assert "DVC's cache lacks reports/val/predictions.csv of HEAD" in output
    assert "Traceback" not in output


def test_the_page_compares_with_the_commit_that_a_result_began_from(repository: Repository) -> None:
    page, head = repository.folder / "reports" / "index.html", repository.run("git", "rev-parse", "HEAD").strip()
    first = page.read_text()
    assert "PairedTest" not in first and "compared with" not in first, "the first result has none before it"
    repository.edit("learning_rate: 0.001", "learning_rate: 0.00002")
    repository.repro()
    compared = json.loads(repository.run("celebflow", "compare", "HEAD", "--json"))
    text = page.read_text()
    assert f"commit {head[:7]}" in text
    assert f"Broken in val: {len(compared['broken'])}" in text
    assert "UNTRAINED BACKBONE" in text
    assert text.count("data:image/") > 20
    assert not re.search(r"""(src|href)="(?!data:|#)""", text), "it needs no other file"


def test_strangers_are_measured_at_the_threshold(repository: Repository) -> None:
    folder = repository.folder / "data_unknown"
    for person in range(6, 10):
        (folder / str(person)).mkdir(parents=True)
        for number in range(3):
            invented_people.draw_photograph(person, number).save(folder / str(person) / f"{number}.png")
    (folder / "6" / "broken.png").write_bytes(b"nothing")
    (folder / ".DS_Store").touch()
    try:
        output = repository.run("celebflow", "strangers")
        shutil.copytree(repository.folder / "data", folder, dirs_exist_ok=True)
        known = repository.run("celebflow", "strangers")
        (folder / "empty").mkdir()
        empty = repository.run("celebflow", "strangers", "data_unknown/empty", status=1)
    finally:
        shutil.rmtree(folder)
    found = re.search(r"(\d+) of 12 strangers", output)
    assert found and int(found[1]) < 12
    assert "broken.png: is no JPEG" in output and "DS_Store" not in output
    area = re.compile(r"AUC of known people against strangers: ([\d.]+)")
    assert float(area.findall(output)[0]) > float(area.findall(known)[0]), "of these, most are no strangers"
    assert "holds no photograph" in empty


def test_bad_params_stop_the_first_stage_before_any_work(repository: Repository) -> None:
    repository.edit("epochs: 3", "epoch: three")
    output = repository.run("dvc", "repro", "--force", status=255)
    assert "train.epochs: missing" in output
    assert "train.epoch: unknown" in output
    assert "Traceback" not in output
    assert re.findall(r"Running stage '(\w+)'", output) == ["prepare"]


def test_a_failing_run_ends_as_failed(repository: Repository) -> None:
    repository.edit("device: cpu", "device: cuda:9")
    repository.edit("train:\n  seed: 0", "train:\n  seed: 1")
    output = repository.run("python", "-m", "stages.train", status=1)
    assert "compute.device is cuda:9" in output
    assert repository.runs()[0].info.status == "FAILED"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_as_killed(repository: Repository, number: signal.Signals, status: int) -> None:
    repository.edit("epochs: 3", "epochs: 100000")
    process = repository.start_training()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert "Traceback" not in output
    assert repository.runs()[0].info.status == "KILLED"


def test_a_result_from_another_machine_goes_on_in_one_new_run(repository: Repository) -> None:
    id_file = repository.folder / "models" / "mlflow_run_id.txt"
    id_file.unlink()
    id_file.write_text("0123456789abcdef0123456789abcdef")
    count = len(repository.runs())
    assert "lacks train's run" in repository.run("python", "-m", "stages.evaluate")
    repository.run("python", "-m", "stages.plot")
    runs = repository.runs()
    assert len(runs) == count + 1
    assert runs[0].data.tags["celebflow.continues"] == "0123456789abcdef0123456789abcdef"


def test_a_run_waits_when_its_store_is_away_and_is_synced_once(repository: Repository) -> None:
    assert "No runs wait" in repository.run("celebflow", "runs", "sync")
    count = len(repository.runs())
    repository.edit("required: true", "required: false")
    repository.edit("dropout: 0.5", "dropout: 0.45")
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        output = repository.run("dvc", "repro")
        assert "cannot be used" in output and "celebflow runs sync" in output
        assert "1 runs still wait" in repository.run("celebflow", "runs", "sync", status=1)
    assert "is meant for http://127.0.0.1:9" in repository.run("celebflow", "runs", "sync", status=1)
    waiting_id = repository.run_id()
    assert len(repository.runs()) == count
    assert repository.run("celebflow", "runs", "sync", "--here").endswith("1 runs synced.\n")
    assert "No runs wait" in repository.run("celebflow", "runs", "sync", "--here")
    run = repository.runs()[0]
    assert len(repository.runs()) == count + 1
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("dropout 0.45")
    assert run.data.params["train.dropout"] == "0.45"
    metrics = json.loads((repository.folder / "reports" / "metrics.json").read_text())
    assert run.data.metrics["test/final_accuracy"] == pytest.approx(metrics["test"]["accuracy"], abs=1e-6)
    client = mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val/loss")] == [1, 2, 3]
    assert {item.dataset.name.split(":")[0] for item in run.inputs.dataset_inputs} == {"train", "val", "test"}
    assert run.data.tags["celebflow.classifier_md5"]
    assert waiting_id not in run.data.tags["mlflow.note.content"]
    assert run.info.run_id in run.data.tags["mlflow.note.content"]
    stored = {file.path for file in client.list_artifacts(run.info.run_id, "reports/figures")}
    assert len(stored) == 20
    # What comes later goes to the run that it has become, which is also the one that is listed.
    repository.edit("resolution_dpi: 150", "resolution_dpi: 100")
    assert repository.repro() == ["plot"]
    assert len(repository.runs()) == count + 1
    workspace = repository.run("celebflow", "runs").splitlines()[1].split()
    assert (workspace[0], workspace[-1]) == ("workspace", run.info.run_id)
    # And when the store is away once more, it waits once more.
    repository.edit("resolution_dpi: 100", "resolution_dpi: 90")
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        assert repository.repro() == ["plot"]
    assert repository.run("celebflow", "runs", "sync", "--here").endswith("1 runs synced.\n")
    assert len(repository.runs()) == count + 1
    (again,) = [other for other in repository.runs() if other.info.run_id == run.info.run_id]
    assert (again.info.status, again.info.run_name) == ("FINISHED", run.info.run_name)


def test_a_sync_that_failed_is_repeated_without_doubling(repository: Repository) -> None:
    repository.edit("required: true", "required: false")
    repository.edit("dropout: 0.5", "dropout: 0.35")
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        repository.run("python", "-m", "stages.train")
    count = len(repository.runs())
    artifacts = repository.folder / "mlartifacts"
    artifacts.rename(repository.folder / "kept")
    artifacts.write_text("no folder")  # the run is made, and its files cannot be stored
    try:
        assert "still wait" in repository.run("celebflow", "runs", "sync", "--here", status=1)
    finally:
        artifacts.unlink()
        (repository.folder / "kept").rename(artifacts)
    assert repository.run("celebflow", "runs", "sync", "--here").endswith("1 runs synced.\n")
    assert len(repository.runs()) == count + 1
    client = mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")
    assert [file.path for file in client.list_artifacts(repository.runs()[0].info.run_id)] == ["params.yaml", "reports"]


def test_a_waiting_run_that_was_killed_is_synced_as_killed(repository: Repository) -> None:
    repository.edit("required: true", "required: false")
    repository.edit("epochs: 3", "epochs: 100000")
    before = repository.run_id()
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        process = repository.start("python", "-m", "stages.train")
        deadline = time.monotonic() + 120
        while repository.run_id() == before and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "is still at work" in repository.run("celebflow", "runs", "sync", "--here", status=1)
        process.kill()
        process.communicate()
    assert repository.run("celebflow", "runs", "sync", "--here").endswith("1 runs synced.\n")
    assert repository.runs()[0].info.status == "KILLED"


def test_two_workers_wait_with_a_run_each(repository: Repository) -> None:
    count = len(repository.runs())
    repository.edit("required: true", "required: false")
    shutil.rmtree(repository.folder / ".celebflow" / "waiting_runs", ignore_errors=True)  # made by both at once
    with repository.variables(MLFLOW_TRACKING_URI=AWAY):
        repository.run_queued("train.dropout=0.1", "train.dropout=0.2")
    assert repository.run("celebflow", "runs", "sync", "--here").endswith("2 runs synced.\n")
    runs = repository.runs()[: len(repository.runs()) - count]
    assert sorted(run.data.params["train.dropout"] for run in runs) == ["0.1", "0.2"]


def test_a_run_goes_on_when_its_store_fails_midway(repository: Repository, tmp_path: Path) -> None:
    repository.edit("required: true", "required: false")
    repository.edit("epochs: 3", "epochs: 300")
    store = repository.folder / "mlflow.db"
    process = repository.start_training()
    run_id = repository.run_id()
    logged = len(_epochs(repository, run_id))
    away = store.rename(tmp_path / "away.db")
    store.mkdir()  # no database can be there now
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    repository.run("python", "-m", "stages.evaluate")
    store.rmdir()
    away.rename(store)
    assert "Going on" in output
    assert logged <= len(_epochs(repository, run_id)) < 300
    assert repository.run("celebflow", "runs", "sync", "--here").endswith("1 runs synced.\n")
    assert _epochs(repository, run_id) == list(range(1, 301))
    (run,) = [run for run in repository.runs() if run.info.run_id == run_id]
    assert run.info.status == "FINISHED"
    assert not run.info.run_name.startswith("continues")
    assert run.data.tags["mlflow.note.content"].startswith("**"), "the warning of an untrained backbone"


def _epochs(repository: Repository, run_id: str) -> list[int]:
    client = mlflow.MlflowClient(f"sqlite:///{repository.folder / 'mlflow.db'}")
    return [metric.step for metric in client.get_metric_history(run_id, "train/loss")]


@pytest.mark.parametrize("uri", ["sqlite:////dev/null/mlflow.db", "http://127.0.0.1:9"])
def test_a_store_that_cannot_be_used_is_told_before_training(repository: Repository, uri: str) -> None:
    with repository.variables(MLFLOW_TRACKING_URI=uri):
        output = repository.run("python", "-m", "stages.train", status=1)
    assert f"{uri} cannot be used" in output
    assert "Teaching" not in output
    assert "Traceback" not in output


def test_mlflow_tracking_uri_is_honoured(repository: Repository, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    count = len(repository.runs())
    with repository.variables(MLFLOW_TRACKING_URI=uri):
        repository.run("python", "-m", "stages.train")
    client = mlflow.MlflowClient(uri)
    assert len(client.search_runs([client.get_experiment_by_name("celebflow").experiment_id])) == 1
    assert len(repository.runs()) == count


def test_killed_at_any_moment_the_next_repro_ends_with_the_same_bytes(tmp_path: Path) -> None:
    undisturbed, killed = (make_repository(tmp_path / name) for name in ("undisturbed", "killed"))
    for repository in (undisturbed, killed):
        repository.edit("epochs: 3", "epochs: 400")  # some seconds, with many checkpoints
        repository.edit("image_size_px: 64", "image_size_px: 224")
    assert undisturbed.repro() == EVERY_STAGE
    store = killed.folder / ".celebflow"
    moments = random.Random(0)
    # Each time, kill a little after something has been kept that the next one goes on from.
    for kept in ["features/data.mdb"] * 5 + ["checkpoints/*/last.safetensors"] * 5:
        started = time.time()
        process = killed.start("dvc", "repro")
        while not any(file.stat().st_mtime > started for file in store.glob(kept)):
            assert process.poll() is None and time.time() < started + 120
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        assert process.poll() is None, "it was at work"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    output = killed.run("dvc", "repro")
    assert output.count("epoch ") == 400, "those before the last checkpoint are told again"
    for out in ("features/indices.npy", "features/values.npy", "features/offsets.npy", "models/classifier.safetensors"):
        assert (killed.folder / out).read_bytes() == (undisturbed.folder / out).read_bytes(), out
    assert list((store / "checkpoints").iterdir()) == []
