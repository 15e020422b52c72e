"""What made a result: code, data and params; and how to restore it."""

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.params import Params, flatten, list_informative, load_flat_params
from celebflow.tracking.git import find_prefix, run_git

# The order in which the stages run.
_STAGES = ("prepare", "backbone", "extract", "train", "evaluate", "plot")
_REMOTE = re.compile("'remote \"(.+)\"'")  # a section of DVC's config


@dataclass(frozen=True)
class Provenance:
    """The commit, branch and DVC experiment of a run; strings are empty where they are unknown.

    `commit` is the commit that the run started from, for an experiment its baseline. `dirty` says whether files in git
    had changed.
    """

    commit: str
    branch: str
    dirty: bool
    experiment: str

    def restore_command(self) -> str:
        """Return the command that restores the result in the workspace, or an empty string if there is none."""
        if self.experiment:
            return f"dvc exp apply {shlex.quote(self.experiment)}"
        # From a clean commit, dvc repro finds the result in its run cache and runs nothing.
        return f"git checkout {self.commit} && dvc repro" if self.commit and not self.dirty else ""


def find_provenance() -> Provenance:
    """Return the provenance of the running stage, from git and from the environment that DVC sets.

    Where git refuses to say it, a warning on standard error says why.
    """
    try:
        find_prefix()
    except CelebflowError as error:
        print(f"warning: {error} Until then, runs do not say which commit they come from.", file=sys.stderr)
    return Provenance(
        commit=os.environ.get("DVC_EXP_BASELINE_REV") or run_git("rev-parse", "HEAD"),
        branch=run_git("symbolic-ref", "--quiet", "--short", "HEAD"),
        dirty=bool(run_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock")),
        experiment=os.environ.get("DVC_EXP_NAME", ""),
    )


def read_lock() -> dict[str, str]:
    """Return the md5s in dvc.lock when DVC runs this stage, else an empty dict.

    Outside DVC, nobody has checked that they still match the files.
    """
    return read_locked_md5s() if os.environ.get("DVC_STAGE") else {}


def read_locked_md5s(lock: Path = paths.LOCK) -> dict[str, str]:
    """Return the md5s of data, splits, backbone, features and classifier that a dvc.lock holds.

    Raises CelebflowError when it is damaged.
    """
    places = {
        "data": ("prepare", "deps", paths.DATA),
        "splits": ("prepare", "outs", paths.PHOTOS.parent),
        "backbone": ("backbone", "outs", paths.BACKBONE),
        "features": ("extract", "outs", paths.FEATURES),
        "classifier": ("train", "outs", paths.CLASSIFIER),
    }
    stages = _read_locked_stages(lock)
    md5s = {name: _find_md5(stages, *place) for name, place in places.items()}
    return {name: md5 for name, md5 in md5s.items() if md5}


def find_pull(*files: Path) -> str:
    """Return the command that fetches outputs from a remote, where dvc.lock lists them all; otherwise "".

    So it is in a fresh clone: `dvc repro` would make them again, which takes longer.
    """
    try:
        stages = _read_locked_stages(paths.LOCK).values()
        outputs = {Path(each["path"]).absolute() for stage in stages for each in stage.get("outs", [])}
    except (CelebflowError, AttributeError, TypeError, KeyError):
        return ""  # that it is damaged is said where it is needed
    if not files or any(outputs.isdisjoint((file.absolute(), *file.absolute().parents)) for file in files):
        return ""
    return _find_pull_of_repository()


def _find_pull_of_repository() -> str:
    """Return the command that fetches outputs from the default remote of the DVC repository here, or its only one."""
    here = Path.cwd()
    folder = next((each / ".dvc" for each in (here, *here.parents) if (each / ".dvc").is_dir()), None)
    if folder is None:
        return ""
    settings = ConfigParser(interpolation=None, strict=False)
    try:
        settings.read([folder / "config", folder / "config.local"], encoding="utf-8")
    except (ConfigParserError, OSError, UnicodeDecodeError):
        return ""
    remotes = [match[1] for section in settings.sections() if (match := _REMOTE.fullmatch(section))]
    if settings.get("core", "remote", fallback="") in remotes:
        return "dvc pull"
    return f"dvc pull --remote {shlex.quote(remotes[0])}" if len(remotes) == 1 else ""


def advise_to_make(*files: Path, maker: str = "dvc repro") -> str:
    """Return how to get outputs that are missing, as an order without a full stop."""
    pull = find_pull(*files)
    return f"Run `{pull}` to fetch it, or `{maker}` to make it" if pull else f"Run `{maker}`"


def read_locked_params(lock: Path) -> dict[str, object]:
    """Return the flat params with which the stages in a dvc.lock ran.

    Where stages ran with different values, because a later one did not end since, the first one's count.

    Raises CelebflowError when it is damaged.
    """
    return _list_params(_read_locked_stages(lock))


@dataclass(frozen=True)
class LockedResult:
    """What a dvc.lock says of a result: its flat params, and the md5s of the run's id.

    `trained` is that of the run whose classifier there is, and `evaluated` that of the run that has the metrics: they
    differ where evaluate has not ended since train. They are empty without these stages. `is_trained` says whether
    train has ended since each stage before it, so that the params are those that made the classifier. `data_md5` is
    that of the photographs, empty where it is not known.
    """

    params: dict[str, object]
    trained: str
    evaluated: str
    is_trained: bool
    data_md5: str

    def is_of(self, run_id: str) -> bool:
        """Return whether the params are those that made the classifier of the run with this id."""
        return self.is_trained and self.trained == hashlib.md5(run_id.encode(), usedforsecurity=False).hexdigest()

    def is_whole(self) -> bool:
        """Return whether the params are those that made the metrics."""
        return self.is_trained and self.trained == self.evaluated


def read_locked_result(revision: str | None = None) -> LockedResult:
    """Return what the dvc.lock of a git revision, or without one that of the workspace, says of its result.

    Raises CelebflowError when it is damaged.
    """
    return parse_locked_result(paths.LOCK if revision is None else run_git("show", f"{revision}:./{paths.LOCK}"))


def parse_locked_result(lock: Path | str) -> LockedResult:
    """Return what a dvc.lock, a file or the text of one, says of its result.

    Raises CelebflowError when it is damaged.
    """
    stages = _read_locked_stages(lock)
    trained = _find_md5(stages, "train", "outs", paths.MLFLOW_RUN_ID)
    evaluated = _find_md5(stages, "evaluate", "deps", paths.MLFLOW_RUN_ID)
    data = _find_md5(stages, "prepare", "deps", paths.DATA)
    return LockedResult(_list_params(stages), trained, evaluated, _is_trained(stages), data)


def _is_trained(stages: Mapping[str, Any]) -> bool:
    """Return whether each stage until train has used what the stages before it made last."""
    until_train = {name: stages[name] for name in _STAGES[: _STAGES.index("evaluate")] if name in stages}
    try:
        made = {out["path"]: out.get("md5") for stage in until_train.values() for out in stage.get("outs", [])}
        used = [dep for stage in until_train.values() for dep in stage.get("deps", [])]
        return all(made.get(dep["path"], dep.get("md5")) == dep.get("md5") for dep in used)
    except (AttributeError, TypeError, KeyError):
        raise _make_lock_error() from None


def restore_params(current: Mapping[str, object], run_id: str | None = None) -> dict[str, object]:
    """Return flat params in which those that made the classifier of a run are as they were then, by dvc.lock.

    Without an id, it is the run of the classifier here.
    params.yaml may have changed since, and the stages after train, which DVC also runs by themselves, do not depend on
    all of it. Where dvc.lock does not say what made the classifier, params stay as they are.

    Raises CelebflowError when dvc.lock is damaged.
    """
    stages = _read_locked_stages(paths.LOCK)
    if run_id is None:
        run_id = paths.MLFLOW_RUN_ID.read_text(errors="replace")
    if not read_locked_result().is_of(run_id):
        return dict(current)
    made_with = _list_params({name: stages[name] for name in _STAGES[: _STAGES.index("evaluate")] if name in stages})
    # DVC makes integers of some floats.
    changed = {name: value for name, value in made_with.items() if name in current and current[name] != value}
    return {**current, **changed}


def require_own_classifier(run_id: str) -> None:
    """Raise CelebflowError when DVC runs this stage, and dvc.lock says that the classifier here is not what it lists.

    DVC does not look at that when it runs a single stage: it would record one result as another's.
    """
    if not os.environ.get("DVC_STAGE"):
        return
    locked = read_locked_result()
    if locked.trained and not locked.is_of(run_id):
        raise CelebflowError(
            f"{paths.CLASSIFIER} is not of the result in {paths.LOCK}: other files were checked out, or a stage before "
            "train has run since. Run `dvc checkout` for the result in dvc.lock, or `dvc repro` for a new one."
        )


def _find_md5(stages: Mapping[str, Any], stage: str, kind: str, path: Path) -> str:
    """Return the md5 of one of a stage's deps or outs, or an empty string when they lack it."""
    try:
        entries = stages.get(stage, {}).get(kind, [])
        return next((str(each["md5"]) for each in entries if each["path"] == path.as_posix() and "md5" in each), "")
    except (AttributeError, TypeError, KeyError):
        raise _make_lock_error() from None


def _list_params(stages: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {}
    try:
        for name in sorted(stages, key=(*_STAGES, *stages).index):
            for param, value in flatten(stages[name].get("params", {}).get(paths.PARAMS.as_posix(), {})).items():
                found.setdefault(param, value)
    except (AttributeError, TypeError):
        raise _make_lock_error() from None
    return found


def _read_locked_stages(lock: Path | str) -> dict[str, Any]:
    """Return the stages in a dvc.lock, a file or the text of one; nothing where there is none."""
    if not (lock.exists() if isinstance(lock, Path) else lock):
        return {}
    try:
        return dict(YAML(typ="safe", pure=True).load(lock).get("stages", {}))
    except OSError as error:
        raise CelebflowError(f"{paths.LOCK} cannot be read ({error.strerror}). Check that path.") from None
    except (YAMLError, AttributeError, TypeError, ValueError):
        raise _make_lock_error() from None


def _make_lock_error() -> CelebflowError:
    return CelebflowError(
        f"{paths.LOCK} cannot be read: it is empty or damaged, or a merge left conflict marks in it. Restore it by "
        f"`git checkout HEAD -- {paths.LOCK}`, and run `dvc repro`."
    )


def find_last_result(commit: str) -> str:
    """Return the last commit with another dvc.lock than the one before, until `commit`; without one, `commit` itself.

    A run is compared with it: what was committed since, to be run now, has changed, too.
    """
    return run_git("log", "--max-count=1", "--format=%H", commit, "--", str(paths.LOCK)) or commit


def find_changed_params(current: Mapping[str, object], commit: str) -> dict[str, object]:
    """Return the flat params that differ from a commit's params.yaml, with their current values."""
    before = read_params(commit)
    return {name: value for name, value in current.items() if name in before and before[name] != value}


def find_changed_defaults(current: Mapping[str, object]) -> dict[str, object]:
    """Return the flat params that differ from the defaults: where there is no commit, runs are told apart by these."""
    defaults = list_informative(Params())
    return {name: value for name, value in current.items() if name in defaults and defaults[name] != value}


def read_params(revision: str | None = None) -> dict[str, object]:
    """Return the flat params in params.yaml of a git revision, or without one of the workspace.

    Of a revision, it may be missing or damaged: then nothing is returned.
    """
    if revision is None:
        return load_flat_params(paths.PARAMS)
    try:
        return flatten(YAML(typ="safe", pure=True).load(run_git("show", f"{revision}:./{paths.PARAMS}")) or {})
    except (YAMLError, AttributeError):
        return {}
