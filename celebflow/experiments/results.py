"""Results of commits and DVC experiments, each with its MLflow run; no other module imports dvc."""

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
from tabulate import tabulate

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.params import Params
from celebflow.tracking.stores import follow_run

# The metrics that `celebflow runs` lists.
_METRICS = ("val.accuracy", "val.macro_auc", "test.accuracy")


@dataclass(frozen=True)
class Result:
    """The result of a commit, an experiment, or the workspace.

    `run_id` is that of its MLflow run, or empty. `changed_params` differ from those of the last commit.
    """

    revision: str
    experiment: str
    run_id: str
    metrics: dict[str, float]
    changed_params: dict[str, object]


def list_results(commit_count: int) -> list[Result]:
    """Return the results of the workspace, of the last commits, and of the experiments based on these commits.

    Raises CelebflowError outside a repository of git and DVC.
    """
    try:
        rows = dvc.api.exp_show(num=commit_count)
    except (DvcException, RevError) as error:
        raise CelebflowError(f"DVC cannot list its experiments: {error}. Run from the repository's folder.") from None
    commits = [row for row in rows if row["typ"] == "baseline" and row["rev"] != "workspace"]
    latest = _pick_params(commits[0]) if commits else {}
    return [_make_result(row, latest) for row in rows if row["State"] in (None, "Success")]


def format_results(results: Sequence[Result]) -> str:
    """Return a table of results for the terminal."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    rows = []
    for result in results:
        values = [result.metrics.get(name) for name in metrics]
        changes = ", ".join(f"{name}={value}" for name, value in result.changed_params.items())
        rows.append([result.experiment or result.revision, *values, changes, result.run_id])
    headers = ["result", *metrics, "params that differ", "MLflow run"]
    return str(tabulate(rows, headers, tablefmt="plain", floatfmt=".4f", disable_numparse=[0, len(headers) - 1]))


def find_cached_file(md5: str) -> Path | None:
    """Return the file with this md5 in DVC's cache, or None when the cache lacks it.

    Raises CelebflowError outside a DVC repository.
    """
    if not re.fullmatch("[0-9a-f]{32}", md5):  # others may write to the store that it comes from
        return None
    try:
        with Repo() as repository:
            cache = repository.cache.local
            return Path(cache.oid_to_path(md5)) if cache.exists(md5) else None
    except DvcException as error:
        raise CelebflowError(f"DVC's cache cannot be read: {error}. Run from the repository's folder.") from None


def copy_outputs(files: Sequence[Path], revision: str, folder: Path) -> list[Path] | None:
    """Copy outputs of a commit or an experiment to `folder`; return None when there is no such revision.

    Raises CelebflowError when the revision never had one of them, or when one cannot be read, for example because DVC's
    cache lacks it.
    """
    copies = [folder / file.name for file in files]
    file = files[0]
    try:
        content = dvc.api.DVCFileSystem(rev=revision)
        for file, copy in zip(files, copies, strict=True):
            if not _has_file(content, file):
                raise CelebflowError(f"{revision} has no {file}: it holds no result of `dvc repro`.")
            content.get_file(file.as_posix(), str(copy))
    except RevError:
        return None
    except NotDvcRepoError:
        raise CelebflowError(f"{revision} has no {file}: it does not use DVC.") from None
    except (FileNotFoundError, DataIndexError):
        raise CelebflowError(
            f"DVC's cache lacks {file} of {revision}. If it comes from another machine, run `dvc pull --all-commits`."
        ) from None
    except (OSError, DvcException) as error:
        raise CelebflowError(f"{file} of {revision} cannot be read ({error}).") from None
    return copies


def _has_file(content: dvc.api.DVCFileSystem, file: Path) -> bool:
    """Return whether a revision has a file, wherever its content is.

    `exists` is false for what the cache lacks, and true for an output in dvc.yaml that was never made.
    """
    try:
        found = content.info(file.as_posix())
    except FileNotFoundError:
        return False
    return "dvc_info" not in found or "md5" in found["dvc_info"]


def _make_result(row: Mapping[str, Any], latest: Mapping[str, object]) -> Result:
    values = {name.rpartition(":")[2]: value for name, value in row.items()}
    changed_params = {name: value for name, value in _pick_params(row).items() if latest.get(name, value) != value}
    run_id, _ = follow_run(_read_run_id(row["rev"]))
    metrics = {name: values[name] for name in _METRICS if isinstance(values.get(name), float)}
    return Result(row["rev"], row["Experiment"] or "", run_id, metrics, changed_params)


def _pick_params(row: Mapping[str, Any]) -> dict[str, object]:
    sections = tuple(f"{section}." for section in Params.model_fields)
    return {name: value for name, value in row.items() if name.startswith(sections)}


def _read_run_id(revision: str) -> str:
    """Return the id of the run that trained a revision's classifier; DVC caches the file that holds it."""
    try:
        if revision == "workspace":
            return paths.MLFLOW_RUN_ID.read_text()
        return str(dvc.api.read(paths.MLFLOW_RUN_ID.as_posix(), rev=revision))
    except (OSError, DvcException):
        return ""
