"""Results → MLflow: one run per execution of train, which evaluate and plot continue; the only importer of mlflow."""

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Who works on photographs of people, or without a network, wants no usage reports sent.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import psutil
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from celebflow import paths
from celebflow.backbone import BackboneSource
from celebflow.errors import CelebflowError, Terminated
from celebflow.features import Features
from celebflow.params import Params
from celebflow.provenance import (
    Provenance,
    describe_machine,
    find_changed_params,
    find_provenance,
    flatten,
    read_lock,
)
from celebflow.training import EpochResult

_CONTINUES = "celebflow.continues"
_PROCESS = "celebflow.process"
# Sections of params.yaml that make no difference to a result.
_UNINFORMATIVE = ("plot.", "tracking.")


@contextmanager
def start_run(params: Params, features: Features) -> Iterator[None]:
    """Open a new MLflow run with all params, and write down its id for the stages that continue it.

    The run ends as FINISHED, as FAILED on an exception, and as KILLED on Ctrl-C or SIGTERM.

    Raises CelebflowError when the tracking store cannot be used.
    """
    run_id = _create_run(params, features.origin.backbone, {})
    paths.MLFLOW_RUN_ID.parent.mkdir(parents=True, exist_ok=True)
    paths.MLFLOW_RUN_ID.write_text(run_id)
    with _resume(run_id):
        _log_datasets(features)
        yield


@contextmanager
def continue_run(params: Params, source: BackboneSource) -> Iterator[None]:
    """Open the run whose id train wrote down once more, to add to it.

    Where the store does not know the run, because the result came from another machine, a run that continues it is
    created once, and told on standard error.
    """
    _select_store()
    run_id = paths.MLFLOW_RUN_ID.read_text()
    try:
        mlflow.get_run(run_id)
    except MlflowException:
        run_id = _find_continuation(run_id, params) or _create_run(params, source, {_CONTINUES: run_id})
        print(f"The MLflow store {mlflow.get_tracking_uri()} lacks train's run; going on in {run_id}.", file=sys.stderr)
    with _resume(run_id):
        mlflow.set_tags({f"celebflow.{name}_md5": md5 for name, md5 in read_lock().items()})
        yield


def log_epoch(result: EpochResult) -> None:
    """Log one epoch's losses and accuracies to the open run."""
    values = {
        "train/loss": result.train_loss,
        "train/accuracy": result.train_accuracy,
        "val/loss": result.val_loss,
        "val/accuracy": result.val_accuracy,
    }
    mlflow.log_metrics(values, step=result.epoch)


