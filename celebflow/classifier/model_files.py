"""The files of trained models: safetensors, each with a card that holds all else that prediction needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from celebflow.backbone.state_dicts import list_not_finite, save_tensors
from celebflow.classifier.cards import AttributeCard, ClassifierCard, ModelKind, VerifierCard, write_card
from celebflow.errors import CelebflowError, raise_shortage


def save_model(
    state: Mapping[str, Tensor], card: ClassifierCard | AttributeCard | VerifierCard, kind: ModelKind, path: Path
) -> None:
    """Write a model's tensors and card, the same bytes for the same values."""
    save_tensors(state, path, write_card(card, kind))


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
