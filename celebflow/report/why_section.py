"""What explains a result, and was measured on request: what its page shows of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation.advice import Measured
from celebflow.evaluation.evidence import Evidence, EvidenceSummary
from celebflow.evaluation.person_sheets import FaultEffect, PersonSheet
from celebflow.report.suspects_page import ShownSuspect

_MAX_OCCLUSIONS = 24


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What the network sees of a photograph, with the face hidden and with all else hidden, each (side, side, 3)."""

    evidence: Evidence
    original: NDArray[np.uint8]
    without_face: NDArray[np.uint8]
    face_alone: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Why:
    """What explains a result: suspects, a learning curve, where the evidence lies, and what makes people hard.

    The learning curve, a PNG file, and the evidence are None where
    they cannot be measured.
    """

    measured: Measured
    suspects: Sequence[ShownSuspect]
    learning_curve: bytes | None
    occlusions: Sequence[Occlusion]
    effects: Sequence[FaultEffect]
    sheets: Sequence[PersonSheet]

    @property
    def evidence(self) -> EvidenceSummary | None:
        """Return where the evidence lies on average."""
        return self.measured.evidence

    @property
    def shown_occlusions(self) -> list[Occlusion]:
        """Return the first occlusions, those first that are predicted correctly without the face."""

        def rank(occlusion: Occlusion) -> tuple[bool, float]:
            evidence = occlusion.evidence
            return evidence.without_face != evidence.actual, -evidence.outside_fraction

        return sorted(self.occlusions, key=rank)[:_MAX_OCCLUSIONS]
