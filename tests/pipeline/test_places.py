"""Projects work wherever they are in repositories of git and DVC, and in whatever state these are."""

import json
import shutil
from pathlib import Path

import pytest

from tests import REPOSITORY
from tests.repository import Repository, clone_repository

pytestmark = pytest.mark.slow


@pytest.fixture(params=["git above", "DVC above"])
def project(template: Repository, tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    """Return a project with a committed result in a sub-folder of a git repository, or of one of git and DVC."""
    project = clone_repository(template, tmp_path / "top" / "projects" / "faces")
    shutil.rmtree(project.folder / ".git")
    top = Repository(tmp_path / "top")
    project.environment["DVC_SITE_CACHE_DIR"] = str(tmp_path / "site")
    if request.param == "DVC above":
        shutil.rmtree(project.folder / ".dvc" / "tmp", ignore_errors=True)
        (project.folder / ".dvc").rename(top.folder / ".dvc")
    top.run("git", "init", "--quiet")
    top.commit("everything")
    return project


def test_a_project_in_a_sub_folder_has_its_results_and_experiments(project: Repository) -> None:
    top = Repository(project.folder.parents[1])
    status = "git", "status", "--porcelain"
    assert project.run("git", "rev-parse", "--show-prefix") == "projects/faces/\n"
    experiment = ("dvc", "exp", "run", "--temp", "--name", "more-dropout", "--set-param", "train.dropout=0.75")
    project.run(*experiment, "evaluate")  # nothing below looks at its page
    results = {line.split()[0]: line for line in project.invoke("runs").splitlines()}
    assert {"workspace", "more-dropout"} < results.keys()
    assert "train.dropout=0.75" in results["more-dropout"]
    run, _ = project.runs()
    assert run.info.run_id in results["more-dropout"]
    assert run.info.run_name.startswith("dropout 0.75 (more-dropout)")
    assert run.info.artifact_uri.startswith((project.folder / "mlartifacts").as_uri())
    assert json.loads(project.invoke("compare", "HEAD", "--json"))["overall"]["p_value"] == 1.0
    assert "more-dropout" in project.invoke("compare", "HEAD", "more-dropout")
    project.invoke("page", "--against", "more-dropout")
    assert "probability" in project.invoke("predict", "--rev", "more-dropout", "data")
    assert "version 1" in project.run("celebflow", "register")
    project.invoke("crossvalidate", "--folds", "2")
    names = "workspace", "crossvalidation", "--split", "crossvalidation"
    assert "The mean difference of 2 folds is +0.0000" in project.invoke("compare", *names)
    assert top.run(*status) == ""
    assert {file.name for file in top.folder.iterdir()} <= {".git", ".dvc", "projects"}


def test_a_model_is_registered_and_used_in_a_folder_whose_name_looks_escaped(
    template: Repository, tmp_path: Path
) -> None:
    project = clone_repository(template, tmp_path / "top" / "25%20 of? #1%2F")
    assert "version 1 of celebflow" in project.run("celebflow", "register")
    assert "probability" in project.invoke("predict", "--model", "models:/celebflow@champion", "data")
    assert [file.name for file in (tmp_path / "top").iterdir()] == [project.folder.name]


def test_a_clone_has_the_same_bytes_where_git_changes_the_ends_of_lines(tmp_path: Path) -> None:
    origin = Repository(tmp_path / "origin")
    origin.folder.mkdir()
    for name in (".gitattributes", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, origin.folder / name)
    origin.run("git", "init", "--quiet")
    origin.commit("code")
    origin.run("git", "clone", "--quiet", "--config", "core.autocrlf=true", ".", str(tmp_path / "clone"))
    assert (tmp_path / "clone" / "dvc.yaml").read_bytes() == (origin.folder / "dvc.yaml").read_bytes()


def test_outside_of_a_project_commands_say_so_and_make_nothing(template: Repository, tmp_path: Path) -> None:
    outside = Repository(tmp_path)
    for command in (
        "runs",
        "cache",
        "register",
        "recipe",
        "compare HEAD",
        "predict x.jpg",
        "openset .",
        "drift .",
        "export",
    ):
        assert "no dvc.yaml" in outside.invoke(*command.split(), fails=True)
    assert list(tmp_path.iterdir()) == []
    inside = Repository(template.folder / "data")
    assert f"cd {template.folder}" in inside.invoke("runs", fails=True)


def test_a_broken_lock_is_told_by_every_command_that_needs_it(repository: Repository) -> None:
    lock = repository.folder / "dvc.lock"
    for content in ("", "<<<<<<< HEAD\n" + lock.read_text(), "stages: [\n", "\0"):
        lock.write_text(content)
        for command in ("runs", "register"):
            output = repository.invoke(command, fails=True)
            assert "dvc.lock cannot be read" in output and "git checkout HEAD -- dvc.lock" in output


def test_runs_says_that_the_store_cannot_be_reached(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(repository.environment, "MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    listed = repository.invoke("runs")
    assert "http://127.0.0.1:9 cannot be used" in listed and repository.run_id() in listed


def test_a_pulled_result_is_registered_after_it_is_logged_here(template: Repository, tmp_path: Path) -> None:
    clone = Repository(tmp_path / "clone")
    template.run("git", "clone", "--quiet", ".", str(clone.folder))
    clone.run("dvc", "cache", "dir", str(template.folder / ".dvc" / "cache"))
    clone.run("dvc", "checkout", "--quiet")
    assert f"{clone.run_id()} (not in this store)" in clone.invoke("runs")
    remedy = "dvc repro --force --single-item evaluate"
    assert remedy in clone.invoke("register", fails=True)
    assert not (clone.folder / "mlflow.db").exists()
    clone.run(*remedy.split())
    (run,) = clone.runs()
    assert f"{run.info.run_id}\n" in clone.invoke("runs")
    assert "version 1" in clone.run("celebflow", "register")


def test_other_working_trees_and_commits_without_a_branch_have_results(
    template: Repository, repository: Repository
) -> None:
    repository.run("git", "checkout", "--quiet", "--detach")
    assert repository.run_id() in repository.invoke("runs")
    other = Repository(repository.folder.with_name("other"))
    repository.run("git", "worktree", "add", "--quiet", str(other.folder), "HEAD")
    assert "dvc pull" in other.invoke("runs")
    other.run("dvc", "cache", "dir", "--local", str(repository.folder / ".dvc" / "cache"))
    other.run("dvc", "checkout", "--quiet")
    assert json.loads(other.invoke("compare", "HEAD", "--json"))["overall"]["p_value"] == 1.0
