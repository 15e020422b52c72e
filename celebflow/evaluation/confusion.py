"""Who is predicted as whom, in a table that stays readable with many people."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.data.tables import save_table

_MAX_PLOTTED = 60  # names in a plot of DVC, where more would overlap


@dataclass(frozen=True)
class Confusion:
    """How many photographs of each name are predicted as which: (P, P) counts, by the actual, then the predicted name.

    Where there were too many people, the last name stands for `merged_count` others.
    """

    names: list[str]
    counts: NDArray[np.int64]
    merged_count: int


def count_confusions(
    pairs: Sequence[tuple[str, str]], class_names: Sequence[str], max_count: int, kept_count: int
) -> Confusion:
    """Count pairs of an actual and a predicted name; the names stay in their order.

    Of more than `max_count` names, `kept_count` stay: those with the most errors, as the actual or the predicted name.
    """
    index = {name: position for position, name in enumerate(class_names)}
    actual, predicted = np.array([(index[first], index[second]) for first, second in pairs], np.int64).T
    names = list(class_names)
    merged_count = 0
    if len(names) > max_count:
        kept = _find_most_confused(actual, predicted, len(names), kept_count)
        merged_count = len(names) - kept_count
        places = np.full(len(names), kept_count)
        places[kept] = np.arange(kept_count)
        actual, predicted = places[actual], places[predicted]
        names = [*(names[place] for place in kept), f"{merged_count} others"]
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (actual, predicted), 1)
    return Confusion(names, counts, merged_count)


def save_confusion(pairs: Sequence[tuple[str, str]], class_names: Sequence[str], path: Path) -> None:
    """Write a CSV file with a row for each count above 0, of sixty names at most; DVC plots draws it."""
    confusion = count_confusions(pairs, class_names, _MAX_PLOTTED, _MAX_PLOTTED - 1)
    cells = zip(*np.nonzero(confusion.counts), strict=True)
    names, counts = confusion.names, confusion.counts
    rows = [(names[row], names[column], int(counts[row, column])) for row, column in cells]
    save_table(path, ["actual", "predicted", "count"], rows)


def _find_most_confused(
    actual: NDArray[np.int64], predicted: NDArray[np.int64], name_count: int, kept_count: int
) -> NDArray[np.int64]:
    """Return the names with the most errors among N photographs, ascending."""
    wrong = actual != predicted
    errors = np.bincount(actual[wrong], minlength=name_count) + np.bincount(predicted[wrong], minlength=name_count)
    return np.sort(np.argsort(-errors, kind="stable")[:kept_count])
