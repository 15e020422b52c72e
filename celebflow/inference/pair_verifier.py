"""Two photographs → whether they show the same person, with a trained verifier and its backbone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from PIL import Image
from scipy.special import expit

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.verifier import Verifier, load_verifier
from celebflow.inference.extractor import ExtractedFace, Extractor, find_model_files
from celebflow.params import TaskName

Answer = Literal["same", "different", "no face found"]


@dataclass(frozen=True)
class Verdict:
    """Whether two photographs show the same person.

    `probability` is that of the same person, with both answers equally likely before the photographs are seen, and
    `log_odds` are its log odds; both are None where no face was found.
    """

    answer: Answer
    probability: float | None
    log_odds: float | None


class PairVerifier:
    """A verifier with its backbone on the CPU, ready for photographs; its card holds all that it needs."""

    task: ClassVar[TaskName] = "verification"

    def __init__(self, verifier: Verifier, backbone_file: Path) -> None:
        self.card = verifier.card
        self.verifier = verifier
        self._extractor = Extractor(self.card.transform, self.card.backbone, backbone_file)
        self.backbone = self._extractor.backbone

    @classmethod
    def load(cls, folder: Path) -> "PairVerifier":
        """Load the model in a folder, as find_model_files finds it.

        Raises CelebflowError when the folder holds no verifier.
        """
        verifier, backbone = find_model_files(folder)
        return cls(load_verifier(verifier), backbone)

    @property
    def workers(self) -> int:
        """Return from how many threads at once `extract` is fastest."""
        return self._extractor.workers

    def extract(self, photograph: Image.Image, *, whole: bool = False) -> ExtractedFace | None:
        """Compute the features of the subject of an RGB photograph, or return None when no face is found in it."""
        return next(self._extractor.extract(photograph, 1, whole=whole), None)

    def embed_faces(self, faces: Sequence[ExtractedFace]) -> FloatArray:
        """Return the (N, D) coordinates of N faces, one at least."""
        return self.verifier.embed(self._extractor.stack_views(faces))

    def embed(self, photograph: Image.Image, *, whole: bool = False) -> FloatArray | None:
        """Return the (1, D) coordinates of the subject of an RGB photograph, or None when no face is found in it."""
        face = self.extract(photograph, whole=whole)
        return None if face is None else self.embed_faces([face])

    def compare(self, first: FloatArray | None, second: FloatArray | None) -> Verdict:
        """Compare the (1, D) coordinates of two photographs, each None when no face was found in it."""
        if first is None or second is None:
            return Verdict("no face found", None, None)
        log_odds = float(self.card.calibration.compute_log_odds(self.verifier.score(first, second))[0])
        return Verdict("same" if log_odds >= 0 else "different", float(expit(log_odds)), log_odds)
