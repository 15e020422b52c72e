"""Search for better params: DVC experiments that Optuna proposes, judged by validation, under one parent MLflow run."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
    """What a param may be: one of `choices`, or where there are none anything from `low` to `high`.

    A range of whole numbers has whole numbers only; one that spans a factor of ten and more is drawn from on a
    logarithmic scale.
    """

    name: str
    choices: tuple[Value, ...] = ()
    low: float = 0
    high: float = 0

    def suggest(self, trial: Any) -> Value:
        """Ask an Optuna trial for a value."""
        if self.choices:
            # By number: Optuna takes no lists.
            choice: int = trial.suggest_categorical(self.name, range(len(self.choices)))
            return self.choices[choice]
        log = self.low > 0 and self.high / self.low >= 10
        if isinstance(self.low, int) and isinstance(self.high, int):
            return int(trial.suggest_int(self.name, self.low, self.high, log=log))
        return float(trial.suggest_float(self.name, self.low, self.high, log=log))


@dataclass(frozen=True)
class Trial:
    """One experiment of a search: its name in DVC, what was tried, and the metric, None where it failed."""

    name: str
    values: dict[str, Value]
    metric: float | None


def parse_space(text: str, params: Params) -> Space:
    """Read `name=a,b,c` or `name=low..high`.

    Raises CelebflowError when there is no such param, or the range is none.
    """
    name, separator, values = text.partition("=")
    known = flatten(params.model_dump(mode="json"))
    if name not in known or not name.startswith(("extract.", "train.")):
        searchable = ", ".join(each for each in known if each.startswith(("extract.", "train.")))
        raise CelebflowError(f"{name!r} is no param to search. These are: {searchable}.")
    if not separator or not values:
        raise CelebflowError(f"{text!r} says no values. Write {name}=a,b,c or {name}=low..high.")
    low, is_range, high = values.partition("..")
    if not is_range:
        return Space(name, choices=tuple(_read_value(value) for value in re.split(r",(?![^\[]*\])", values)))
    ends = _read_value(low), _read_value(high)
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends) or ends[0] >= ends[1]:  # type: ignore[operator]
        raise CelebflowError(f"{values} is no range of {name}. Write low..high, with numbers, the lower first.")
    return Space(name, low=ends[0], high=ends[1])  # type: ignore[arg-type]


def _read_value(text: str) -> Value:
    text = text.strip()
    words: dict[str, Value] = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


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
    `name`-1 and so on. `metric` is of validation: what test says must not choose. Optuna's tree-structured Parzen
    estimator (Bergstra et al., 2011) proposes values, with the train params' seed.

    Raises CelebflowError when the metric is not of validation, when an experiment of that name exists, and when the
    first trial fails.
    """
    import optuna

    split, _, figure = metric.partition(".")
    if split != "val" or not figure:
        raise CelebflowError(f"{metric} is no metric of validation, val.accuracy say. What test says must not choose.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    low = is_lower_better(metric)
    study = optuna.create_study(
        direction="minimize" if low else "maximize", sampler=optuna.samplers.TPESampler(seed=params.train.seed)
    )
    trials: list[Trial] = []
    with open_parent_run(params, name) as parent:
        for number in range(1, trial_count + 1):
            asked = study.ask()
            values = {space.name: space.suggest(asked) for space in spaces}
            experiment = f"{name}-{number}"
            output = _run_experiment(experiment, {**fixed, **values}, parent.run_id)
            if output and not trials:
                raise CelebflowError(f"The first experiment of the search failed:\n{output}")
            result = None if output else _read_metric(experiment, split, figure)
            trials.append(Trial(experiment, values, result))
            study.tell(asked, result, state=optuna.trial.TrialState.FAIL if result is None else None)
            on_trial(trials[-1])
            if result is not None and _rank(trials, low=low)[0] is trials[-1]:
                parent.log_search_result(metric, experiment, result, number)
    return _rank(trials, low=low)


def _rank(trials: Sequence[Trial], *, low: bool) -> list[Trial]:
    """Order trials, the best and of equals the earlier first; those that failed stand last."""
    sign = 1 if low else -1
    return sorted(trials, key=lambda trial: math.inf if trial.metric is None else sign * trial.metric)


def _run_experiment(name: str, changes: Mapping[str, object], parent_run_id: str) -> str:
    """Run a DVC experiment in a copy of the repository; return nothing, or what it said when it failed."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", f"--name={name}", *list_arguments(changes)]
    process = subprocess.run(  # noqa: S603 - names and values of checked params
        command,
        env={**os.environ, PARENT_VARIABLE: parent_run_id},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return "\n".join(process.stdout.strip().splitlines()[-15:]) or "no output" if process.returncode else ""


def _read_metric(experiment: str, split: str, figure: str) -> float:
    with TemporaryDirectory() as folder:
        copies = copy_outputs([paths.METRICS], experiment, Path(folder))
        if copies is None:
            raise CelebflowError(f"DVC ran the experiment {experiment}, but knows nothing of it.")
        metrics = load_metrics(copies[0])[split]
    if figure not in metrics:
        raise CelebflowError(f"There is no metric {split}.{figure}. There are: {', '.join(metrics)}.")
    return metrics[figure]
