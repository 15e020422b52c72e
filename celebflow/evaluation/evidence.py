"""Where in photographs the evidence lies: in the face, or around it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from celebflow.data.tables import save_rows
from celebflow.evaluation.metrics import compute_wilson_interval
from celebflow.evaluation.significance import Interval

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
    """What holds on average for `count` photographs of val: fractions, and accuracies with Wilson's 95% intervals.

    `chance` is the accuracy of a guess.
    """

    count: int
    chance: float
    face_fraction: float
    outside_fraction: float
    accuracy: float
    accuracy_without_face: float
    interval_without_face: Interval
    accuracy_of_face_alone: float
    interval_of_face_alone: Interval

    @property
    def reads_surroundings(self) -> bool:
        """Tell whether photographs are recognized without the face, clearly more often than by chance."""
        enough = self.accuracy_without_face >= _LEAST_ACCURACY
        return enough and self.interval_without_face.low > _TIMES_CHANCE * self.chance


def summarize_evidence(evidence: Sequence[Evidence], people_count: int) -> EvidenceSummary:
    """Summarize the evidence of some photographs, one at least, among so many people."""
    hits_without = sum(each.without_face == each.actual for each in evidence)
    hits_alone = sum(each.face_alone == each.actual for each in evidence)
    count = len(evidence)
    return EvidenceSummary(
        count=count,
        chance=1 / people_count,
        face_fraction=float(np.mean([each.face_fraction for each in evidence])),
        outside_fraction=float(np.mean([each.outside_fraction for each in evidence])),
        accuracy=float(np.mean([each.predicted == each.actual for each in evidence])),
        accuracy_without_face=hits_without / count,
        interval_without_face=Interval(*compute_wilson_interval(hits_without, count)),
        accuracy_of_face_alone=hits_alone / count,
        interval_of_face_alone=Interval(*compute_wilson_interval(hits_alone, count)),
    )


def save_evidence(evidence: Iterable[Evidence], path: Path) -> None:
    """Write evidence.csv, one row per photograph."""
    save_rows(Evidence, evidence, path)
