"""Search for better params: Optuna proposes DVC experiments, and a metric of validation judges them."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard, cast

import numpy as np
from tabulate import tabulate

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.evaluation.metrics import is_lower_better
from celebflow.evaluation.results import load_metrics
from celebflow.experiments.recipes import list_arguments
from celebflow.experiments.results import copy_outputs, require_trust
from celebflow.experiments.search_record import Proposal, RecordedTrial, RunningTrial, SearchRecord, open_record
from celebflow.params import CLASSIFIERS, Params, TaskName, flatten, list_affected_classifiers, list_informative
from celebflow.tasks import TASKS
from celebflow.tracking.data_changes import read_data_md5
from celebflow.tracking.git import (
    has_experiment,
    list_variables,
    require_commit,
    require_experiment_name,
    require_identity,
    run_git,
)
from celebflow.tracking.mlflow_runs import open_parent_run
from celebflow.tracking.naming import PARENT_VARIABLE
from celebflow.tracking.processes import may_be_running, name_process

Value = str | float | int | bool | None


@dataclass(frozen=True)
class Space:
    """The values that a search may give a param: one of `choices`, or without choices a number from `low` to `high`.

    Between whole numbers there are only whole numbers. A range that spans at least a factor of ten is logarithmic.
    """

    name: str
    choices: tuple[Value, ...] = ()
    low: float = 0
    high: float = 0

    def __str__(self) -> str:
        return ",".join(json.dumps(choice, allow_nan=False) for choice in self.choices) or f"{self.low}..{self.high}"

    def suggest(self, trial: Any) -> Value:
        """Return the value that an Optuna trial suggests."""
        if self.choices:
            # By position, because Optuna does not take lists.
            choice: int = trial.suggest_categorical(self.name, range(len(self.choices)))
            return self.choices[choice]
        log = self.low > 0 and self.high / self.low >= 10
        if isinstance(self.low, int) and isinstance(self.high, int):
            return int(trial.suggest_int(self.name, self.low, self.high, log=log))
        return float(trial.suggest_float(self.name, self.low, self.high, log=log))


@dataclass(frozen=True)
class Trial:
    """One experiment of a search: its name in DVC, the values, and the metric, None when the experiment failed."""

    name: str
    values: dict[str, Value]
    metric: float | None


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search, the best first, and where it started: params, photographs and commit."""

    trials: list[Trial]
    start_params: dict[str, object]
    data_md5: str
    start_commit: str


def parse_space(text: str, params: Params) -> Space:
    """Parse `name=a,b,c` or `name=low..high`.

    Raises CelebflowError when the param is unknown or not searchable, or the values are not valid.
    """
    name, separator, values = text.partition("=")
    known = flatten(params.model_dump(mode="json"))
    if name not in known or not name.startswith(("extract.", "train.")):
        searchable = ", ".join(each for each in known if each.startswith(("extract.", "train.")))
        raise CelebflowError(f"{name!r} is not a param that can be searched. These can: {searchable}.")
    if not separator or not values:
        raise CelebflowError(f"{text!r} has no values. Write {name}=a,b,c or {name}=low..high.")
    low_text, is_range, high_text = values.partition("..")
    if not is_range:
        choices = re.split(r",(?![^\[]*\])", values)  # commas outside brackets
        return Space(name, choices=tuple(_parse_value(choice) for choice in choices))
    low, high = _parse_value(low_text), _parse_value(high_text)
    if _is_number(low) and _is_number(high) and low < high and math.isfinite(float(high) - float(low)):
        return Space(name, low=low, high=high)
    raise CelebflowError(
        f"{values} is not a valid range of {name}. Write low..high: two numbers, the lower first, and no "
        "further apart than a float can tell."
    )


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse_value(text: str) -> Value:
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(text)
            if math.isfinite(number):
                return number
    words: dict[str, Value] = {"true": True, "false": False, "null": None}
    return words.get(text.strip(), text.strip())


