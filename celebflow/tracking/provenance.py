"""What made a result: the code, the data, the libraries and the machine; and how to have it again."""

import os
import platform
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from celebflow import paths
from celebflow.params import flatten

_LOCK = Path("dvc.lock")
_LIBRARIES = ("torch", "ncnn", "dvc", "mlflow")


@dataclass(frozen=True)
class Provenance:
    """Where a run of DVC's stands: empty strings where it is not known.

    `commit` is what the run began from, for an experiment its baseline; `dirty` tells that files in git had changed.
    `experiment` is the name that DVC gave it.
    """

    commit: str
    branch: str
    dirty: bool
    experiment: str

    def restore_command(self) -> str:
        """Return the command that brings the result back to the workspace; empty where there is none."""
        if self.experiment:
            return f"dvc exp apply {shlex.quote(self.experiment)}"
        # From a clean commit, dvc repro finds the result in its run cache and runs nothing.
        return f"git checkout {self.commit} && dvc repro" if self.commit and not self.dirty else ""


def find_provenance() -> Provenance:
    """Ask git and DVC where the running stage stands."""
    experiment = os.environ.get("DVC_EXP_NAME", "")
    baseline = os.environ.get("DVC_EXP_BASELINE_REV", "")
    return Provenance(
        commit=baseline or _ask_git("rev-parse", "HEAD"),
        branch=_ask_git("symbolic-ref", "--quiet", "--short", "HEAD"),
        dirty=bool(_ask_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")),
        experiment=experiment,
    )


def _ask_git(*arguments: str) -> str:
    """Return what git says of the user's repository; nothing where there is no git or no repository."""
    try:
        answer = subprocess.run(  # noqa: S603 - fixed commands of git's
            ["git", *arguments],  # noqa: S607
            cwd=paths.repository(),
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def read_lock() -> dict[str, str]:
    """Return the md5 that DVC has recorded of what a stage reads, as far as it has.

    Outside DVC, which alone knows whether they still hold, nothing.
    """
    return read_locked_md5s() if os.environ.get("DVC_STAGE") else {}


def read_locked_md5s() -> dict[str, str]:
    """Return the md5 of data, splits, backbone, features and classifier that dvc.lock holds, as far as it does."""
    if not _LOCK.exists():
        return {}
    stages = YAML(typ="safe", pure=True).load(_LOCK).get("stages", {})
    places = {
        "data": ("prepare", "deps", paths.DATA),
        "splits": ("prepare", "outs", paths.PHOTOS.parent),
        "backbone": ("backbone", "outs", paths.BACKBONE),
        "features": ("extract", "outs", paths.FEATURES),
        "classifier": ("train", "outs", paths.CLASSIFIER),
    }
    found = {name: _find_md5(stages, *place) for name, place in places.items()}
    return {name: md5 for name, md5 in found.items() if md5}


def _find_md5(stages: Mapping[str, Any], stage: str, kind: str, path: Path) -> str:
    for entry in stages.get(stage, {}).get(kind, []):
        if entry["path"] == path.as_posix():
            return str(entry.get("md5", ""))
    return ""


def describe_machine() -> dict[str, str]:
    """Return what rounding and speed depend on: libraries, threads, processor."""
    return {
        **{library: _version(library) for library in _LIBRARIES},
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "machine": f"{platform.node()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def find_changed_params(current: Mapping[str, object], commit: str) -> dict[str, object]:
    """Return which of the flat params differ from those in a commit's params.yaml, with their values now."""
    try:
        before = flatten(YAML(typ="safe", pure=True).load(_ask_git("show", f"{commit}:{paths.PARAMS}")) or {})
    except (YAMLError, AttributeError):
        return {}
    return {name: value for name, value in current.items() if name in before and before[name] != value}
