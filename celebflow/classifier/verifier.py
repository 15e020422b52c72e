"""Whether two photographs show the same person: the model, and its file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.cards import VERIFIER, Score, VerifierCard, load_verifier_card
from celebflow.classifier.comparison_model import Embedder, load_embedder
from celebflow.classifier.model_files import explain_mismatch, require_finite, save_model
from celebflow.classifier.plda import TwoCovariances


@dataclass(frozen=True, eq=False)
class Verifier(Embedder):
    """Features of two photographs → a score, and the probability that they show the same person.

    A photograph's coordinates are the mean of its views', which the preprocessor projects to those of the
    two-covariance model, brought to one length. With "plda", a score is the log-likelihood ratio of that model; with
    "lda", it is the cosine of the coordinates.
    """

    card: VerifierCard

    def score(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Return the (N,) scores of N pairs of (N, D) coordinates."""
        return score_pairs(first, second, self.model, self.card.score)

    def save(self, path: Path) -> None:
        """Write weights and card to a safetensors file, the same bytes for the same values."""
        save_model(self.embedder_state(), self.card, VERIFIER, path)


def score_pairs(first: FloatArray, second: FloatArray, model: TwoCovariances, kind: Score) -> FloatArray:
    """Return the (N,) scores of N pairs of (N, D) coordinates."""
    if kind == "plda":
        return model.score(first, second)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: FloatArray = (first * second).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return cosines


def load_verifier(path: Path) -> Verifier:
    """Load what Verifier.save wrote.

    Raises CelebflowError when the file is not a verifier that this version of celebflow can use.
    """
    card = load_verifier_card(path)
    with explain_mismatch(path):
        state = load_file(path)
        embedder = load_embedder(state, card.preprocessing, card.transform.feature_count)
    require_finite(state, path)
    return Verifier(embedder.preprocessor, embedder.model, card)
