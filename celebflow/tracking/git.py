"""Ask git about the repository around the project."""

import os
import re
import subprocess
from pathlib import Path, PurePosixPath

from celebflow import paths
from celebflow.errors import CelebflowError

# These name a repository, and git sets them for hooks, also for those of other repositories; DVC does not heed them.
_REPOSITORY_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
)
_EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/")


def run_git(*arguments: str) -> str:
    """Return what git prints in the project's folder; an empty string without git, or when it fails."""
    result = _run(*arguments)
    return result.stdout.strip() if result is not None and result.returncode == 0 else ""


def list_variables() -> dict[str, str]:
    """Return the environment without what would lead git away from the repository around the project."""
    return {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}


def find_prefix() -> PurePosixPath | None:
    """Return the project's folder relative to git's root, or None outside of a git repository.

    Raises CelebflowError when there is a repository that git does not read: because git is not installed, another user
    owns the repository, or it is damaged.
    """
    result = _run("rev-parse", "--show-prefix")
    if result is None:
        if (repository := _find_repository()) is None:
            return None
        raise CelebflowError(
            f"The program git is not found, and {repository} is a git repository. Install git, or add it to PATH."
        )
    if "dubious ownership" in result.stderr:
        remedy = re.search("git config .*", result.stderr)
        raise CelebflowError(
            f"git does not read {paths.project()}, because another user owns it. If you trust that user, run "
            f"`{remedy[0] if remedy else 'git status'}`."
        )
    if result.returncode != 0 and (repository := _find_repository()) is not None:
        raise CelebflowError(f"git does not read the repository {repository}: {' '.join(result.stderr.split())}")
    # The name of a folder may begin or end with spaces.
    return PurePosixPath(result.stdout.removesuffix("\n")) if result.returncode == 0 else None


def _find_repository() -> Path | None:
    """Return the folder around the project that looks like a git repository, without asking git."""
    project = paths.project().absolute()
    return next((folder for folder in (project, *project.parents) if (folder / ".git").exists()), None)


def list_commits_with_results(max_count: int) -> list[str]:
    """Return the last commit, the last commits that changed dvc.lock, and those that experiments started from.

    A negative number stands for all commits that changed dvc.lock.

    Raises CelebflowError when there is no commit, or git cannot be used.
    """
    head = require_commit()
    changed = run_git("log", f"--max-count={max_count}", "--format=%H", "--", "dvc.lock").split()
    references = run_git("for-each-ref", "--format=%(refname)", "refs/exps")
    baselines = ["".join(match) for match in _EXPERIMENT.findall(references)]
    return list(dict.fromkeys([head, *changed, *baselines]))


def require_commit() -> str:
    """Return the id of the last commit; raise CelebflowError when there is none, or git cannot be used."""
    if find_prefix() is None:
        raise CelebflowError(
            f"{paths.project()} is not in a git repository, and results belong to commits. Run `git init`, and commit."
        )
    head = run_git("rev-parse", "--verify", "HEAD")
    if not head:
        raise CelebflowError("There is no commit yet, and results belong to commits. Run `git add . && git commit`.")
    return head


def require_identity() -> None:
    """Raise CelebflowError where DVC could keep no experiment, because git does not know whose changes these are.

    DVC puts changes that are not committed aside as a commit; where there are none, it needs nobody's name.
    """
    unknown = [
        f"`git config --global {key} {value}`"
        for key, value in (("user.name", '"YOUR NAME"'), ("user.email", "ADDRESS"))
        if not run_git("config", key)
        and not all(os.environ.get(f"GIT_{role}_{key[5:].upper()}") for role in ("AUTHOR", "COMMITTER"))
    ]
    if unknown and run_git("status", "--porcelain", "--untracked-files=no"):
        raise CelebflowError(
            "DVC keeps no experiment while git does not know who you are and the repository has changes that are not "
            f"committed. Run {' and '.join(unknown)}."
        )


def require_experiment_name(name: str) -> None:
    """Raise CelebflowError when experiments of DVC cannot have names that begin so."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise CelebflowError(f"--name {name!r} is not a valid beginning of names. Write letters, digits and hyphens.")


def has_experiment(name: str) -> bool:
    """Return whether the repository has a DVC experiment of this name, whatever commit it started from."""
    return bool(_list_experiments(name))


def find_experiment(name: str) -> str:
    """Return the commit of the DVC experiment of this name, or an empty string when there is none.

    Of several, it is the one that started from the last commit. Raises CelebflowError when none did.
    """
    commits = _list_experiments(name)
    head = run_git("rev-parse", "--verify", "HEAD")
    if len(commits) > 1 and head not in commits:
        raise CelebflowError(
            f"{len(commits)} experiments are called {name}: check out the commit that one started from, or rename them "
            "by `dvc exp rename`."
        )
    return commits.get(head) or next(iter(commits.values()), "")


def _list_experiments(name: str) -> dict[str, str]:
    """Return the commits of the DVC experiments of this name, by those that they started from."""
    commits = {}
    for line in run_git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines():
        commit, _, reference = line.partition(" ")
        match = _EXPERIMENT.match(reference)
        if match and reference[match.end() :] == name:
            commits["".join(match.groups())] = commit
    return commits


def is_other_object(revision: str) -> bool:
    """Return whether git knows a revision as something that is not a commit, such as `HEAD:params.yaml`."""
    if not run_git("rev-parse", "--verify", "--quiet", "--end-of-options", revision):
        return False
    return not run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")


def _run(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    try:
        # What signatures say would stand among the commits.
        command = ["git", "-c", "log.showSignature=false", *arguments]
        return subprocess.run(  # noqa: S603
            command, cwd=paths.project(), env=list_variables(), capture_output=True, text=True, errors="replace"
        )
    except OSError:  # git is not installed
        return None
