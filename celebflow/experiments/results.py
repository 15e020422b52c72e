"""Results of commits and DVC experiments, each with its MLflow run; no other module imports DVC."""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import dvc.api
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import RevError
from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError
from dvc_data.index import DataIndexError
from pygit2 import GitError
from pygit2 import Repository as GitRepository
from tabulate import tabulate

from celebflow import paths
from celebflow.errors import CelebflowError, is_of_library, raise_shortage
from celebflow.params import flatten, load_flat_params
from celebflow.tracking.addresses import describe_address, hide_secrets
from celebflow.tracking.git import (
    find_experiment,
    find_prefix,
    is_other_object,
    list_commits_with_results,
    require_commit,
    run_git,
)
from celebflow.tracking.provenance import read_locked_md5s, read_locked_result, read_params

WORKSPACE = "workspace"
# The metrics that `celebflow runs` lists.
_METRICS = ("val.accuracy", "val.macro_auc", "val.auc", "test.accuracy")
# How many results that are not listed are named.
_MAX_NAMES = 5
# DVC's settings where its remote cannot be used.
_NO_REMOTE = {"core": {"remote": ""}}
# What DVC says of experiments that have not ended well.
_WITHOUT_RESULT = ("Queued", "Running", "Failed")


@dataclass(frozen=True)
class Result:
    """The result of a commit, an experiment, or the workspace.

    `state` says of an experiment that has no result that it is queued, running or failed; elsewhere it is empty.
    `run_id` is that of its MLflow run, or empty; `is_stored` says whether MLflow's store has that run, as far as this
    is known. `changed_params` are those that made the result, where they differ: for an experiment from those of the
    commit that it started from, for any other result from the last commit's. Where there is no result, they are those
    of params.yaml.
    """

    revision: str
    experiment: str
    state: str
    run_id: str
    is_stored: bool
    metrics: dict[str, float]
    changed_params: dict[str, object]


def list_results(max_commits: int) -> list[Result]:
    """Return the results of the workspace, of the last commits that have one, and of all experiments.

    A negative number stands for all commits.

    Raises CelebflowError outside of a repository of git and DVC, without a commit, and when dvc.lock or params.yaml
    cannot be read.
    """
    load_flat_params(paths.PARAMS)
    read_locked_md5s()
    commits = list_commits_with_results(max_commits)
    require_trust()
    try:
        with Repo() as repository:
            _ = repository.index.outs  # read what DVC tracks: of what it cannot read, it would show nothing
        settings = _choose_settings()
        try:
            rows = dvc.api.exp_show(revs=commits, config=settings)
        except NotDvcRepoError:  # an experiment has just ended, and DVC removed the copy that it ran in
            rows = dvc.api.exp_show(revs=commits, config=settings)
    except (YAMLSyntaxError, YAMLValidationError) as error:
        raise CelebflowError(
            f"DVC cannot read {error.path}, which is damaged, or in which a merge left conflict marks. Correct it, or "
            f"restore it by `git checkout HEAD -- {shlex.quote(error.path)}`."
        ) from None
    except (DvcException, RevError, ImportError) as error:
        raise CelebflowError(f"DVC cannot list its experiments: {str(error).rstrip('.')}.") from None
    except OSError:
        raise
    except Exception as error:  # of the libraries of its queue
        raise_shortage(error)
        if error.__context__ is not None:  # the queue's library only says that its folder does not work
            raise_shortage(error.__context__)
        raise CelebflowError(
            f"DVC cannot list its experiments ({type(error).__name__}: {error}). If its queue is damaged, as after a "
            "full disk, move .dvc/tmp/exps/celery away: this forgets the experiments that are queued."
        ) from None
    found = [_find_result(row, settings) for row in rows]
    baselines = [each for each in found if not each.experiment and each.revision != WORKSPACE]
    latest = baseline = baselines[0].changed_params
    stored = _list_stored_runs()
    results = []
    elsewhere = []
    for each in found:
        if each in baselines:
            baseline = each.changed_params
        result = _relate(each, baseline if each.experiment else latest, stored)
        if result.metrics or result.state or result.revision == WORKSPACE:
            results.append(result)
        elif _is_elsewhere(each.revision, settings):
            elsewhere.append(each.experiment or each.revision)
    if elsewhere:
        print(_describe_elsewhere(elsewhere), file=sys.stderr)
    return results


