"""What to make of a search: its best trial against where it started."""

import shlex
from collections.abc import Mapping

from celebflow.evaluation.comparison import compare_predictions
from celebflow.experiments.comparison_text import summarize
from celebflow.experiments.lookup import find_predictions, find_predictions_of_params
from celebflow.experiments.recipes import list_arguments
from celebflow.experiments.results import WORKSPACE
from celebflow.experiments.search import SearchResult
from celebflow.tracking.git import has_experiment


def format_recommendation(result: SearchResult, fixed: Mapping[str, object]) -> str:
    """Return what the best trial is worth, and the command that brings it into the workspace.

    The best trial is compared with the result of the params that the search started from, in the workspace or in the
    commit of that time.
    """
    best = result.trials[0]
    if not has_experiment(best.name):
        arguments = shlex.join(list_arguments({**fixed, **best.values}))
        return f"The experiment {best.name} has been removed. Run it again: dvc exp run --name={best.name} {arguments}"
    count = sum(trial.metric is not None for trial in result.trials)
    return (
        f"{_compare_with_start(result)}\n"
        f"{best.name} was chosen on val as the best of {count}, so val flatters it, and so does a comparison on val. "
        "Once you have chosen, test says how good it is.\n"
        f"\nBring the best into the workspace: dvc exp apply {best.name}"
    )


def _compare_with_start(result: SearchResult) -> str:
    best = result.trials[0].name
    start = find_predictions_of_params(
        [WORKSPACE, result.start_commit], result.start_params, result.data_md5, split="val"
    )
    if start is None:
        return (
            f"Whether {best} is better than where the search started is unknown: neither the workspace nor the commit "
            f"{result.start_commit[:7]} has a result of those params and photographs. `dvc repro` makes one."
        )
    name, predictions = start
    compared = compare_predictions(predictions, find_predictions(best, "val"))
    return f"Where the search started (A) against its best (B):\n{summarize(name[:9], best, 'val', compared)}"
