"""The workspace's recipe, cross-validated → tables, nested MLflow runs, and a DVC experiment that keeps them."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count

from tabulate import tabulate

from celebflow import paths
from celebflow.classifier.fits import open_fits
from celebflow.classifier.out_of_fold_training import predict_repeatedly
from celebflow.data.tables import save_rows
from celebflow.errors import CelebflowError
from celebflow.evaluation.cross_validation import (
    METRICS,
    FoldResult,
    Summary,
    list_predictions,
    measure_folds,
    summarize_folds,
)
from celebflow.evaluation.results import Prediction
from celebflow.experiments.lookup import load_for_recognition
from celebflow.experiments.results import require_trust
from celebflow.tracking.git import (
    has_experiment,
    list_variables,
    require_commit,
    require_experiment_name,
    require_identity,
)
from celebflow.tracking.mlflow_runs import Run, open_parent_run

_NAME = "crossvalidation"
_FOLDS = paths.CROSS_VALIDATION / "folds.csv"
_PREDICTIONS = paths.CROSS_VALIDATION / "predictions.csv"


@dataclass(frozen=True)
class CrossValidation:
    """A recipe's results on all folds: `summaries` by metric, and the DVC experiment that keeps them.

    `unjudged_count` counts the photographs whose person the other folds lack.
    """

    experiment: str
    folds: list[FoldResult]
    summaries: dict[str, Summary]
    unjudged_count: int


def cross_validate(fold_count: int, repetitions: int, name: str | None) -> CrossValidation:
    """Cross-validate the workspace's recipe, and write the tables in reports/crossvalidation.

    Repetitions have other seeds of folds and of training. Each fold is a run in MLflow, nested under one of all, and a
    DVC experiment of this name keeps the tables. Without a name, it is crossvalidation, crossvalidation-2, and so on.

    Raises CelebflowError when the workspace has no result of params.yaml, its task does not recognize people, or the
    name is not valid or taken.
    """
    params, features = load_for_recognition("Cross-validation is")
    require_commit()
    require_trust()
    require_identity()
    _require_reproduced()
    name = _choose_name(name)
    paths.require_writable(_FOLDS, _PREDICTIONS)
    fits = open_fits(features)
    result = None
    try:
        with open_parent_run(params, name, "") as run:
            repeated = predict_repeatedly(features, params.train, params.compute, fits, fold_count, repetitions)
            folds = [
                fold
                for repetition, predicted in enumerate(repeated, 1)
                for fold in measure_folds(predicted, repetition)
            ]
            result = CrossValidation(name, folds, summarize_folds(folds), int((~repeated[0].judged).sum()))
            _keep(result, list_predictions(repeated[0]), run)
    except BaseException:
        if result is not None:  # the trainings may have taken hours
            print(f"{format_cross_validation(result)}\n\n{_tell_where(name)}", file=sys.stderr)
        raise
    return result


def _keep(result: CrossValidation, predictions: Sequence[Prediction], run: Run) -> None:
    """Keep a result in tables, in a DVC experiment and in MLflow; raise CelebflowError when one does not take it."""
    save_rows(FoldResult, result.folds, _FOLDS)
    save_rows(Prediction, predictions, _PREDICTIONS)
    failure = None
    try:
        _run_dvc(*_list_save_arguments(result.experiment))
    except CelebflowError as error:
        failure = error
    run.log_folds({f"repetition {each.repetition}, fold {each.fold}": _list_metrics(each) for each in result.folds})
    summaries = {metric: asdict(summary) for metric, summary in result.summaries.items()}
    run.log_crossvalidation(summaries, "" if failure else result.experiment)
    run.log_files(paths.CROSS_VALIDATION)
    if failure:
        raise failure


def _list_save_arguments(name: str) -> list[str]:
    return ["exp", "save", f"--name={name}", f"--include-untracked={paths.CROSS_VALIDATION}"]


def _tell_where(name: str) -> str:
    """Return where the tables of a cross-validation are that failed in the end."""
    if has_experiment(name):
        return f"The tables are in {paths.CROSS_VALIDATION}, and the experiment {name} keeps them."
    command = shlex.join(["dvc", *_list_save_arguments(name)])
    return f"The tables are in {paths.CROSS_VALIDATION}. No experiment keeps them: `{command}` does."


def format_cross_validation(result: CrossValidation) -> str:
    """Return the results of all folds as text: each metric's mean and standard deviation."""
    trained_on = sum(fold.trained_on for fold in result.folds) / len(result.folds)
    lines = [f"{len(result.folds)} trainings on {trained_on:.0f} photographs, each measured on the fold left out."]
    if result.unjudged_count:
        lines[0] += f" Not judged: {result.unjudged_count}, whose people have near-duplicates alone."
    rows = []
    for metric, summary in result.summaries.items():
        values = [float(getattr(fold, metric)) for fold in result.folds]
        cells = summary.mean, summary.deviation, min(values), max(values)
        rows.append([metric, *(f"{cell:.4f}" for cell in cells)])
    headers = ["", "mean", "standard deviation", "lowest", "highest"]
    lines.append(str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True)))
    return "\n\n".join(lines)


def _list_metrics(fold: FoldResult) -> dict[str, float]:
    values = {metric: getattr(fold, metric) for metric in METRICS}
    return {metric: value for metric, value in values.items() if value is not None}


def _require_reproduced() -> None:
    """Raise CelebflowError when `dvc repro` would run a stage: DVC would keep what is there as that stage's result."""
    try:
        changed = json.loads(_run_dvc("status", "--json"))
    except ValueError as error:
        raise CelebflowError(f"`dvc status` cannot be read ({error}). Run it to see why.") from None
    if changed:
        raise CelebflowError(
            f"{paths.LOCK} does not match the workspace ({', '.join(changed)}): the experiment that keeps a "
            "cross-validation also keeps the workspace's result. Run `dvc repro` first; `dvc status` says what changed."
        )


def _choose_name(name: str | None) -> str:
    """Return the name, or without one the first that is free; raise CelebflowError when it is not valid or taken."""
    if name is None:
        numbered = (f"{_NAME}-{number}" for number in count(2))
        return next(each for each in chain([_NAME], numbered) if not has_experiment(each))
    require_experiment_name(name)
    if has_experiment(name):
        raise CelebflowError(f"There is an experiment {name}. Choose another --name, or run `dvc exp remove {name}`.")
    return name


def _run_dvc(*arguments: str) -> str:
    """Run a command of DVC, and return what it printed; raise CelebflowError with the end of that when it fails.

    Ctrl-C does not reach it: DVC would leave the repository halfway between two commits.
    """
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "dvc", *arguments],
        env=list_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, messages = process.communicate()
    except BaseException:
        process.communicate()
        raise
    if process.returncode:
        end = "\n".join((output + messages).strip().splitlines()[-15:])
        raise CelebflowError(f"`dvc {' '.join(arguments)}` failed:\n{end}")
    return output
