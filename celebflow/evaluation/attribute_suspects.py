"""Out-of-fold predictions of attributes → the labels that may be wrong."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from celebflow.data.attributes import NO, YES
from celebflow.data.tables import load_rows, save_rows
from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_results import ANSWERS
from celebflow.evaluation.suspects import rank_issues

if TYPE_CHECKING:
    from celebflow.classifier.attribute_out_of_fold import AttributesOutOfFold  # imports PyTorch

MANY_SUSPECTS = 0.05  # of an attribute's labels


@dataclass(frozen=True)
class AttributeSuspect:
    """A label that may be wrong: it says `given` ("yes" or "no"), and the photograph looks like `likelier`.

    Both probabilities are out of fold, and calibrated by the labels as they are. `rank` counts from 1, the surest of
    the attribute. Of each of the two labels, there is the path of the photograph that has it and resembles this one
    most; it is empty where there is none, and for suspects that the page does not show.
    """

    path: str
    split: str
    sha256: str
    attribute: str
    given: str
    likelier: str
    probability_of_given: float
    probability_of_likelier: float
    rank: int
    nearest_of_given: str = ""
    nearest_of_likelier: str = ""


@dataclass(frozen=True)
class AttributeCount:
    """How many judged `labels` an attribute has, and how many of those of yes and of no are suspect."""

    attribute: str
    labels: int
    yes_suspects: int
    no_suspects: int

    @property
    def suspects(self) -> int:
        """Return how many labels are suspect."""
        return self.yes_suspects + self.no_suspects

    @property
    def is_disputed(self) -> bool:
        """Tell whether so many labels are suspect that they are probably a matter of opinion rather than wrong."""
        return self.suspects > MANY_SUSPECTS * self.labels


def find_attribute_suspects(predicted: "AttributesOutOfFold") -> list[AttributeSuspect]:
    """Return the suspects by confident learning (Northcutt et al., 2021) of each attribute, the surest first.

    A label is suspect where the other answer is more probable, and at least as probable as it is on average among the
    photographs that have that label. An attribute whose judged labels are all alike has none.
    """
    suspects = []
    for attribute, name in enumerate(predicted.names):
        judged = np.flatnonzero(predicted.judged[:, attribute])
        labels = predicted.labels[judged, attribute]
        if len(np.unique(labels)) < 2:
            continue
        log_odds = logit(predicted.probabilities[judged, attribute])
        of_both = np.stack([np.zeros_like(log_odds), log_odds], axis=1)  # (N, 2): of NO and YES
        for rank, position in enumerate(rank_issues(labels, of_both), 1):
            row, given = judged[position], int(labels[position])
            photo, yes = predicted.photos[row], float(predicted.probabilities[row, attribute])
            probability = yes if given == YES else 1 - yes
            answers = ANSWERS[given], ANSWERS[YES + NO - given]
            suspects.append(
                AttributeSuspect(
                    photo.path, photo.split, photo.sha256, name, *answers, probability, 1 - probability, rank
                )
            )
    return sorted(suspects, key=lambda suspect: suspect.probability_of_given)


def count_suspects(predicted: "AttributesOutOfFold", suspects: Sequence[AttributeSuspect]) -> list[AttributeCount]:
    """Return the counts of each attribute, in their order."""
    counts = Counter((suspect.attribute, suspect.given) for suspect in suspects)
    labels = predicted.judged.sum(axis=0).tolist()
    return [
        AttributeCount(name, count, counts[name, ANSWERS[YES]], counts[name, ANSWERS[NO]])
        for name, count in zip(predicted.names, labels, strict=True)
    ]


def save_attribute_suspects(suspects: Iterable[AttributeSuspect], path: Path) -> None:
    """Write suspects.csv, one row per suspect."""
    save_rows(AttributeSuspect, suspects, path)


def load_attribute_suspects(path: Path) -> list[AttributeSuspect]:
    """Read what save_attribute_suspects wrote; raise CelebflowError when there is no such table, or it is damaged."""
    if not path.exists():
        raise CelebflowError(f"{path} is missing. Run `celebflow suspects` first.")
    try:
        return load_rows(AttributeSuspect, path)
    except CelebflowError as error:  # also the table of recognition
        raise CelebflowError(str(error).replace("`dvc repro`", "`celebflow suspects`")) from None


def find_nearest_labeled(
    suspects: Sequence[AttributeSuspect],
    predicted: "AttributesOutOfFold",
    rows: NDArray[np.int64],
    similarities: NDArray[np.floating],
) -> list[dict[str, str]]:
    """Return for each suspect the path of the photograph that resembles it most, by the label it has: yes or no.

    `similarities` (M, M) are those of the photographs in `rows` (M,), among which are the suspects'. Compared are
    photographs of train, but not near-duplicates of the suspect, nor those whose own label is suspect. Where there is
    none with a label, it is left out.
    """
    position_of = {predicted.photos[row].path: position for position, row in enumerate(rows)}
    groups = np.array([predicted.photos[row].group for row in rows])
    in_train = np.array([predicted.photos[row].split == "train" for row in rows])
    doubted: dict[str, list[int]] = {}
    for each in suspects:
        doubted.setdefault(each.attribute, []).append(position_of[each.path])
    found = []
    for each in suspects:
        own = position_of[each.path]
        compared = in_train & (groups != groups[own])
        compared[doubted[each.attribute]] = False
        labels = predicted.labels[rows, predicted.names.index(each.attribute)]
        nearest = {}
        for answer in (YES, NO):
            candidates = np.flatnonzero(compared & (labels == answer))
            if len(candidates):
                best = candidates[int(similarities[own, candidates].argmax())]
                nearest[ANSWERS[answer]] = predicted.photos[rows[best]].path
        found.append(nearest)
    return found
