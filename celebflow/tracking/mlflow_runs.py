"""Results → MLflow: train starts a run, and evaluate and plot continue it; `runs` calls it."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

from celebflow import paths
from celebflow.backbone.source import BackboneSource
from celebflow.classifier.history import EpochResult
from celebflow.errors import CelebflowError, Terminated, raise_shortage
from celebflow.params import Params, list_informative
from celebflow.tasks import TASKS
from celebflow.tracking import stores
from celebflow.tracking.data_changes import describe_data_change
from celebflow.tracking.git import has_experiment
from celebflow.tracking.naming import EXPERIMENT_TAG, RESTORE_TAG, describe_origin, describe_run, name_run, rename_run
from celebflow.tracking.processes import PROCESS_TAG, may_be_running, name_process
from celebflow.tracking.provenance import (
    find_changed_defaults,
    find_changed_params,
    find_last_result,
    find_provenance,
    read_lock,
    require_own_classifier,
    restore_params,
)


class Run:
    """An MLflow run, which logs what a stage gives it.

    When its store fails and `tracking.required` is false, the run continues in the store of the waiting runs.
    """

    def __init__(self, params: Params, source: BackboneSource, continued_id: str = "", name: str = "") -> None:
        """Make a new run, or find or make the one that continues the run with an id.

        Without a name, a run that is made is called by what changed.

        Raises CelebflowError when the user's store cannot be used and `tracking.required` is true.
        """
        self._params = params
        self._informative_params = list_informative(params)
        if continued_id:
            self._informative_params = restore_params(self._informative_params, continued_id)
        self._source = source
        self._name = name
        self.run_id = continued_id
        self._is_running = False
        try:
            self._open(continued_id)
        except BaseException as error:
            self.end_after(error)
            raise

    def _open(self, continued_id: str) -> None:
        if continued_id:
            with stores.lock_waiting_runs():
                if self._continue_waiting_run():
                    return
        try:
            with stores.short_timeouts():
                self._client = stores.open_store()
                if continued_id:
                    self._continue_stored_run()
                else:
                    self._create({})
        except stores.STORE_ERRORS as error:
            self._wait(error)

    def _continue_waiting_run(self) -> bool:
        """Continue the waiting run that continues this one; return whether there is one."""
        self.run_id, waiting = stores.follow_run(self.run_id)
        if waiting is None:
            return False
        self._client = stores.open_waiting_store()
        self.run_id = waiting.info.run_id
        self._is_running = True
        _mark_running(self._client, self.run_id)
        return True

    def _continue_stored_run(self) -> None:
        """Continue the run in the user's store, or the run that continues it there, or make that."""
        if stores.find_run(self._client, self.run_id) is not None:
            return
        continuation = stores.find_continuation(self._client, self.run_id)
        if continuation is None:
            self._create({stores.CONTINUES: self.run_id})
        else:
            self.run_id = continuation.info.run_id
        message = f"MLflow's store {stores.describe_store()} lacks the run; continuing in {self.run_id}."
        print(message, file=sys.stderr)

    def _create(self, tags: Mapping[str, str]) -> None:
        """Make a run with the params that make a difference to a result; end the runs whose process was killed."""
        with stores.finish_actions(self._client):
            experiment_id = stores.select_experiment(self._client, self._params.tracking.experiment)
            for run in self._client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
                if not may_be_running(run.data.tags.get(PROCESS_TAG, "")):
                    self._client.set_terminated(run.info.run_id, "KILLED")
            provenance = find_provenance()
            params = self._informative_params
            before = find_last_result(provenance.commit)
            by_folder = TASKS[self._params.task].folders_are_people
            data_change = describe_data_change(before, folders_are_people=by_folder)
            changed = find_changed_params(params, before) if provenance.commit else find_changed_defaults(params)
            name = self._name or name_run(provenance, self._source, changed, data_change)
            all_tags = {**describe_origin(provenance, self._source), PROCESS_TAG: name_process(os.getpid()), **tags}
            created = self._client.create_run(experiment_id, tags=all_tags, run_name=name)
            self.run_id = created.info.run_id
            self._is_running = True
            self._client.log_batch(self.run_id, params=[Param(name, str(value)) for name, value in params.items()])

    def _wait(self, error: Exception) -> None:
        """Continue in the store of the waiting runs, because the user's store failed.

        Raises CelebflowError when tracking is required.
        """
        failure = stores.describe_failure(error)
        if self._params.tracking.required:
            raise_shortage(error, stores.describe_store())
            raise CelebflowError(
                f"{failure}. {stores.advise_on_failure(error)} Or set tracking.required to false to log later."
            ) from None
        print(f"{failure}. The run waits in the repository; `celebflow runs sync` logs it later.", file=sys.stderr)
        with stores.lock_waiting_runs():
            if not self._continue_waiting_run():
                continued = {stores.CONTINUES: self.run_id} if self.run_id else {}
                self._client = stores.open_waiting_store()
                self._create({**continued, stores.MEANT_FOR: stores.identify_store()})

    def log(self, action: Callable[[MlflowClient, str], object]) -> None:
        """Call `action` with a client of the run's store and the run's id."""
        try:
            with nullcontext() if self._params.tracking.required else stores.short_timeouts():
                self._finish(action)
        except stores.STORE_ERRORS as error:
            if stores.is_waiting_store(self._client):
                raise
            self._wait(error)
            self._finish(action)

    def _finish(self, action: Callable[[MlflowClient, str], object]) -> None:
        client = self._client
        announced = stores.announce_waiting(str(client.tracking_uri))
        with stores.translate_files_errors(), announced, stores.finish_actions(client):
            action(client, self.run_id)  # a server that has gone is tried for minutes: it may come back

    def log_epoch(self, result: EpochResult) -> None:
        """Log one epoch's losses and accuracies, as train/loss and so on."""
        values = asdict(result)
        epoch = values.pop("epoch")
        self._log_metrics({name.replace("_", "/"): value for name, value in values.items()}, epoch)

    def log_final_metrics(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Log the headline figures of each split, as val/final_accuracy and so on, and describe the run with them."""
        for split, figures in metrics.items():
            self._log_metrics({f"{split}/final_{name}": value for name, value in figures.items()})

        def describe(client: MlflowClient, run_id: str) -> None:
            tags = client.get_run(run_id).data.tags
            picture = TASKS[self._params.task].picture
            client.set_tag(run_id, "mlflow.note.content", describe_run(run_id, tags, metrics, picture))

        self.log(describe)

    def log_search_result(self, metric: str, experiment: str, value: float, trial_number: int) -> None:
        """Log the best experiment of a search so far, as search/best_…, because the metric is not this run's own."""
        self._log_metrics({f"search/best_{metric}": value}, trial_number)
        self.set_tags({"celebflow.best_experiment": experiment})

    def log_folds(self, folds: Mapping[str, Mapping[str, float]]) -> None:
        """Log the metrics of each fold of a cross-validation, by its name, as a run nested under this one."""

        def create(client: MlflowClient, run_id: str, name: str, values: Mapping[str, float]) -> None:
            experiment_id = client.get_run(run_id).info.experiment_id
            now_ms = int(time.time() * 1000)
            child = client.create_run(experiment_id, run_name=name, tags={"mlflow.parentRunId": run_id})
            metrics = [Metric(f"fold/{metric}", value, now_ms, 0) for metric, value in values.items()]
            client.log_batch(child.info.run_id, metrics)
            client.set_terminated(child.info.run_id, "FINISHED")

        for name, values in folds.items():  # one at a time, so that none is logged twice when the store fails
            self.log(partial(create, name=name, values=values))

    def log_crossvalidation(self, summaries: Mapping[str, Mapping[str, float]], experiment: str) -> None:
        """Log each metric's mean and so on over all folds, and the DVC experiment that keeps them, if one does."""
        for metric, values in summaries.items():
            self._log_metrics({f"crossvalidation/{metric}_{name}": value for name, value in values.items()})
        if experiment:
            self.set_tags({EXPERIMENT_TAG: experiment, RESTORE_TAG: f"dvc exp apply {experiment}"})

    def require_place_of_files(self) -> None:
        """See, before much is computed, that the place of the run's files can be reached."""
        self.log(lambda client, run_id: client.list_artifacts(run_id))

    def log_files(self, *files: Path) -> None:
        """Store files and folders as artifacts, at the same relative paths."""

        def store(client: MlflowClient, run_id: str) -> None:
            for file in files:
                if file.is_dir():
                    client.log_artifacts(run_id, str(file), file.as_posix())
                else:
                    client.log_artifact(run_id, str(file), file.parent.as_posix() if file.parent != Path() else None)

        self.log(store)

    def log_datasets(self, counts: Mapping[str, int]) -> None:
        """Log each split as a dataset, with the md5 of the photographs; `counts` has how many each split has."""
        md5 = read_lock().get("data")
        origin = {"folder": paths.DATA.as_posix(), "recorded in": "data.dvc", "md5": md5 or "unknown"}
        source = CodeDatasetSource(origin)
        inputs = []
        for split in ("train", "val", "test"):
            name = f"{split}: {counts.get(split, 0)} photographs"  # MLflow would merge datasets of equal names
            dataset = MetaDataset(source, name, md5[:8] if md5 else None)  # type: ignore[abstract] # not abstract in MLflow
            inputs.append(DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", split)]))
        self.log(lambda client, run_id: client.log_inputs(run_id, inputs))

    def mend_origin(self) -> None:
        """Say anew how the result is restored, where train ran in an experiment that was interrupted and is not there.

        DVC saves an experiment when all of its stages have ended. What evaluate has measured before stays as it is.
        """

        def mend(client: MlflowClient, run_id: str) -> None:
            run = client.get_run(run_id)
            named, current = run.data.tags.get(EXPERIMENT_TAG, ""), os.environ.get("DVC_EXP_NAME", "")
            is_measured = any("/final_" in name for name in run.data.metrics)
            if named in ("", current) or is_measured or has_experiment(named):
                return
            for tag, value in {EXPERIMENT_TAG: current, RESTORE_TAG: find_provenance().restore_command()}.items():
                if value:
                    client.set_tag(run_id, tag, value)
                elif tag in run.data.tags:
                    client.delete_tag(run_id, tag)
            client.update_run(run_id, name=rename_run(run.info.run_name, named, current))

        self.log(mend)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        entities = [RunTag(name, value) for name, value in tags.items()]
        self.log(lambda client, run_id: client.log_batch(run_id, tags=entities))

    def end(self, status: str) -> None:
        """End the run with a status of MLflow: FINISHED, FAILED or KILLED."""
        self.log(lambda client, run_id: client.set_terminated(run_id, status))

    def mark_running(self) -> None:
        """Let the store say that the run is running, in this process."""
        self._is_running = True
        self.log(_mark_running)

    def end_after(self, error: BaseException) -> None:
        """End the run as what an error makes it, if it is running; an error of the store must not hide the first."""
        if self._is_running:
            with suppress(*stores.STORE_ERRORS, CelebflowError), stores.short_timeouts():
                self.end("KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED")

    def _log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value in values.items()]
        self.log(lambda client, run_id: client.log_batch(run_id, metrics))


def _mark_running(client: MlflowClient, run_id: str) -> None:
    client.update_run(run_id, "RUNNING")
    client.set_tag(run_id, PROCESS_TAG, name_process(os.getpid()))


@contextmanager
def start_run(params: Params, source: BackboneSource, counts: Mapping[str, int]) -> Iterator[Run]:
    """Open a new MLflow run, log the params and datasets, and save its id for the stages that continue it.

    `counts` has the number of photographs of each split. The run ends as FINISHED, as FAILED on an exception, and as
    KILLED on Ctrl-C or SIGTERM.

    Raises CelebflowError when the tracking store cannot be used and `tracking.required` is true.
    """
    if waiting := len(stores.list_waiting_runs()):
        print(f"{waiting} MLflow runs wait in the repository; `celebflow runs sync` logs them.")
    with _open(Run(params, source)) as run:
        run.require_place_of_files()
        paths.MLFLOW_RUN_ID.parent.mkdir(parents=True, exist_ok=True)
        paths.MLFLOW_RUN_ID.write_text(run.run_id)
        run.log_datasets(counts)
        yield run


@contextmanager
def open_parent_run(params: Params, name: str, continued_id: str) -> Iterator[Run]:
    """Open an MLflow run of this name, under which the runs of a search's experiments are nested.

    An interrupted search continues the run with an id. When the store lacks it, a new run continues it; this is
    reported on standard error.

    Raises CelebflowError when the tracking store cannot be used and `tracking.required` is true.
    """
    weights = params.backbone.weights
    with _open(Run(params, BackboneSource(weights, weights != "untrained", ""), continued_id, name)) as run:
        yield run


@contextmanager
def continue_run(params: Params, source: BackboneSource) -> Iterator[Run]:
    """Open the run whose id train saved once more.

    When the store lacks the run, because the result comes from another machine, a new run continues it; this is
    reported on standard error. Raises CelebflowError when train has not ended, and when the classifier here is not that
    of dvc.lock.
    """
    try:
        run_id = paths.MLFLOW_RUN_ID.read_text(errors="replace")
    except FileNotFoundError:
        raise CelebflowError(f"{paths.MLFLOW_RUN_ID} is missing: train has not ended. Run `dvc repro`.") from None
    if not re.fullmatch("[0-9a-f]{32}", run_id):
        raise CelebflowError(
            f"{paths.MLFLOW_RUN_ID} does not hold the id of a run. Run `dvc repro --force --single-item train`."
        )
    require_own_classifier(run_id)
    with _open(Run(params, source, run_id)) as run:
        run.mend_origin()
        run.set_tags({f"celebflow.{name}_md5": md5 for name, md5 in read_lock().items()})
        yield run


@contextmanager
def _open(run: Run) -> Iterator[Run]:
    try:
        run.mark_running()
        yield run
    except BaseException as error:
        run.end_after(error)
        raise
    run.end("FINISHED")
