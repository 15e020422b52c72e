"""The workspace's labels that may be wrong, whatever its task → a table, text and a page."""

from collections.abc import Sequence
from pathlib import Path

from celebflow import paths
from celebflow.data.given_tables import ATTRIBUTES_TABLE
from celebflow.errors import CelebflowError, list_some
from celebflow.evaluation.attribute_suspects import MANY_SUSPECTS
from celebflow.evaluation.suspects import LEAST_JUDGING_ACCURACY
from celebflow.experiments import attribute_suspects, suspect_labels
from celebflow.experiments.attribute_suspects import AttributeCheck
from celebflow.experiments.suspect_labels import LabelCheck
from celebflow.params import load_params

_DOUBTFUL = (
    "Predictions that are wrong this often suspect many labels that are right: a better recipe finds the wrong ones.\n"
)


def check_workspace(fold_count: int, page: Path) -> LabelCheck | AttributeCheck:
    """Find the workspace's suspects by its recipe, and write reports/suspects.csv and a page of them.

    Raises CelebflowError when there are no features, or the task has other labels than people and attributes.
    """
    task = load_params(paths.PARAMS).task
    if task == "attributes":
        return attribute_suspects.check_attributes(fold_count, page)
    if task == "recognition":
        return suspect_labels.check_labels(fold_count, page)
    raise CelebflowError(
        f"Suspect labels are found for the tasks recognition and attributes, and {paths.PARAMS} has {task}."
    )


def format_workspace(check: LabelCheck | AttributeCheck, max_suspects: int) -> str:
    """Return the surest suspects as text, at most `max_suspects`; -1 lists all."""
    if isinstance(check, AttributeCheck):
        return attribute_suspects.format_attribute_check(check, max_suspects)
    return suspect_labels.format_check(check, max_suspects)


def describe_next_step(check: LabelCheck | AttributeCheck) -> str:
    """Return what to do about the suspects, after what they are worth where many of them are probably right."""
    if isinstance(check, AttributeCheck):
        worth = _describe_disputed([each.attribute for each in check.attributes if each.is_disputed])
    else:
        worth = _DOUBTFUL if check.accuracy < LEAST_JUDGING_ACCURACY else ""
    return worth + _describe_remedy(check)


def _describe_disputed(attributes: Sequence[str]) -> str:
    if not attributes:
        return ""
    share = f"More than {MANY_SUSPECTS:.0%} of the labels of {list_some(attributes)} are suspect"
    return f"{share}: probably a matter of opinion rather than wrong. Begin with other attributes, if there are any.\n"


def _describe_remedy(check: LabelCheck | AttributeCheck) -> str:
    if isinstance(check, AttributeCheck) and (table := attribute_suspects.find_table()).name != ATTRIBUTES_TABLE:
        return f"Correct the wrong ones in {table}, then: dvc add data"  # a review cannot leave its labels blank
    return "Decide about each on a page: celebflow review"
