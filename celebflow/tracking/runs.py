"""Results → MLflow: train starts a run, and evaluate and plot continue it."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

from celebflow import paths
from celebflow.backbone.vgg19 import BackboneSource
from celebflow.classifier.history import EpochResult
from celebflow.errors import CelebflowError, Terminated
from celebflow.features.store import Features
from celebflow.params import Params, list_informative
from celebflow.tracking import stores
from celebflow.tracking.naming import describe_origin, describe_run, name_run
from celebflow.tracking.processes import PROCESS_TAG, may_be_running, name_process
from celebflow.tracking.provenance import find_changed_params, find_provenance, read_lock


class Run:
    """An open MLflow run, which logs what a stage gives it.

    When its store fails and `tracking.required` is false, the run continues in the store of the waiting runs.
    """

    def __init__(self, client: MlflowClient, run_id: str, params: Params, source: BackboneSource) -> None:
        self.client = client
        self.run_id = run_id
        self._params = params
        self._source = source

    def log(self, action: Callable[[MlflowClient, str], object]) -> None:
        """Call `action` with a client of the run's store and the run's id."""
        try:
            with nullcontext() if self._params.tracking.required else stores.short_timeouts():
                action(self.client, self.run_id)
        except stores.STORE_ERRORS as error:
            if stores.is_waiting_store(self.client):
                raise
            _raise_or_warn(error, self._params)
            self.client, self.run_id = _wait_for(self.run_id, self._params, self._source)
            action(self.client, self.run_id)

    def log_params(self) -> None:
        """Log the params that make a difference to a result."""
        params = [Param(name, str(value)) for name, value in list_informative(self._params).items()]
        self.log(lambda client, run_id: client.log_batch(run_id, params=params))

    def log_epoch(self, result: EpochResult) -> None:
        """Log one epoch's losses and accuracies."""
        values = {
            "train/loss": result.train_loss,
            "train/accuracy": result.train_accuracy,
            "val/loss": result.val_loss,
            "val/accuracy": result.val_accuracy,
        }
        self._log_metrics(values, result.epoch)

    def log_final_metrics(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Log the headline figures of each split, as val/final_accuracy and so on, and describe the run with them."""
        self._log_metrics(
            {f"{split}/final_{name}": value for split, figures in metrics.items() for name, value in figures.items()}
        )

        def describe(client: MlflowClient, run_id: str) -> None:
            tags = client.get_run(run_id).data.tags
            client.set_tag(run_id, "mlflow.note.content", describe_run(run_id, tags, metrics))

        self.log(describe)

    def log_search_result(self, metric: str, experiment: str, value: float, trial_number: int) -> None:
        """Log the best experiment of a search so far, as search/best_…, because the metric is not this run's own."""
        self._log_metrics({f"search/best_{metric}": value}, trial_number)
        self.set_tags({"celebflow.best_experiment": experiment})

    def log_files(self, *files: Path) -> None:
        """Store files and folders as artifacts, at the same relative paths."""

        def store(client: MlflowClient, run_id: str) -> None:
            for file in files:
                if file.is_dir():
                    client.log_artifacts(run_id, str(file), file.as_posix())
                else:
                    client.log_artifact(run_id, str(file), file.parent.as_posix() if file.parent != Path() else None)

        self.log(store)

    def log_datasets(self, features: Features) -> None:
        """Log each split as a dataset, with the md5 of the photographs."""
        md5 = read_lock().get("data")
        source = CodeDatasetSource(
            {"folder": paths.DATA.as_posix(), "recorded in": "data.dvc", "md5": md5 or "unknown"}
        )
        inputs = []
        for split in ("train", "val", "test"):
            count = sum(photo.split == split for photo in features.photos)
            name = f"{split}: {count} photographs"  # MLflow would merge datasets of equal names
            dataset = MetaDataset(source, name, md5[:8] if md5 else None)  # type: ignore[abstract] # not abstract in MLflow
            tags = [InputTag("mlflow.data.context", split)]
            inputs.append(DatasetInput(dataset._to_mlflow_entity(), tags))
        self.log(lambda client, run_id: client.log_inputs(run_id, inputs))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self.log(
            lambda client, run_id: client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        )

    def begin(self) -> None:
        """Mark the run as running in this process."""
        self.log(_mark_running)

    def end(self, status: str) -> None:
        """End the run with a status of MLflow: FINISHED, FAILED or KILLED."""
        self.log(lambda client, run_id: client.set_terminated(run_id, status))

    def _log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value in values.items()]
        self.log(lambda client, run_id: client.log_batch(run_id, metrics))


@contextmanager
def start_run(params: Params, features: Features) -> Iterator[Run]:
    """Open a new MLflow run, log the params and datasets, and save its id for the stages that continue it.

    The run ends as FINISHED, as FAILED on an exception, and as KILLED on Ctrl-C or SIGTERM.

    Raises CelebflowError when the tracking store cannot be used and `tracking.required` is true.
    """
    if waiting := len(stores.list_waiting_runs()):
        print(f"{waiting} MLflow runs wait in the repository; `celebflow runs sync` logs them.")
    run = _create_run(params, features.origin.backbone)
    with _open(run):
        paths.MLFLOW_RUN_ID.parent.mkdir(parents=True, exist_ok=True)
        paths.MLFLOW_RUN_ID.write_text(run.run_id)
        run.log_params()
        run.log_datasets(features)
        yield run