def search(
    name: str,
    params: Params,
    fixed: Mapping[str, object],
    spaces: Sequence[Space],
    trial_count: int,
    metric: str,
    on_trial: Callable[[Trial], object],
    at_once: int = 1,
) -> SearchResult:
    """Run experiments until the search of this name has `trial_count` trials, and call `on_trial` with each of all.

    Each starts from the workspace's params with the `fixed` changes, in a copy of the repository, and is named
    `name`-1 and so on. Their MLflow runs are nested under one run of the search. Optuna's tree-structured Parzen
    estimator (Bergstra et al., 2011) proposes values, seeded by train.seed. An interrupted search continues where it
    was, with the same proposals as without the interruption.

    With `at_once`, as many trials are proposed together, and a cluster does their trainings at the same time, before
    their experiments run one after the other.

    Raises CelebflowError when `metric` is not a metric of val, because test data must not choose, when a param is given
    twice or ignored by the classifier, when there is no cluster for `at_once`, when DVC cannot run experiments here,
    when the search began with other settings or photographs, when an experiment of that name is not of the search, and
    when the first trial fails.
    """
    import optuna

    task = cast("TaskName", fixed.get("task", params.task))
    split, _, figure = metric.partition(".")
    if split != "val" or figure not in TASKS[task].metrics:
        raise CelebflowError(
            f"{metric} is not a metric of validation, such as val.accuracy, of the task {task}. Test data must not "
            f"choose params. Choose one of {', '.join(f'val.{known}' for known in TASKS[task].metrics)}."
        )
    require_experiment_name(name)
    if at_once > 1 and params.compute.cluster is None:
        raise CelebflowError(
            "Several trials at once train on the nodes of a cluster, and compute.cluster is null. Name a cluster, or "
            "leave out --at-once."
        )
    repeated = [param for param, count in Counter(space.name for space in spaces).items() if count > 1]
    if repeated:
        raise CelebflowError(f"{', '.join(repeated)} is given more than once. Write all its values after one =.")
    _require_difference(task, str(fixed.get("train.classifier", params.train.classifier)), spaces)
    commit = require_commit()
    require_trust()
    require_identity()
    _require_plain_path()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if is_lower_better(metric) else "maximize")
    start = {**list_informative(params), **fixed}
    data_md5 = read_data_md5()
    values_to_try = {space.name: str(space) for space in spaces}
    settings: dict[str, object] = {"--metric": metric, "photographs (md5)": data_md5, **start, **values_to_try}
    if at_once > 1:  # which decides what is proposed
        settings["--at-once"] = at_once
    trials: list[Trial] = []

    def propose(number: int, known: RecordedTrial | RunningTrial | None) -> tuple[optuna.Trial, Trial]:
        """Ask Optuna for the trial of this number, from 0, or tell it that this trial is a known one."""
        if known is not None:
            study.enqueue_trial(known.proposal)
        # A sampler per trial, so that a continued search proposes what an uninterrupted one would. Of trials without a
        # result yet, it takes bad ones for granted, so that those of a round differ.
        seeds = np.random.SeedSequence([params.train.seed, number])
        study.sampler = optuna.samplers.TPESampler(seed=int(seeds.generate_state(1)[0]), constant_liar=at_once > 1)
        proposed = study.ask()
        values = {space.name: space.suggest(proposed) for space in spaces}
        return proposed, Trial(f"{name}-{number + 1}", values, None)

    def add(proposed: optuna.Trial, trial: Trial) -> None:
        study.tell(proposed, trial.metric, state=optuna.trial.TrialState.FAIL if trial.metric is None else None)
        trials.append(trial)
        on_trial(trial)

    with open_record(name, settings, start, commit) as record, ExitStack() as stack:
        recorded = [*record.trials]
        known: dict[int, RecordedTrial | RunningTrial | None] = {
            **dict(enumerate(recorded)),
            len(recorded): record.running,
        }
        total = max(trial_count, len(recorded))
        parent = None
        for first in range(0, total, at_once):
            group = [propose(number, known.get(number)) for number in range(first, min(first + at_once, total))]
            done = recorded[first : first + at_once]
            for (proposed, trial), result in zip(group, done, strict=False):
                add(proposed, replace(trial, metric=result.metric))
            to_run = group[len(done) :]
            if to_run and parent is None:
                parent = stack.enter_context(open_parent_run(params, name, record.parent_run_id))
                record.parent_run_id = parent.run_id
            if to_run and at_once > 1:
                from celebflow.experiments.search_training import train_ahead  # imports PyTorch

                tried = [trial.values for trial in trials]  # DVC runs none of these again
                new = [trial for _, trial in to_run if trial.values not in tried and not has_experiment(trial.name)]
                train_ahead(params, [{**fixed, **trial.values} for trial in new])
            for proposed, trial in to_run:
                changes = {**fixed, **trial.values}
                print(f"{trial.name} is running ({len(trials) + 1} of {trial_count}) …", file=sys.stderr, flush=True)
                trial = replace(trial, metric=_run_trial(record, proposed.params, trial.name, changes, figure))
                add(proposed, trial)
                if parent and trial.metric is not None and rank_trials(trials, metric)[0] is trial:
                    parent.log_search_result(metric, trial.name, trial.metric, len(trials))
    return SearchResult(rank_trials(trials, metric), record.start_params, data_md5, record.start_commit)


def _require_difference(task: TaskName, classifier: str, spaces: Sequence[Space]) -> None:
    """Raise CelebflowError where a param makes no difference, because each classifier that is tried ignores it."""
    tried = next((space.choices for space in spaces if space.name == "train.classifier"), (classifier,))
    for space in spaces:
        affected = list_affected_classifiers(space.name, task)
        if affected != CLASSIFIERS[task] and not set(tried) & set(affected):
            belongs = f"is for train.classifier {' or '.join(affected)}" if affected else f"is not for the task {task}"
            raise CelebflowError(
                f"{space.name} {belongs}. Here train.classifier is {' or '.join(map(str, tried))}, so that its values "
                "would make no difference. Leave it out, or change the classifier."
            )


