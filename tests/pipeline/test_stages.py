"""DVC runs the stages that a change concerns, and no others."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.repository import Repository, clone_repository

pytestmark = pytest.mark.slow


def test_second_repro_runs_nothing(repository: Repository) -> None:
    assert repository.repro() == []
    assert "up to date" in repository.run("dvc", "status")


def test_each_stage_says_how_long_it_took_and_what_to_look_at_next(repository: Repository) -> None:
    output = repository.run("dvc", "repro", "--force")
    ends = dict(re.findall(r"^(\w+) took \d+(?:\.\d s| min \d+ s)\. (.+)$", output, re.MULTILINE))
    assert list(ends) == ["prepare", "backbone", "extract", "train", "evaluate", "plot"]
    for hint in ends.values():
        for name in re.findall(r"[\w/]+\.(?:csv|html)|\.celebflow", hint):
            assert (repository.folder / name).exists()
        for command in re.findall("`((?:celebflow|dvc) .+?)`", hint):
            repository.run(*command.split())


def test_page_templates_are_dependencies_and_compiled_code_is_not(repository: Repository) -> None:
    report = repository.folder / "celebflow" / "report"
    (report / "__pycache__").mkdir(exist_ok=True)
    (report / "__pycache__" / "other.pyc").write_bytes(b"compiled")
    assert json.loads(repository.run("dvc", "status", "--json")) == {}
    template = report / "templates" / "report.html.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "<!-- changed -->", encoding="utf-8")
    status = json.loads(repository.run("dvc", "status", "--json"))
    assert status == {"plot": [{"changed deps": {"celebflow/report": "modified"}}]}


def test_the_run_cache_brings_back_the_result_of_another_learning_rate(two_results: Repository, tmp_path: Path) -> None:
    repository = clone_repository(two_results, tmp_path / "repository")
    new, first = repository.runs()
    assert new.info.run_id == repository.run_id()
    assert new.info.run_name.startswith("learning_rate 1e-09"), "the name says what was tried"
    assert "celebflow.restore" not in new.data.tags, "no commit has this change"
    assert re.search(r"train.learning_rate\s+0.001\s+1e-09", repository.run("dvc", "params", "diff"))
    assert "val.accuracy" in repository.run("dvc", "metrics", "diff", "--all")
    repository.run("dvc", "plots", "diff", "HEAD", "workspace")
    page = (repository.folder / "dvc_plots" / "index.html").read_text()
    for plot in ("accuracy", "loss", "roc", "precision_recall", "reliability", "recall_by_person", "confusion_matrix"):
        assert plot in page
    assert "HEAD" in page and "workspace" in page
    repository.edit("learning_rate: 1.0e-09", "learning_rate: 0.001")
    assert repository.repro() == []
    assert repository.run_id() == first.info.run_id
    assert len(repository.runs()) == 2


def test_page_is_drawn_again_when_a_param_that_it_shows_changes(repository: Repository) -> None:
    page = repository.folder / "reports" / "index.html"
    assert "<dt>prepare.unreadable</dt><dd>stop</dd>" in page.read_text()
    repository.edit("unreadable: stop", "unreadable: skip")
    assert repository.repro() == ["prepare", "plot"]
    assert "<dt>prepare.unreadable</dt><dd>skip</dd>" in page.read_text()
    repository.edit("required: true", "required: false")
    assert repository.repro() == [], "the page does not show tracking.required"


def test_plot_draws_without_pytorch_and_scikit_learn_which_take_seconds_to_import(repository: Repository) -> None:
    code = (
        "import sys; from celebflow import paths; from celebflow.features.store import load_features; "
        "from celebflow.tasks import load_step; "
        "load_step('recognition', 'publish')(load_features(paths.FEATURES, paths.PHOTOS), {}, 50).save(paths.PAGE); "
        "print(*sys.modules)"
    )
    imported = set(repository.run("python", "-c", code, preloaded=False).split())
    assert "matplotlib" in imported and not imported & {"torch", "sklearn", "pandas", "mlflow"}


def test_another_split_takes_all_features_from_the_cache(repository: Repository) -> None:
    repository.edit("prepare:\n  seed: 0", "prepare:\n  seed: 1")
    output = repository.run("dvc", "repro", "extract")
    assert re.findall(r"Running stage '(\w+)'", output) == ["prepare", "extract"]
    assert "0 photographs extracted with ncnn, 60 found in the cache" in output


def test_bad_params_stop_the_first_stage(repository: Repository) -> None:
    repository.edit("epochs: 3", "epoch: three")
    output = repository.run("dvc", "repro", "--force", status=255)
    assert "train.epochs: missing" in output
    assert "train.epoch: unknown" in output
    assert "Traceback" not in output
    assert re.findall(r"Running stage '(\w+)'", output) == ["prepare"]


def test_features_computed_on_a_cluster_change_nothing(repository: Repository) -> None:
    before = (repository.folder / "dvc.lock").read_text(encoding="utf-8")
    repository.edit("cluster: null", "cluster: local")
    assert repository.repro() == [], "where features are computed makes none"
    shutil.rmtree(repository.folder / ".celebflow" / "features")
    output = repository.run("dvc", "repro", "--force", "--single-item", "extract")
    assert re.search(r"^[\d.]+ \(\w{8}\): 60 photographs, [\d.]+/s\.$", output, re.MULTILINE)
    assert (repository.folder / "dvc.lock").read_text(encoding="utf-8") == before
