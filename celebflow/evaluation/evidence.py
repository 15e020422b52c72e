"""Where in photographs the evidence lies: in the face, or around it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from celebflow.data.tables import save_rows
from celebflow.evaluation.metrics import Fraction, measure_fraction

_TIMES_CHANCE = 3.0  # above which hits with a hidden face are no chance
_LEAST_ACCURACY = 0.2


@dataclass(frozen=True)
class Evidence:
    """Where the evidence for a prediction lies, and what is predicted of parts of the photograph.

    `face_fraction` is how much of the picture that the network sees is the face, `outside_fraction` how much of the
    Grad-CAM map lies outside of it. `without_face` is what is predicted when the face is hidden, and `face_alone` when
    everything else is.
    """

    path: str
    actual: str
    predicted: str
    face_fraction: float
    outside_fraction: float
    without_face: str
    face_alone: str


@dataclass(frozen=True)
class EvidenceSummary:
    """What holds on average for photographs of val: fractions of the picture and of the map, and of those recognized.

    `chance` is the accuracy of a guess.
    """

    chance: float
    face_fraction: float
    outside_fraction: float
    recognized: Fraction
    recognized_without_face: Fraction
    recognized_by_face_alone: Fraction

    @property
    def reads_surroundings(self) -> bool:
        """Tell whether photographs are recognized without the face, clearly more often than by chance."""
        without_face = self.recognized_without_face
        return without_face.value >= _LEAST_ACCURACY and without_face.interval.low > _TIMES_CHANCE * self.chance


def summarize_evidence(evidence: Sequence[Evidence], people_count: int) -> EvidenceSummary:
    """Summarize the evidence of some photographs, one at least, among so many people."""
    count = len(evidence)
    return EvidenceSummary(
        chance=1 / people_count,
        face_fraction=float(np.mean([each.face_fraction for each in evidence])),
        outside_fraction=float(np.mean([each.outside_fraction for each in evidence])),
        recognized=measure_fraction(sum(each.predicted == each.actual for each in evidence), count),
        recognized_without_face=measure_fraction(sum(each.without_face == each.actual for each in evidence), count),
        recognized_by_face_alone=measure_fraction(sum(each.face_alone == each.actual for each in evidence), count),
    )


def save_evidence(evidence: Iterable[Evidence], path: Path) -> None:
    """Write evidence.csv, one row per photograph."""
    save_rows(Evidence, evidence, path)
