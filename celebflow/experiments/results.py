"""The results that DVC knows of, commits and experiments, each with its MLflow run; the only importer of dvc."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dvc.api
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import RevError
from dvc_data.index import DataIndexError

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.params import Params


class NoOutputError(CelebflowError):
    """A revision never had the output that was asked for."""


_METRICS = ("val.accuracy", "val.macro_auc", "test.accuracy")


@dataclass(frozen=True)
class Result:
    """One commit, experiment, or the workspace: its MLflow run ("" for none), metrics, and params that differ from
    those of the commit that was last made.
    """

    revision: str
    experiment: str
    run_id: str
    metrics: dict[str, float]
    changed_params: dict[str, object]


def list_results(commit_count: int) -> list[Result]:
    """Return the workspace's result, those of the last commits, and those of the experiments that began from them.

    Raises CelebflowError outside a repository of git and DVC.
    """
    try:
        rows = dvc.api.exp_show(num=commit_count)
    except (DvcException, RevError) as error:
        raise CelebflowError(
            f"DVC cannot tell of its experiments: {error}. Run from the repository's folder."
        ) from None
    commits = [row for row in rows if row["typ"] == "baseline" and row["rev"] != "workspace"]
    latest = _pick_params(commits[0]) if commits else {}
    return [_make_result(row, latest) for row in rows if row["State"] in (None, "Success")]


def find_cached_file(md5: str) -> Path | None:
    """Return the file with this md5 in DVC's cache, or None where it is not there.

    Raises CelebflowError outside a repository of DVC.
    """
    if not re.fullmatch("[0-9a-f]{32}", md5):  # it may come from a store that others write to
        return None
    try:
        with Repo() as repository:
            cache = repository.cache.local
            return Path(cache.oid_to_path(md5)) if cache.exists(md5) else None
    except DvcException as error:
        raise CelebflowError(f"DVC's cache cannot be read: {error}. Run from the repository's folder.") from None


def copy_outputs(files: Sequence[Path], revision: str, folder: Path) -> list[Path] | None:
    """Copy outputs as they were in a commit or an experiment to `folder`; return None where there is no such revision.

    Raises NoOutputError when the revision never had one of them, and CelebflowError when it cannot be read, as when
    DVC's cache lacks it.
    """
    copies = [folder / file.name for file in files]
    file = files[0]
    try:
        content = dvc.api.DVCFileSystem(rev=revision)
        for file, copy in zip(files, copies, strict=True):
            if not _has_file(content, file):
                raise NoOutputError(f"{revision} has no {file}: it holds no result of `dvc repro`.")
            content.get_file(file.as_posix(), str(copy))
    except RevError:
        return None
    except NotDvcRepoError:
        raise NoOutputError(f"{revision} has no {file}: it holds nothing of DVC's.") from None
    except (FileNotFoundError, DataIndexError):
        raise CelebflowError(
            f"DVC's cache lacks {file} of {revision}. If it was made elsewhere, `dvc pull --all-commits` fetches it."
        ) from None
    except (OSError, DvcException) as error:
        raise CelebflowError(f"{file} of {revision} cannot be read ({error}).") from None
    return copies


def _has_file(content: dvc.api.DVCFileSystem, file: Path) -> bool:
    """Tell whether a revision has a file, wherever its content is.

    `exists` would say no to what the cache lacks, and yes to an output of dvc.yaml's that was never made.
    """
    try:
        found = content.info(file.as_posix())
    except FileNotFoundError:
        return False
    return "dvc_info" not in found or "md5" in found["dvc_info"]


def _make_result(row: Mapping[str, Any], latest: Mapping[str, object]) -> Result:
    values = {name.rpartition(":")[2]: value for name, value in row.items()}
    return Result(
        revision=row["rev"],
        experiment=row["Experiment"] or "",
        run_id=_read_run_id(row["rev"]),
        metrics={name: values[name] for name in _METRICS if isinstance(values.get(name), float)},
        changed_params={
            name: value for name, value in _pick_params(row).items() if name in latest and latest[name] != value
        },
    )


def _pick_params(row: Mapping[str, Any]) -> dict[str, object]:
    sections = tuple(f"{section}." for section in Params.model_fields)
    return {name: value for name, value in row.items() if name.startswith(sections)}


def _read_run_id(revision: str) -> str:
    """Return the run that train wrote down in a revision: DVC keeps the file in its cache with the classifier."""
    try:
        if revision == "workspace":
            return paths.MLFLOW_RUN_ID.read_text()
        return str(dvc.api.read(paths.MLFLOW_RUN_ID.as_posix(), rev=revision))
    except (OSError, DvcException):
        return ""
