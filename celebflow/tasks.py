"""The tasks of params.yaml: what each of them does in each stage, as module:function."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from celebflow.params import TaskName

Step = Literal["split", "train", "evaluate", "publish"]


@dataclass(frozen=True)
class Task:
    """The functions of a task. They are named, not imported, so that a stage imports no more than it runs.

    `split` takes the checked photographs, the people, params.prepare and the folder of data; it returns a Split.
    `train` takes features, params.train, params.compute, checkpoints and a function that logs an epoch; it returns a
    model, which has a method `save`, and its history. `evaluate` takes the model's file, features, params.compute and
    the folder of reports; it writes a folder there for each split, and returns metrics by split. `publish` takes
    features, flat params, the resolution of the figures or None to keep those that are there, and perhaps a comparison;
    it draws the figures, and returns a page, which has a method `save`. `picture` names the figure that describes a
    result in MLflow.
    """

    split: str
    train: str
    evaluate: str
    publish: str
    picture: str


TASKS: dict[TaskName, Task] = {
    "recognition": Task(
        split="celebflow.data.splits:split_each_person",
        train="celebflow.classifier.training:train_classifier",
        evaluate="celebflow.evaluation.results:evaluate_classifier",
        publish="celebflow.report.publication:publish",
        picture="val_confusion_matrix",
    ),
    "verification": Task(
        split="celebflow.data.person_splits:split_people",
        train="celebflow.classifier.verifier_training:train_verifier",
        evaluate="celebflow.evaluation.pair_results:evaluate_verifier",
        publish="celebflow.report.pair_publication:publish_pairs",
        picture="val_scores",
    ),
}


def load_step(name: TaskName, step: Step) -> Callable[..., Any]:
    """Import the function of a task for a stage; Task describes its arguments."""
    module, _, function = getattr(TASKS[name], step).partition(":")
    loaded: Callable[..., Any] = getattr(import_module(module), function)
    return loaded
