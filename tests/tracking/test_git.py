"""git is asked in the project's folder, wherever that is, and says why it does not answer."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from celebflow.errors import CelebflowError
from celebflow.tracking.git import (
    find_experiment,
    find_prefix,
    has_experiment,
    is_other_object,
    list_commits_with_results,
    run_git,
)
from celebflow.tracking.provenance import find_changed_params, find_provenance, read_locked_md5s

PARAMS = "train:\n  seed: {}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project in a sub-folder of a git repository with one commit, and go there."""
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT", "DVC_STAGE", "GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "projects" / "faces"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "params.yaml").write_text(PARAMS.format(0))
    (folder / "dvc.lock").write_text("stages: {}\n")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    _commit("start")
    return folder


def _commit(message: str) -> str:
    run_git("add", ".")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    run_git(*identity, "commit", "--quiet", "--allow-empty", "--message", message)
    return run_git("rev-parse", "HEAD")


def test_a_project_below_the_root_of_git_is_found_with_its_params(project: Path) -> None:
    assert find_prefix() == PurePosixPath("projects/faces")
    assert find_changed_params({"train.seed": 1}, "HEAD") == {"train.seed": 1}
    assert not find_provenance().dirty
    (project / "params.yaml").write_text(PARAMS.format(1))
    assert find_provenance().dirty


def _hide_git(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))


def _damage_config(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.parents[1] / ".git" / "config").write_text("[core\n")


def _lose_main_repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what a worktree keeps when its repository has moved."""
    shutil.rmtree(project.parents[1] / ".git")
    (project.parents[1] / ".git").write_text(f"gitdir: {project}/moved/.git/worktrees/faces\n")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_hide_git, "PATH"), (_damage_config, "bad config"), (_lose_main_repository, "moved/.git/worktrees/faces")],
)
def test_a_repository_that_git_does_not_read_is_not_said_to_be_none(
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    reason: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    spoil(project, monkeypatch)
    with pytest.raises(CelebflowError, match=reason) as caught:
        list_commits_with_results(10)
    assert "git init" not in str(caught.value)
    assert find_provenance().commit == ""
    assert reason in capsys.readouterr().err  # a run without its commit says why


def test_a_branch_whose_name_is_not_utf_8_is_named(project: Path) -> None:
    subprocess.run([b"git", b"checkout", b"--quiet", b"-b", b"caf\xe9"], check=True)
    assert find_provenance().branch == "caf\ufffd"


@pytest.mark.parametrize(
    "stages", ["", "\n  prepare:", "\n  prepare: {deps: [foo]}", "\n  prepare: {deps: [{md5: x}]}", " 3"]
)
def test_a_lock_of_another_shape_is_told_with_the_remedy(project: Path, stages: str) -> None:
    (project / "dvc.lock").write_text(f"stages:{stages}\n")
    with pytest.raises(CelebflowError, match="dvc.lock cannot be read.*git checkout HEAD -- dvc.lock"):
        read_locked_md5s()


def test_a_lock_that_is_a_folder_is_told(project: Path) -> None:
    (project / "dvc.lock").unlink()
    (project / "dvc.lock").mkdir()
    with pytest.raises(CelebflowError, match=r"dvc.lock cannot be read \(Is a directory\)"):
        read_locked_md5s()


def test_commits_with_results_changed_the_lock_or_have_experiments(project: Path) -> None:
    first, second = run_git("rev-parse", "HEAD"), _commit("nothing")
    (project / "dvc.lock").write_text("stages: {prepare: {}}\n")
    third, last = _commit("result"), _commit("nothing again")
    assert list_commits_with_results(-1) == [last, third, first]
    assert list_commits_with_results(1) == [last, third]
    run_git("update-ref", f"refs/exps/{second[:2]}/{second[2:]}/lower-rate", second)
    assert list_commits_with_results(1) == [last, third, second]


def test_without_a_commit_or_git_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_prefix() is None
    with pytest.raises(CelebflowError, match="not in a git repository.*git init"):
        list_commits_with_results(1)
    run_git("init", "--quiet")
    with pytest.raises(CelebflowError, match="no commit yet.*git commit"):
        list_commits_with_results(1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CelebflowError, match="Install git"):
        find_prefix()
    (tmp_path / ".git").rename(tmp_path / "other")
    assert find_prefix() is None


def test_a_folder_whose_name_begins_with_a_space_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / " faces ").mkdir()
    monkeypatch.chdir(tmp_path)
    run_git("init", "--quiet")
    monkeypatch.chdir(tmp_path / " faces ")
    assert find_prefix() == PurePosixPath(" faces ")


def test_a_folder_of_another_user_is_told_with_the_remedy_and_runs_go_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "true")
    with pytest.raises(CelebflowError, match=r"another user owns it.*git config --global --add safe\.directory"):
        find_prefix()
    assert find_provenance().commit == ""
    assert "safe.directory" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"])
def test_another_repository_that_a_hook_of_git_names_is_not_asked(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    before = find_provenance()
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", other], check=True)
    places = {"GIT_DIR": ".git", "GIT_INDEX_FILE": ".git/index"}
    monkeypatch.setenv(variable, str(other / places.get(variable, "")))
    assert find_provenance() == before and before.commit and not before.dirty
    assert find_prefix() == PurePosixPath("projects/faces")


def test_signatures_that_git_shows_are_no_commits(project: Path, tmp_path: Path) -> None:
    program = tmp_path / "gpg"
    program.write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        'case "$*" in *--verify*) echo "[GNUPG:] GOODSIG 0 a"; echo "gpg: Good signature" >&2;;\n'
        '*) echo "-----BEGIN PGP SIGNATURE-----"; echo "-----END PGP SIGNATURE-----"\n'
        'echo "[GNUPG:] SIG_CREATED " >&2;; esac\n'
    )
    program.chmod(0o755)
    for name, value in (("gpg.program", str(program)), ("commit.gpgSign", "true"), ("log.showSignature", "true")):
        run_git("config", name, value)
    signed = _commit("signed")
    assert "gpgsig" in run_git("cat-file", "commit", signed)
    (project / "dvc.lock").write_text("stages: {train: {}}\n")
    commit = _commit("result")
    assert list_commits_with_results(1) == [commit]


def _add_experiment(name: str, baseline: str, commit: str) -> None:
    run_git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", commit)


def test_an_experiment_is_told_from_a_branch_of_its_name_and_from_those_of_other_commits(project: Path) -> None:
    commits = [run_git("rev-parse", "HEAD"), *(_commit(name) for name in ("a", "b", "c"))]
    run_git("branch", "faster", commits[0])
    assert not has_experiment("faster") and find_experiment("faster") == ""
    _add_experiment("faster", commits[0], commits[1])
    assert find_experiment("faster") == commits[1]
    assert find_experiment("fast*") == find_experiment("") == ""
    _add_experiment("faster", commits[1], commits[2])
    with pytest.raises(CelebflowError, match="2 experiments are called faster.*dvc exp rename"):
        find_experiment("faster")
    _add_experiment("faster", commits[-1], commits[3])
    assert find_experiment("faster") == commits[3], "it started from the last commit"


def test_what_is_no_commit_is_told_from_commits_and_from_names_of_others(project: Path) -> None:
    run_git("-c", "user.name=a", "-c", "user.email=a@example.org", "tag", "--annotate", "--message", "v", "v1")
    assert is_other_object("HEAD:./params.yaml") and is_other_object("HEAD^{tree}")
    assert not any(is_other_object(name) for name in ("HEAD", "v1", "an-experiment", "--all", ""))