def _is_elsewhere(revision: str, settings: dict[str, Any]) -> bool:
    """Return whether a commit or an experiment has a result, of which nothing here has metrics that can be read."""
    locked = read_locked_result(revision)
    return bool(locked.evaluated) and locked.is_whole() and not _read_metrics(revision, settings)


def _describe_elsewhere(names: Sequence[str]) -> str:
    """Return that results are not listed, because their metrics are not here, and how to get them."""
    more = [f"{len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
    return (
        "Not listed, because neither DVC's cache nor its remote has metrics that can be read: "
        f"{', '.join([*names[:_MAX_NAMES], *more])}. Where they were made, run `dvc push --all-commits`, and for "
        "experiments `dvc exp push`; then run `dvc pull --all-commits` here."
    )


def find_pending_changes() -> dict[str, object]:
    """Return the params in params.yaml that differ from those that made the workspace's result.

    Raises CelebflowError when dvc.lock or params.yaml cannot be read.
    """
    made_with = read_locked_result().params
    return {
        name: value for name, value in load_flat_params(paths.PARAMS).items() if made_with.get(name, value) != value
    }


def format_results(results: Sequence[Result]) -> str:
    """Return a table of results for the terminal."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    rows = []
    for result in results:
        values = [result.metrics.get(name) for name in metrics]
        changes = ", ".join(f"{name}={_format_value(value)}" for name, value in result.changed_params.items())
        run = result.run_id if result.is_stored else f"{result.run_id} (not in this store)"
        name = result.experiment or result.revision
        rows.append([f"{name} ({result.state})" if result.state else name, *values, changes, run])
    headers = ["result", *metrics, "params that differ", "MLflow run"]
    return str(tabulate(rows, headers, tablefmt="plain", floatfmt=".4f", disable_numparse=[0, len(headers) - 1]))


def _format_value(value: object) -> str:
    if isinstance(value, str) and "://" in value:
        return describe_address(value)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)  # DVC makes floats of integers


def _list_stored_runs() -> dict[str, str] | None:
    """Return the runs in the user's store and those that wait, by their ids and the ids of the runs they continue.

    Returns None when the store cannot be read; this is reported on standard error.
    """
    from celebflow.tracking import stores  # imports MLflow, which takes seconds; most who look for files do not need it

    runs = stores.list_waiting_runs()
    if stores.store_exists():
        try:
            with stores.short_timeouts():
                runs += stores.list_runs(stores.open_store())
        except stores.STORE_ERRORS as error:
            print(f"{stores.describe_failure(error)}. Whether it has the runs is not known.", file=sys.stderr)
            return None
    continued = {run.data.tags[stores.CONTINUES]: run.info.run_id for run in runs if stores.CONTINUES in run.data.tags}
    return continued | {run.info.run_id: run.info.run_id for run in runs}


def _choose_settings() -> dict[str, Any]:
    """Return settings for DVC: without its remote, where this machine lacks the library for it. The cache may do.

    Raises CelebflowError when DVC's own settings cannot be read, or name a remote that they do not describe.
    """
    try:
        with Repo(uninitialized=True) as repository:
            name = repository.config["core"].get("remote")
            if name and name not in repository.config["remote"]:
                raise CelebflowError(
                    f"DVC's settings name the remote {name} and do not say where it is. Run `dvc remote add "
                    f"{shlex.quote(name)} ADDRESS`, or `dvc remote default --unset`."
                )
            if name:
                repository.cloud.get_remote()
    except ImportError:
        return {**_NO_REMOTE}
    except DvcException as error:
        raise CelebflowError(f"DVC's settings cannot be used: {str(error).rstrip('.')}. Correct .dvc/config.") from None
    return {}


def require_trust() -> None:
    """Raise CelebflowError where DVC refuses to read a repository that git reads, because another user owns it.

    DVC reads it with libgit2, which takes safe.directory from files alone, and not from the environment.
    """
    folder = run_git("rev-parse", "--absolute-git-dir")
    try:
        if folder:
            GitRepository(folder)
    except GitError as error:
        if "not owned" in str(error):
            top = run_git("rev-parse", "--show-toplevel") or folder
            raise CelebflowError(
                f"DVC does not read {top}, because another user owns it. If you trust that user, run "
                f"`git config --global --add safe.directory {shlex.quote(top)}`."
            ) from None


def read_experiment_run(name: str) -> str:
    """Return the id of the run of a DVC experiment's result, or an empty string when there is no such experiment.

    Raises CelebflowError when the experiment does not say it.
    """
    commit = find_experiment(name)
    if not commit:
        return ""
    require_commit()
    run_id = _read_run_id(commit, _choose_settings())  # the name may also be that of a branch
    if not re.fullmatch("[0-9a-f]{32}", run_id):
        raise CelebflowError(
            f"The run of the experiment {name} is not known: {paths.MLFLOW_RUN_ID} of it cannot be read. Run "
            "`dvc pull --all-commits`, or give the id of the run: `celebflow runs` lists them."
        )
    return run_id


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
        command = "dvc" if find_prefix() is not None else "git"
        raise CelebflowError(
            f"DVC's cache cannot be read: {error}. Run `{command} init`, or run this in the project's folder."
        ) from None


def copy_outputs(files: Sequence[Path], revision: str, folder: Path) -> list[Path] | None:
    """Copy outputs of a commit or an experiment to `folder`; return None when there is no such revision, or no commit.

    Raises CelebflowError when the revision never had one of them, or when one cannot be read, for example because DVC's
    cache lacks it or another user owns the repository.
    """
    prefix = find_prefix()
    if prefix is None or not run_git("rev-parse", "--verify", "HEAD"):
        return None
    require_trust()
    copies = [folder / file.name for file in files]
    file = files[0]
    if is_other_object(revision):
        raise CelebflowError(f"{revision} is no commit. `celebflow runs` lists the results.")
    try:
        # DVC's root may be below git's, and a revision's files begin at git's.
        content = dvc.api.DVCFileSystem(rev=revision, subrepos=True, config=_choose_settings())
        for file, copy in zip(files, copies, strict=True):
            path = (prefix / file).as_posix()
            if not _has_file(content, path):
                raise CelebflowError(f"{revision} has no {file}: it holds no result of `{find_maker(file)}`.")
            content.get_file(path, str(copy))
    except RevError:
        return None
    except NotDvcRepoError:
        raise CelebflowError(f"{revision} has no {file}: it does not use DVC.") from None
    except (FileNotFoundError, DataIndexError):
        raise CelebflowError(
            f"DVC's cache lacks {file} of {revision}. If it comes from another machine, run `dvc pull --all-commits`."
        ) from None
    except CelebflowError:
        raise
    except Exception as error:
        # A remote's address can be no address, and the library of each kind of remote has errors of its own.
        if not is_of_library(error) and not isinstance(error, OSError | ImportError | ValueError):
            raise
        raise_shortage(error)
        raise CelebflowError(
            f"{file} of {revision} cannot be read ({hide_secrets(str(error), '').rstrip('.')}). If it is in DVC's "
            "remote alone, see that the remote can be reached, and that the credentials for it are set."
        ) from None
    return copies


def find_maker(file: Path) -> str:
    """Return the command that writes a file of a result."""
    return "celebflow crossvalidate" if file.is_relative_to(paths.CROSS_VALIDATION) else "dvc repro"


def _has_file(content: dvc.api.DVCFileSystem, path: str) -> bool:
    """Return whether a revision has a file, wherever its content is.

    `exists` is false for what the cache lacks, and true for an output in dvc.yaml that was never made.
    """
    try:
        found = content.info(path)
    except FileNotFoundError:
        return False
    return "dvc_info" not in found or "md5" in found["dvc_info"]


def _find_result(row: Mapping[str, Any], settings: dict[str, Any]) -> Result:
    """Return the result in a row of DVC's, with all params that made it.

    DVC itself shows the metrics in a dvc.lock beside the params in params.yaml and the run that there is, of which
    each may be of another result: params.yaml may have been edited, dvc.lock may be of another branch, and train or
    evaluate may not have ended since the stages before them. Experiments that have not ended have the metrics of the
    commit that they started from.
    """
    revision, state = str(row["rev"]), str(row.get("State") or "")
    result = Result(revision, row["Experiment"] or "", "", "", True, {}, {})
    here = None if revision == WORKSPACE else revision
    if result.experiment and state in _WITHOUT_RESULT:
        return replace(result, state=state.lower(), changed_params=read_params(here))
    locked = read_locked_result(here)
    if not locked.is_trained:
        return replace(result, changed_params=read_params(here))
    run_id = _read_run_id(revision, settings)
    is_whole = locked.is_whole() and (here is not None or not run_id or locked.is_of(run_id))
    if not is_whole:
        return replace(result, run_id=run_id, changed_params=read_params(here))
    values = {name.rpartition(":")[2]: value for name, value in row.items()}
    metrics = _choose_metrics(values) or _choose_metrics(_read_metrics(revision, settings))
    return replace(result, run_id=run_id, metrics=metrics, changed_params=locked.params or read_params(here))


def _relate(result: Result, before: Mapping[str, object], stored: dict[str, str] | None) -> Result:
    """Return a result with the params that differ from others, and the run that it has among the stored ones."""
    from celebflow.tracking import stores

    run_id, _ = stores.follow_run(result.run_id)
    return replace(
        result,
        run_id=(stored or {}).get(run_id, run_id),
        is_stored=not run_id or stored is None or run_id in stored,
        changed_params={
            name: value for name, value in result.changed_params.items() if before.get(name, value) != value
        },
    )


def _choose_metrics(values: Mapping[str, object]) -> dict[str, float]:
    return {name: value for name in _METRICS if isinstance(value := values.get(name), float)}


def _read_metrics(revision: str, settings: dict[str, Any]) -> dict[str, object]:
    """Return the metrics of a revision, or none where they cannot be read.

    DVC leaves them out of its list, without a word, when it cannot keep its list, as on a full disk.
    """
    try:
        content = json.loads(_read_output(paths.METRICS, revision, settings))
    except ValueError:
        return {}
    return flatten(content) if isinstance(content, dict) else {}


def _read_run_id(revision: str, settings: dict[str, Any]) -> str:
    """Return the id of the run that trained a revision's classifier; DVC caches the file that holds it."""
    return _read_output(paths.MLFLOW_RUN_ID, revision, settings)


def _read_output(file: Path, revision: str, settings: dict[str, Any]) -> str:
    """Return the text of an output of a revision, or an empty string when neither DVC's cache nor its remote has it."""
    try:
        if revision == WORKSPACE and file.exists():
            return file.read_text(errors="replace")
        rev = None if revision == WORKSPACE else revision  # before `dvc checkout`, the cache may have the workspace's
        path = (find_prefix() or PurePosixPath()) / file
        return str(dvc.api.read(path.as_posix(), rev=rev, config=settings))
    except (DvcException, RevError, DataIndexError, ImportError, ValueError):
        return ""
    except Exception as error:
        is_of_network = is_of_library(error) or isinstance(error, ConnectionError | TimeoutError)
        if not is_of_network and not isinstance(error, OSError):
            raise
        if is_of_network and settings != _NO_REMOTE:
            reason = hide_secrets(str(error), "").rstrip(".")
            print(f"DVC's remote cannot be used: {reason}. It is left out.", file=sys.stderr)
            settings.update(_NO_REMOTE)  # for all results that are still to be read
            return _read_output(file, revision, settings)
        return ""
