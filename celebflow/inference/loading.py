"""A folder with a trained model → the model in it, whatever task it was trained for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from celebflow.classifier.cards import ATTRIBUTES, CLASSIFIER, NetworkCard, VerifierCard, find_kind, refuse_kind
from celebflow.errors import CelebflowError
from celebflow.inference.extractor import find_model_files
from celebflow.inference.face_predictor import FacePredictor
from celebflow.inference.predictor import Predictor
from celebflow.params import TaskName
from celebflow.tasks import load_step


class Model(Protocol):
    """A trained model with its backbone, ready for photographs; `tasks` says by its task what is done with it."""

    task: ClassVar[TaskName]

    @property
    def card(self) -> NetworkCard | VerifierCard:
        """Return what was saved with the model."""
        ...


def load_model(folder: Path) -> Model:
    """Load the model in a folder, as find_model_files finds it; raise CelebflowError when it holds none."""
    file, _ = find_model_files(folder)
    load: Callable[[Path], Model] = load_step(find_kind(file).task, "model")
    return load(folder)


def load_predictors(folders: Sequence[Path]) -> list[FacePredictor[Any, Any]]:
    """Load the models in folders, each of another task, which predict photographs one by one; enrolled people count.

    Raises CelebflowError when a folder holds no such model, or two models are of the same task.
    """
    folder_of: dict[TaskName, Path] = {}
    for folder in folders:
        file, _ = find_model_files(folder)
        kind = find_kind(file)
        if kind not in (CLASSIFIER, ATTRIBUTES):
            raise refuse_kind(file, kind, [CLASSIFIER, ATTRIBUTES])
        if kind.task in folder_of:
            raise CelebflowError(
                f"{file} was trained with the task {kind.task}, as the model before it. Models that predict together "
                "need different tasks: leave one of the two out."
            )
        folder_of[kind.task] = folder
    predictors: list[FacePredictor[Any, Any]] = []
    for task, folder in folder_of.items():
        predictor = load_step(task, "model")(folder)
        predictors.append(predictor.with_enrolled() if isinstance(predictor, Predictor) else predictor)
    return predictors
