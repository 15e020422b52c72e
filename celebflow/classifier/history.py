"""The epochs of a training, as train writes them to history.csv and plot reads them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError


@dataclass(frozen=True)
class EpochResult:
    """Mean loss and accuracy of one epoch; those of train are measured during training, with Dropout."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


def save_history(history: Iterable[EpochResult], path: Path) -> None:
    """Write history.csv, one row per epoch."""
    save_rows(EpochResult, history, path)


def load_history(path: Path) -> list[EpochResult]:
    """Read what save_history wrote; raise CelebflowError when a column is missing, or there is no epoch."""
    history = load_rows(EpochResult, path)
    if not history:
        raise CelebflowError(f"{path} has no epoch. Run `dvc repro` to make it again.")
    return history
