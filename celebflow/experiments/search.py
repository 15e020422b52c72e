"""Search for better params: Optuna proposes DVC experiments, and a metric of validation judges them."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard

from tabulate import tabulate

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.evaluation.metrics import is_lower_better
from celebflow.evaluation.results import load_metrics
from celebflow.experiments.recipes import list_arguments
from celebflow.experiments.results import copy_outputs
from celebflow.params import Params, flatten
from celebflow.tracking.naming import PARENT_VARIABLE
from celebflow.tracking.runs import open_parent_run

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
    if _is_number(low) and _is_number(high) and low < high:
        return Space(name, low=low, high=high)
    raise CelebflowError(f"{values} is not a valid range of {name}. Write low..high: two numbers, the lower first.")


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse_value(text: str) -> Value:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
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
) -> list[Trial]:
    """Run `trial_count` experiments and return them, the best first.

    Each starts from the workspace's params with the `fixed` changes, in a copy of the repository, and is named
    `name`-1 and so on. Their MLflow runs are nested under one run of the search. Optuna's tree-structured Parzen
    estimator (Bergstra et al., 2011) proposes values, seeded by train.seed.

    Raises CelebflowError when `metric` is not a metric of val, because test data must not choose, when an experiment
    of that name exists, and when the first trial fails.
    """
    import optuna

    split, _, figure = metric.partition(".")
    if split != "val" or not figure:
        raise CelebflowError(
            f"{metric} is not a metric of validation, such as val.accuracy. Test data must not choose params."
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    low = is_lower_better(metric)
    sampler = optuna.samplers.TPESampler(seed=params.train.seed)
    study = optuna.create_study(direction="minimize" if low else "maximize", sampler=sampler)
    trials: list[Trial] = []
    with open_parent_run(params, name) as parent:
        for number in range(1, trial_count + 1):
            proposal = study.ask()
            values = {space.name: space.suggest(proposal) for space in spaces}
            experiment = f"{name}-{number}"
            output = _run_experiment(experiment, {**fixed, **values}, parent.run_id)
            if output and not trials:
                raise CelebflowError(f"The first experiment of the search failed:\n{output}")
            result = None if output else _read_metric(experiment, split, figure)
            trials.append(Trial(experiment, values, result))
            study.tell(proposal, result, state=optuna.trial.TrialState.FAIL if result is None else None)
            on_trial(trials[-1])
            if result is not None and _rank(trials, low=low)[0] is trials[-1]:
                parent.log_search_result(metric, experiment, result, number)
    return _rank(trials, low=low)


def _rank(trials: Sequence[Trial], *, low: bool) -> list[Trial]:
    """Sort trials, the best first and the failed last; equal ones stay in their order."""
    sign = 1 if low else -1
    return sorted(trials, key=lambda trial: math.inf if trial.metric is None else sign * trial.metric)


def format_trials(trials: Sequence[Trial], metric: str, max_trials: int = 10) -> str:
    """Return a table of the first trials for the terminal."""
    rows = [[trial.name, trial.metric, *trial.values.values()] for trial in trials[:max_trials]]
    headers = ["experiment", metric, *trials[0].values]
    return str(tabulate(rows, headers, tablefmt="plain", floatfmt=".4g", disable_numparse=[0]))


def _run_experiment(name: str, changes: Mapping[str, object], parent_run_id: str) -> str:
    """Run a DVC experiment in a copy of the repository; return the end of its output if it failed, else nothing."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", f"--name={name}", *list_arguments(changes)]
    variables = {**os.environ, PARENT_VARIABLE: parent_run_id}
    process = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603
    if process.returncode == 0:
        return ""
    return "\n".join(process.stdout.strip().splitlines()[-15:]) or "no output"


def _read_metric(experiment: str, split: str, figure: str) -> float:
    with TemporaryDirectory() as folder:
        copies = copy_outputs([paths.ALL_METRICS], experiment, Path(folder))
        if copies is None:
            raise CelebflowError(f"DVC ran the experiment {experiment}, but cannot find it.")
        metrics = load_metrics(copies[0])[split]
    if figure not in metrics:
        raise CelebflowError(f"There is no metric {split}.{figure}. Choose one of: {', '.join(metrics)}.")
    return metrics[figure]