@contextmanager
def open_parent_run(params: Params, name: str) -> Iterator[Run]:
    """Open an MLflow run of this name, under which the runs of a search's experiments are nested.

    Raises CelebflowError when the tracking store cannot be used and `tracking.required` is true.
    """
    weights = params.backbone.weights
    run = _create_run(params, BackboneSource(weights, weights != "untrained", ""))
    with _open(run):
        run.set_tags({"mlflow.runName": name})
        run.log_params()
        yield run


@contextmanager
def continue_run(params: Params, source: BackboneSource) -> Iterator[Run]:
    """Open the run whose id train saved once more.

    When the store lacks the run, because the result comes from another machine, a new run continues it; this is
    reported on standard error.
    """
    run_id = paths.MLFLOW_RUN_ID.read_text()
    if not re.fullmatch("[0-9a-f]{32}", run_id):
        raise CelebflowError(
            f"{paths.MLFLOW_RUN_ID} does not hold the id of a run. Run `dvc repro --force --single-item train`."
        )
    run, created = _find_run(run_id, params, source)
    with _open(run):
        if created:
            run.log_params()
        run.set_tags({f"celebflow.{name}_md5": md5 for name, md5 in read_lock().items()})
        yield run


@contextmanager
def _open(run: Run) -> Iterator[None]:
    try:
        run.begin()
        yield
    except BaseException as error:
        # An error of the store must not hide the first error.
        with suppress(*stores.STORE_ERRORS, CelebflowError), stores.short_timeouts():
            run.end("KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED")
        raise
    run.end("FINISHED")


def _create_run(params: Params, source: BackboneSource) -> Run:
    try:
        with stores.short_timeouts():
            client = stores.open_store()
            return Run(client, _create_run_in(client, params, source, {}), params, source)
    except stores.STORE_ERRORS as error:
        _raise_or_warn(error, params)
    client = stores.open_waiting_store()
    tags = {stores.MEANT_FOR: stores.describe_store()}
    return Run(client, _create_run_in(client, params, source, tags), params, source)


def _create_run_in(client: MlflowClient, params: Params, source: BackboneSource, tags: Mapping[str, str]) -> str:
    experiment_id = stores.select_experiment(client, params.tracking.experiment)
    _end_killed_runs(client, experiment_id)
    provenance = find_provenance()
    changed = find_changed_params(list_informative(params), provenance.commit)
    process = {PROCESS_TAG: name_process(os.getpid())}
    run = client.create_run(
        experiment_id,
        run_name=name_run(provenance, source, changed),
        tags={**describe_origin(provenance, source), **process, **tags},
    )
    return str(run.info.run_id)


def _find_run(run_id: str, params: Params, source: BackboneSource) -> tuple[Run, bool]:
    """Return the run that continues train's run, and whether it is new."""
    with stores.lock_waiting_runs():
        run_id, waiting = stores.follow_run(run_id)
        if waiting is not None:
            client = stores.open_waiting_store()
            _mark_running(client, waiting.info.run_id)
            return Run(client, waiting.info.run_id, params, source), False
    try:
        with stores.short_timeouts():
            client = stores.open_store()
            if stores.find_run(client, run_id) is not None:
                return Run(client, run_id, params, source), False
            continuation = stores.find_continuation(client, run_id)
            if continuation is None:
                continuation_id = _create_run_in(client, params, source, {stores.CONTINUES: run_id})
            else:
                continuation_id = str(continuation.info.run_id)
            print(
                f"MLflow's store {stores.describe_store()} lacks train's run; continuing in {continuation_id}.",
                file=sys.stderr,
            )
            return Run(client, continuation_id, params, source), continuation is None
    except stores.STORE_ERRORS as error:
        _raise_or_warn(error, params)
    return Run(*_wait_for(run_id, params, source), params, source), True


def _raise_or_warn(error: Exception, params: Params) -> None:
    """Raise a store's failure as CelebflowError when tracking is required; otherwise print it as a warning."""
    failure = stores.describe_failure(error)
    if params.tracking.required:
        raise CelebflowError(
            f"{failure}. Check MLFLOW_TRACKING_URI, or unset it to log to mlflow.db in the repository, or set "
            "tracking.required to false to log later."
        ) from None
    print(f"{failure}. The run waits in the repository; `celebflow runs sync` logs it later.", file=sys.stderr)


def _wait_for(run_id: str, params: Params, source: BackboneSource) -> tuple[MlflowClient, str]:
    """Return the client and the id of a waiting run that continues a run whose store cannot be reached."""
    with stores.lock_waiting_runs():
        _, waiting = stores.follow_run(run_id)
        client = stores.open_waiting_store()
        if waiting is None:
            tags = {stores.CONTINUES: run_id, stores.MEANT_FOR: stores.describe_store()}
            return client, _create_run_in(client, params, source, tags)
        _mark_running(client, waiting.info.run_id)
        return client, str(waiting.info.run_id)


def _mark_running(client: MlflowClient, run_id: str) -> None:
    client.update_run(run_id, "RUNNING")
    client.set_tag(run_id, PROCESS_TAG, name_process(os.getpid()))


def _end_killed_runs(client: MlflowClient, experiment_id: str) -> None:
    """End runs as KILLED whose status is RUNNING although their process on this machine is gone."""
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if not may_be_running(run):
            client.set_terminated(run.info.run_id, "KILLED")
