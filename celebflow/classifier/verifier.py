"""Whether two photographs show the same person: the model, its calibration, and its file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.special import expit, log_expit

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.calibration import FloatArray, format_confidence
from celebflow.classifier.comparison_model import ComparisonSettings, Embedder, load_embedder
from celebflow.classifier.model_files import VERIFIER, explain_mismatch, read_card, require_finite, save_model
from celebflow.classifier.plda import TwoCovariances
from celebflow.features.transform import Transform
from celebflow.params import PreprocessingParams

# Increment it when the meaning of a saved file changes, so that files of earlier versions are refused.
_FORMAT = 3
Score = Literal["plda", "lda"]


@dataclass(frozen=True)
class PairCalibration:
    """What turns a score into the probability that both photographs show the same person; fitted on val.

    The probability is the logistic function of `slope` · score + `offset`, moved towards 0.5 until neither answer's
    exceeds `max_probability`; both answers are equally likely before the photographs are seen. A pair is the same
    person where it is at least 0.5. On val, the fraction `false_match_rate` of pairs of two people reached that, and
    the fraction `false_non_match_rate` of pairs of the same person did not.

    Raises ValueError when one of them is not a number that can be used so.
    """

    slope: float
    offset: float
    max_probability: float
    false_match_rate: float
    false_non_match_rate: float

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite, as a damaged file could hold."""
        if not (self.slope > 0 and 0.5 < self.max_probability <= 1 and np.isfinite(list(asdict(self).values())).all()):
            raise ValueError(f"{self} is not a valid calibration")

    def compute_log_odds(self, scores: NDArray[np.floating]) -> FloatArray:
        """Return the (N,) logarithms of the odds, which tell apart probabilities that round to 1."""
        log_odds: FloatArray = self.slope * np.asarray(scores, np.float64) + self.offset
        if self.max_probability == 1:
            return log_odds
        # In logarithms: a probability near 1 still differs from one that is nearer.
        least, factor = np.log(1 - self.max_probability), np.log(2 * self.max_probability - 1)
        of_same = np.logaddexp(least, factor + log_expit(log_odds))
        of_different = np.logaddexp(least, factor + log_expit(-log_odds))
        bounded: FloatArray = of_same - of_different
        return bounded


@dataclass(frozen=True)
class VerifierCard:
    """What a saved verifier needs to be used; inference never reads params.yaml.

    `people_count` is the number of people that it was trained on. `settings` are what it was trained with, so that
    evaluation can train in the same way on other people.
    """

    score: Score
    settings: ComparisonSettings
    people_count: int
    transform: Transform
    backbone: BackboneSource
    preprocessing: PreprocessingParams
    calibration: PairCalibration


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
        card = {
            **asdict(self.card),
            "transform": self.card.transform.to_dict(),
            "preprocessing": self.card.preprocessing.model_dump(),
            "format": _FORMAT,
        }
        save_model(self.embedder_state(), card, VERIFIER, path)


def score_pairs(first: FloatArray, second: FloatArray, model: TwoCovariances, kind: Score) -> FloatArray:
    """Return the (N,) scores of N pairs of (N, D) coordinates."""
    if kind == "plda":
        return model.score(first, second)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: FloatArray = (first * second).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return cosines


def compute_pair_loss(log_odds: FloatArray, same: NDArray[np.bool_]) -> float:
    """Return the mean cross-entropy of P pairs with these (P,) log odds."""
    return float(np.logaddexp(0, np.where(same, -log_odds, log_odds)).mean())


def format_probability(log_odds: float) -> str:
    """Write the probability of the same person in percent, with as many digits as tell it apart from 0 and 1."""
    return format_confidence(float(expit(log_odds)), (0.0, 100.0))


def load_verifier(path: Path) -> Verifier:
    """Load what Verifier.save wrote.

    Raises CelebflowError when the file is not a verifier that this version of celebflow can use.
    """
    card = load_card(path)
    with explain_mismatch(path):
        state = load_file(path)
        embedder = load_embedder(state, card.preprocessing, card.transform.feature_count)
    require_finite(state, path)
    return Verifier(embedder.preprocessor, embedder.model, card)


def load_card(path: Path) -> VerifierCard:
    """Read a saved verifier's card, without its weights.

    Raises CelebflowError when the file has no card, or another version of celebflow saved it.
    """
    return read_card(path, VERIFIER, _FORMAT, _make_card)


def _make_card(values: Mapping[str, Any]) -> VerifierCard:
    return VerifierCard(
        score=values["score"],
        settings=ComparisonSettings(**values["settings"]),
        people_count=values["people_count"],
        transform=Transform.from_dict(values["transform"]),
        backbone=BackboneSource(**values["backbone"]),
        preprocessing=PreprocessingParams(**values["preprocessing"]),
        calibration=PairCalibration(**values["calibration"]),
    )