def log_final_metrics(metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Log the headline figures of each split to the open run, as val/final_accuracy and so on, and describe it."""
    for split, figures in metrics.items():
        mlflow.log_metrics({f"{split}/final_{name}": value for name, value in figures.items()})
    run = mlflow.active_run()
    if run is not None:
        mlflow.set_tag("mlflow.note.content", _describe(run.info.run_id, metrics))


def log_files(*files: Path) -> None:
    """Store files and folders as artefacts of the open run, at the same relative paths."""
    for file in files:
        if file.is_dir():
            mlflow.log_artifacts(str(file), file.as_posix())
        else:
            mlflow.log_artifact(str(file), file.parent.as_posix() if file.parent != Path() else None)


def _log_datasets(features: Features) -> None:
    md5 = read_lock().get("data")
    source = CodeDatasetSource({"folder": paths.DATA.as_posix(), "recorded in": "data.dvc", "md5": md5 or "unknown"})
    for split in ("train", "val", "test"):
        count = sum(photo.split == split for photo in features.photos)
        name = f"{split}: {count} photographs"  # equal names would be one dataset
        dataset = MetaDataset(source, name, md5[:8] if md5 else None)  # type: ignore[abstract] # in MLflow, it is not
        mlflow.log_input(dataset, context=split)


def _describe(run_id: str, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return a run's description in Markdown: warning, headline figures, pictures, and how to restore it."""
    tags = mlflow.get_run(run_id).data.tags
    warning, restore = tags.get("celebflow.warning"), tags.get("celebflow.restore")
    names = list(next(iter(metrics.values())))
    table = [
        f"| | {' | '.join(name.replace('_', ' ') for name in names)} |",
        f"|---|{'---|' * len(names)}",
        *(
            f"| {split} | {' | '.join(f'{figures[name]:.4f}' for name in names)} |"
            for split, figures in metrics.items()
        ),
    ]
    pictures = [
        f"![{name}](get-artifact?path=reports/figures/{name}.png&run_uuid={run_id})"
        for name in ("accuracy", "val_confusion_matrix")
    ]
    restoring = f"Restore it: `{restore}`" if restore else "Made with changes that are not committed; see params.yaml."
    return "\n\n".join([*([f"**{warning}**"] if warning else []), "\n".join(table), restoring, "\n".join(pictures)])


def _select_store() -> None:
    """Use MLFLOW_TRACKING_URI, else mlflow.db in the user's repository, also from a temporary copy of DVC's."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{paths.repository() / 'mlflow.db'}")


def _select_experiment(name: str) -> str:
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        if experiment.lifecycle_stage != "active":
            raise CelebflowError(
                f"The MLflow experiment {name} is deleted: run `mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}`, or set tracking.experiment to another name."
            )
        return experiment.experiment_id
    # A server knows where artefacts go; in a local store, MLflow would take the working directory, which may be a
    # temporary copy of DVC's.
    local = mlflow.get_tracking_uri().startswith("sqlite:")
    location = (paths.repository() / "mlartifacts").resolve().as_uri() if local else None
    try:
        # The kind says training, not language models; MLflow 3.17 opens a run's own link under GenAI all the same.
        return str(mlflow.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"}))
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        return _select_experiment(name)  # another pipeline was quicker


def _create_run(params: Params, source: BackboneSource, tags: dict[str, str]) -> str:
    _select_store()
    provenance = find_provenance()
    values = flatten(params.model_dump(mode="json"))
    informative = {name: value for name, value in values.items() if not name.startswith(_UNINFORMATIVE)}
    try:
        experiment_id = _select_experiment(params.tracking.experiment)
        _end_killed_runs(experiment_id)
        run = mlflow.MlflowClient().create_run(
            experiment_id,
            run_name=_name_run(provenance, source, find_changed_params(informative, provenance.commit)),
            tags={**_describe_origin(provenance, source), **tags},
        )
        with _resume(run.info.run_id):
            mlflow.log_params(informative)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise CelebflowError(
            f"MLflow's store {mlflow.get_tracking_uri()} cannot be used: {reason}. "
            "Check MLFLOW_TRACKING_URI, or unset it to log to mlflow.db in the repository."
        ) from None
    return str(run.info.run_id)


def _name_run(provenance: Provenance, source: BackboneSource, changed: Mapping[str, object]) -> str:
    """Say what was tried: the experiment's name, and what differs from the params that are committed."""
    changes = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in changed.items())
    name = ": ".join(part for part in (provenance.experiment, changes) if part) or "committed params"
    return name if source.trained else f"{name} (UNTRAINED BACKBONE)"


def _describe_origin(provenance: Provenance, source: BackboneSource) -> dict[str, str]:
    """Return the tags that lead from a run to its code, data, params and machine."""
    tags = {
        "mlflow.source.name": "dvc.yaml",
        "mlflow.source.git.commit": provenance.commit,
        "mlflow.source.git.branch": provenance.branch,
        "celebflow.git_dirty": str(provenance.dirty).lower() if provenance.commit else "",
        "celebflow.dvc_experiment": provenance.experiment,
        "celebflow.restore": provenance.restore_command(),
        "celebflow.warning": source.warning(),
        "celebflow.backbone_weights": source.weights,
        "celebflow.backbone_trained": str(source.trained).lower(),
        "celebflow.backbone_fingerprint": source.fingerprint,
        **{f"celebflow.{name}_md5": md5 for name, md5 in read_lock().items() if name != "classifier"},
        **{f"celebflow.{name}": value for name, value in describe_machine().items()},
    }
    return {name: value for name, value in tags.items() if value}


def _find_continuation(run_id: str, params: Params) -> str | None:
    experiment = _select_experiment(params.tracking.experiment)
    filter_string = f"tags.`{_CONTINUES}` = '{run_id}'"
    found = mlflow.MlflowClient().search_runs([experiment], filter_string, max_results=1)
    return str(found[0].info.run_id) if found else None


@contextmanager
def _resume(run_id: str) -> Iterator[None]:
    mlflow.start_run(run_id)
    status = "FAILED"
    try:
        mlflow.set_tag(_PROCESS, _name_process(os.getpid()))
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, Terminated):
        status = "KILLED"
        raise
    finally:
        mlflow.end_run(status)


def _name_process(number: int) -> str:
    return f"{number} since {psutil.Process(number).create_time()} on {platform.node()}"


def _end_killed_runs(experiment_id: str) -> None:
    """End runs as KILLED that still stand as RUNNING, though their process on this machine is gone."""
    client = mlflow.MlflowClient()
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        process = run.data.tags.get(_PROCESS, "")
        number, _, rest = process.partition(" ")
        if not rest.endswith(f" on {platform.node()}"):
            continue
        if not psutil.pid_exists(int(number)) or _name_process(int(number)) != process:
            client.set_terminated(run.info.run_id, "KILLED")
