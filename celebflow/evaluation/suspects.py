"""Out-of-fold predictions → the photographs whose labels may be wrong."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray, softmax
from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError

if TYPE_CHECKING:
    from celebflow.classifier.out_of_fold import OutOfFold  # imports PyTorch

# A classifier that is wrong more often suspects too many right labels.
LEAST_JUDGING_ACCURACY = 0.9


@dataclass(frozen=True)
class Suspect:
    """A photograph whose label may be wrong: it is in the folder of `person`, and looks like `likelier`.

    Both probabilities are out of fold, and calibrated by the labels as they are. Of each of the two people, there is
    the path of the photograph that resembles this one most; it is empty where there is none to compare with.
    """

    path: str
    split: str
    sha256: str
    person: str
    likelier: str
    probability_of_person: float
    probability_of_likelier: float
    nearest_of_person: str = ""
    nearest_of_likelier: str = ""


def find_suspects(predicted: "OutOfFold", coordinates: FloatArray | None = None) -> list[Suspect]:
    """Return the suspects by confident learning (Northcutt et al., 2021), the surest first.

    A label is suspect where another person is more probable, and at least as probable as that person is on average
    among the photographs in their folder. Calibration, which takes wrong labels for errors, would blur this.
    `coordinates` (N, D) say which photographs resemble each other.
    """
    from celebflow.evaluation.neighbors import scale_to_unit_length  # imports PyTorch

    judged = np.flatnonzero(predicted.judged)
    labels, logits = predicted.labels[judged], predicted.logits[judged]
    probabilities = predicted.probabilities[judged]
    unit = None if coordinates is None else scale_to_unit_length(coordinates)
    suspects = []
    for position in rank_issues(labels, logits):
        row = judged[position]
        photo, given, likelier = predicted.photos[row], labels[position], int(probabilities[position].argmax())
        nearest = ["", ""]
        if unit is not None:
            nearest = [_find_nearest(predicted, unit, row, label) for label in (given, likelier)]
        names = predicted.class_names[given], predicted.class_names[likelier]
        of_both = float(probabilities[position, given]), float(probabilities[position, likelier])
        suspects.append(Suspect(photo.path, photo.split, photo.sha256, *names, *of_both, *nearest))
    return suspects


def rank_issues(labels: NDArray[np.int64], logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the positions of the suspects among (N,) labels, the least probable label first.

    The (N, people) logits of people without a label are left out: how probable they usually are is not known.
    """
    from cleanlab.filter import find_label_issues  # type: ignore[import-untyped] # takes a second to import

    present, labels = np.unique(labels, return_inverse=True)
    positions: NDArray[np.int64] = find_label_issues(
        labels,
        softmax(logits[:, present]),
        return_indices_ranked_by="self_confidence",
        filter_by="confident_learning",
        n_jobs=1,
    )
    return positions


def _find_nearest(predicted: "OutOfFold", unit: FloatArray, row: int, label: int) -> str:
    """Return the path of the photograph with a label that resembles that of a row most, near-duplicates left out."""
    group = predicted.photos[row].group
    others = [other for other in np.flatnonzero(predicted.labels == label) if predicted.photos[other].group != group]
    if not others:
        return ""
    return predicted.photos[others[int((unit[others] @ unit[row]).argmax())]].path


def save_suspects(suspects: Iterable[Suspect], path: Path) -> None:
    """Write suspects.csv, one row per suspect."""
    save_rows(Suspect, suspects, path)


def load_suspects(path: Path) -> list[Suspect]:
    """Read what save_suspects wrote; raise CelebflowError when there is no table, or it is damaged."""
    if not path.exists():
        raise CelebflowError(f"{path} is missing. Run `celebflow suspects` first.")
    try:
        return load_rows(Suspect, path)
    except CelebflowError as error:
        raise CelebflowError(str(error).replace("`dvc repro`", "`celebflow suspects`")) from None
