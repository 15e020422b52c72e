"""A folder with a trained model → the model, whatever task it was trained for."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

from celebflow.classifier.model import ClassifierCard
from celebflow.classifier.model_files import find_task
from celebflow.classifier.verifier import VerifierCard
from celebflow.inference.extractor import find_model_files
from celebflow.params import TaskName
from celebflow.tasks import load_step


class Model(Protocol):
    """A trained model with its backbone, ready for photographs; `tasks` says by its task what is done with it."""

    task: ClassVar[TaskName]

    @property
    def card(self) -> ClassifierCard | VerifierCard:
        """Return what was saved with the model."""
        ...


def load_model(folder: Path) -> Model:
    """Load the model in a folder, as find_model_files finds it; raise CelebflowError when it holds none."""
    file, _ = find_model_files(folder)
    load: Callable[[Path], Model] = load_step(find_task(file), "model")
    return load(folder)