def _require_plain_path() -> None:
    """Raise CelebflowError where DVC cannot run experiments in copies of the repository, because of its path."""
    here = paths.project()
    root = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    if not str(root).isascii() or set(str(root)) & set("#?{}"):
        raise CelebflowError(
            f"DVC cannot run experiments in copies of {root}: the path has characters other than ASCII, or one of "
            "# ? { }. Move the repository to another path."
        )


def rank_trials(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Sort trials, the best first and the failed last; equal ones stay in their order."""
    sign = 1 if is_lower_better(metric) else -1
    return sorted(trials, key=lambda trial: math.inf if trial.metric is None else sign * trial.metric)


def format_trials(trials: Sequence[Trial], metric: str, max_trials: int = 10) -> str:
    """Return a table of the first trials for the terminal."""
    rows = [[trial.name, trial.metric, *trial.values.values()] for trial in trials[:max_trials]]
    headers = ["experiment", metric, *trials[0].values]
    return str(tabulate(rows, headers, tablefmt="plain", floatfmt=".4g", disable_numparse=[0]))


def _run_trial(
    record: SearchRecord, proposal: Proposal, name: str, changes: Mapping[str, object], figure: str
) -> float | None:
    """Run a trial's experiment, record what came of it, and return its metric, None when it failed or has none.

    Raises CelebflowError when it is the first trial and fails or has no such metric, and when it cannot begin.
    """
    output = ""
    if record.running is not None and record.running.process and may_be_running(record.running.process):
        raise CelebflowError(
            f"The search was killed, but its experiment {name} is still running, as process {record.running.process}. "
            "Wait until it ends, end it, or choose another --name."
        )
    if not has_experiment(name):

        def record_process(number: int) -> None:
            record.running = RunningTrial(proposal, name_process(number))
            record.save()

        try:
            output = _run_experiment(name, changes, record.parent_run_id, record_process)
        finally:
            record.running = RunningTrial(proposal, "")
            record.save()
    elif record.running is None:
        raise CelebflowError(
            f"There is an experiment {name}, which does not belong to this search. Choose another --name, or run "
            f"`dvc exp remove {name}`."
        )
    if output and not record.trials:
        raise CelebflowError(f"The first experiment of the search failed:\n{output}")
    metrics = {} if output else _read_metrics(name)
    if not output and figure not in metrics:
        message = f"There is no metric val.{figure} in {name}."
        if not record.trials:
            raise CelebflowError(f"{message} Choose one of: {', '.join(f'val.{known}' for known in metrics)}.")
        print(f"{message} It counts as failed.", file=sys.stderr)
    metric = metrics.get(figure)
    record.trials.append(RecordedTrial(proposal, metric))
    record.running = None
    record.save()
    return metric


def _run_experiment(
    name: str, changes: Mapping[str, object], parent_run_id: str, on_start: Callable[[int], object]
) -> str:
    """Run a DVC experiment in a copy of the repository; return the end of its output if it failed, else nothing.

    `on_start` gets the number of the process. An interruption also interrupts the experiment, and waits until DVC has
    removed the copy.
    """
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", f"--name={name}", *list_arguments(changes)]
    stash = _find_stash()
    process = subprocess.Popen(  # noqa: S603
        command,
        env={**list_variables(), PARENT_VARIABLE: parent_run_id},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that Ctrl-C does not kill DVC while it cleans up
    )
    try:
        on_start(process.pid)
        output, _ = process.communicate()
    except BaseException:
        _interrupt(process)
        raise
    if process.returncode == 0:
        return ""
    end = "\n".join(output.strip().splitlines()[-15:]) or "no output"
    if _find_stash() != stash:  # where DVC puts them while it starts
        end += "\nYour uncommitted changes are in git's stash. Get them back: git stash pop --index"
    return end


def _find_stash() -> str:
    return run_git("rev-parse", "--verify", "--quiet", "refs/stash")


def _interrupt(process: subprocess.Popen[str]) -> None:
    """Interrupt DVC and the stage that it runs, and wait for its end; a second interruption kills them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _read_metrics(experiment: str) -> dict[str, float]:
    """Return an experiment's metrics of val; those that its predictions leave undefined are missing."""
    with TemporaryDirectory() as folder:
        copies = copy_outputs([paths.ALL_METRICS], experiment, Path(folder))
        if copies is None:
            raise CelebflowError(f"DVC ran the experiment {experiment}, but cannot find it.")
        return load_metrics(copies[0])["val"]
