"""Results → MLflow: one run per execution of train, which evaluate and plot continue; the only importer of mlflow."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Who works on photographs of people, or without a network, wants no usage reports sent.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from celebflow import paths
from celebflow.backbone import BackboneSource
from celebflow.errors import CelebflowError, Terminated
from celebflow.params import Params
from celebflow.training import EpochResult

_CONTINUES = "celebflow.continues"


@contextmanager
def start_run(params: Params, source: BackboneSource) -> Iterator[None]:
    """Open a new MLflow run with all params, and write down its id for the stages that continue it.

    The run ends as FINISHED, as FAILED on an exception, and as KILLED on Ctrl-C or SIGTERM.

    Raises CelebflowError when the tracking store cannot be used.
    """
    run_id = _create_run(params, source, {})
    paths.MLFLOW_RUN_ID.parent.mkdir(parents=True, exist_ok=True)
    paths.MLFLOW_RUN_ID.write_text(run_id)
    with _resume(run_id):
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
    """Log the headline figures of each split to the open run, as final_val/accuracy and so on."""
    for split, figures in metrics.items():
        mlflow.log_metrics({f"final_{split}/{name}": value for name, value in figures.items()})


def log_files(*files: Path) -> None:
    """Store files and folders as artefacts of the open run, at the same relative paths."""
    for file in files:
        if file.is_dir():
            mlflow.log_artifacts(str(file), file.as_posix())
        else:
            mlflow.log_artifact(str(file), file.parent.as_posix() if file.parent != Path() else None)


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
        return str(mlflow.create_experiment(name, location))
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        return _select_experiment(name)  # another pipeline was quicker


def _create_run(params: Params, source: BackboneSource, tags: dict[str, str]) -> str:
    _select_store()
    name = os.environ.get("DVC_EXP_NAME") or f"{Path(source.weights).stem}, {params.train.epochs} epochs"
    warning = source.warning()
    try:
        run = mlflow.MlflowClient().create_run(
            _select_experiment(params.tracking.experiment),
            run_name=f"{name} (UNTRAINED BACKBONE)" if warning else name,
            tags={
                "celebflow.backbone_weights": source.weights,
                "celebflow.backbone_trained": str(source.trained).lower(),
                "celebflow.backbone_fingerprint": source.fingerprint,
                "mlflow.note.content": f"**{warning}**" if warning else "",
                **tags,
            },
        )
        with _resume(run.info.run_id):
            mlflow.log_params(_flatten(params.model_dump(mode="json")))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise CelebflowError(
            f"MLflow's store {mlflow.get_tracking_uri()} cannot be used: {reason}. "
            "Check MLFLOW_TRACKING_URI, or unset it to log to mlflow.db in the repository."
        ) from None
    return str(run.info.run_id)


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
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, Terminated):
        status = "KILLED"
        raise
    finally:
        mlflow.end_run(status)


def _flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
