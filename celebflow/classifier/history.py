"""The epochs of a training, and history.csv."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from celebflow.tables import load_rows, save_rows


@dataclass(frozen=True)
class EpochResult:
    """One epoch: mean loss and accuracy. Those of `train` are measured while it learns, with Dropout at work."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


def save_history(history: Iterable[EpochResult], path: Path) -> None:
    """Write history.csv, one row an epoch."""
    save_rows(EpochResult, history, path)


def load_history(path: Path) -> list[EpochResult]:
    """Read what save_history wrote."""
    return load_rows(EpochResult, path)
