"""The workspace's learning curve, whatever its task → a table, a figure and a forecast in words."""

from pathlib import Path

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments import attribute_learning, learning
from celebflow.experiments.attribute_learning import AttributeLearningReport
from celebflow.experiments.learning import LearningReport
from celebflow.params import load_params


def measure_workspace_curve(repetitions: int, figure: Path) -> LearningReport | AttributeLearningReport:
    """Train the workspace's recipe on parts of train; write reports/learning_curve.csv and a PNG file.

    Raises CelebflowError when there are no features or too few photographs, or the task compares photographs.
    """
    task = load_params(paths.PARAMS).task
    if task == "attributes":
        return attribute_learning.measure_attribute_learning_curve(repetitions, figure)
    if task == "recognition":
        return learning.measure_learning_curve(repetitions, figure)
    raise CelebflowError(
        f"Learning curves are for the tasks recognition and attributes, and {paths.PARAMS} has {task}."
    )


def format_workspace_curve(report: LearningReport | AttributeLearningReport) -> str:
    """Return the curve as text, with what more photographs would bring."""
    if isinstance(report, AttributeLearningReport):
        return attribute_learning.format_attribute_learning(report)
    return learning.format_learning(report)
