"""The files of trained models: safetensors, each with a card that holds all that prediction needs."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from celebflow.backbone.state_dicts import list_not_finite, save_tensors
from celebflow.errors import CelebflowError, raise_shortage
from celebflow.params import TaskName

Card = TypeVar("Card")


@dataclass(frozen=True)
class ModelKind:
    """A kind of model: its name and task, the key of its card in a file's metadata, and the command that uses it.

    `work` says what it does, in a sentence that begins with the file's path.
    """

    name: str
    task: TaskName
    key: str
    work: str
    command: str


CLASSIFIER = ModelKind(
    "classifier",
    "recognition",
    "celebflow",
    "recognizes people",
    "celebflow predict",
)
VERIFIER = ModelKind(
    "verifier",
    "verification",
    "celebflow_verifier",
    "compares photographs",
    "celebflow verify",
)
ATTRIBUTES = ModelKind(
    "model of attributes",
    "attributes",
    "celebflow_attributes",
    "predicts attributes",
    "celebflow predict",
)
_KINDS = (CLASSIFIER, VERIFIER, ATTRIBUTES)


def save_model(state: Mapping[str, Tensor], card: Mapping[str, object], kind: ModelKind, path: Path) -> None:
    """Write a model's tensors and card, the same bytes for the same values."""
    # One key, since safetensors writes several in no fixed order.
    save_tensors(state, path, {kind.key: json.dumps(card, sort_keys=True, allow_nan=False)})


def read_card(path: Path, kind: ModelKind, version: int, make: Callable[[Mapping[str, Any]], Card]) -> Card:
    """Read the card of a model, without its tensors, and return what `make` makes of it.

    Raises CelebflowError when the file has no card, is a model of another kind or version, or `make` cannot use it.
    """
    try:
        metadata = _read_metadata(path)
        for other in _KINDS:
            if other is not kind and other.key in metadata:
                raise refuse_kind(path, other, [kind])
        values = json.loads(metadata[kind.key])
        if values.get("format") != version:
            raise CelebflowError(
                f"{path} was saved by another version of celebflow, in a format that this one does not read. "
                "Run `dvc repro` to train it again."
            )
        return make(values)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise_shortage(error, path)
        raise CelebflowError(f"{path} is not a {kind.name} that celebflow saved ({error}). Run `dvc repro`.") from None


def refuse_kind(path: Path, found: ModelKind, needed: Sequence[ModelKind]) -> CelebflowError:
    """Return the error that a file holds a model of another kind than is needed here."""
    names = " or ".join(f"a {kind.name}" for kind in needed)
    tasks = " or ".join(kind.task for kind in needed)
    return CelebflowError(
        f"{path} {found.work}: it was trained with the task {found.task}, and this needs {names}. Use "
        f"`{found.command}`, choose another model, or set task to {tasks} in params.yaml and run `dvc repro`."
    )


@contextmanager
def explain_mismatch(path: Path) -> Iterator[None]:
    """Turn what is raised for tensors that do not fit the card of the model in a file into a CelebflowError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise_shortage(error, path)
        raise CelebflowError(f"The weights in {path} do not match its card ({error}). Run `dvc repro`.") from None


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CelebflowError when a tensor of the model in a file is not finite."""
    if names := list_not_finite(tensors):
        raise CelebflowError(
            f"{path} holds values that are not finite ({', '.join(names)}): its training diverged. Lower "
            "train.learning_rate and run `dvc repro`, or choose another model."
        )


def find_kind(path: Path) -> ModelKind:
    """Return the kind of a model; raise CelebflowError when the file is not a model."""
    try:
        metadata = _read_metadata(path)
    except (OSError, SafetensorError) as error:
        raise_shortage(error, path)
        raise CelebflowError(f"{path} is not a model that celebflow saved ({error}). Run `dvc repro`.") from None
    for kind in _KINDS:
        if kind.key in metadata:
            return kind
    raise CelebflowError(f"{path} is not a model that celebflow saved (it has no card). Run `dvc repro`.")


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        path.open("rb").close()  # safetensors says of every file that cannot be opened that there is none
    except OSError as error:
        raise_shortage(error, path)
        raise CelebflowError(
            f"{path} cannot be read ({error.strerror}). Check that file, or run `dvc repro`."
        ) from None
    with safe_open(path, "pt") as file:
        return file.metadata() or {}
