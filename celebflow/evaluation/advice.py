"""A result of recognition → what to do next: few sentences, each computed, with its number and a command."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from scipy.special import bdtrc, pdtrc

from celebflow.classifier.calibration import FloatArray
from celebflow.data.photos import Photo
from celebflow.evaluation.evidence import EvidenceSummary
from celebflow.evaluation.learning_curve import Forecast
from celebflow.evaluation.metrics import PersonMetrics
from celebflow.evaluation.results import Prediction, Report, SplitReport
from celebflow.evaluation.significance import CONFIDENCE, Interval
from celebflow.evaluation.suspects import LEAST_JUDGING_ACCURACY, Suspect

MAX_SENTENCES = 5
_MAX_NAMES = 3
_OVERFIT_GAP = 0.1  # of the accuracies of train and val, of which half lies above the interval of val
_LEAST_CONFUSED = 3  # errors between two people
_LEAST_RATIO = 3.0  # of the most and the fewest photographs of a person
_LEAST_PEOPLE = 6  # so that a permutation of them can be significant
_LEAST_LOSS = 0.1  # of recall, by few photographs
_PERMUTATIONS = 2000
_MAX_HALF_WIDTH = 0.05  # of the interval of val's accuracy
_LEAST_GAIN = 0.003  # the low end of what twice as many photographs bring
_LEAST_PROBABILITY = 0.5  # of the person whom a suspect more likely shows
NETWORKS = ("mlp", "linear")


@dataclass(frozen=True)
class Advice:
    """What a result shows, with its number, and what to do about it, with commands in backticks."""

    finding: str
    remedy: str

    def __str__(self) -> str:
        """Return both as text for a terminal."""
        return f"{self.finding} {self.remedy}"


@dataclass(frozen=True)
class Measured:
    """What is measured only on request; without it, advice is silent about it.

    `alternative_accuracy` is that of discriminants on the same features of train, on val. `suspects` are among
    `photograph_count`, of which `accuracy` is the fraction that is predicted correctly out of fold. `gains` say by how
    much each person's recall rose from half of the photographs to all.
    """

    alternative_accuracy: float | None = None
    suspects: Sequence[Suspect] = ()
    photograph_count: int = 0
    accuracy: float = 0.0
    forecast: Forecast | None = None
    gains: Mapping[str, float] = field(default_factory=dict)
    evidence: EvidenceSummary | None = None

    @property
    def judges_labels(self) -> bool:
        """Tell whether suspects are worth a look: a classifier that is often wrong suspects right labels."""
        return self.accuracy >= LEAST_JUDGING_ACCURACY


def advise(
    report: Report, photos: Sequence[Photo], params: Mapping[str, object], measured: Measured | None = None
) -> list[Advice]:
    """Return at most five pieces of advice on a result of recognition, what is likely to help most first.

    `params` are flat. Only train and val count: test is for reporting. There is none where nothing is to say.
    """
    measured = measured or Measured()
    val = report.splits["val"]
    in_train = Counter(photo.person for photo in photos if photo.split == "train")
    found = [
        _advise_on_overfitting(report, params, measured.alternative_accuracy),
        _advise_on_evidence(measured.evidence, params),
        _advise_on_suspects(measured),
        _advise_on_growth(measured),
        _advise_on_imbalance(val.people, in_train, params),
        _advise_on_pair(val.predictions, len(val.people)),
        _advise_on_val(report.splits["val"]),
    ]
    return [each for each in found if each is not None][:MAX_SENTENCES]


def is_overfit_network(report: Report, classifier: object) -> bool:
    """Tell whether a classifier is a network that overfits; `classifier` is the value of train.classifier."""
    return classifier in NETWORKS and _is_overfit(report)


def _is_overfit(report: Report) -> bool:
    """Tell whether accuracy is clearly lower on val than on train."""
    train, val = report.history[-1].train_accuracy, report.metrics["val"]["accuracy"]
    interval = report.splits["val"].intervals.get("accuracy")
    return train - val >= _OVERFIT_GAP and (interval is None or train - interval.high >= _OVERFIT_GAP / 2)


def _advise_on_overfitting(
    report: Report, params: Mapping[str, object], alternative_accuracy: float | None
) -> Advice | None:
    if not _is_overfit(report):
        return None
    train, val = report.history[-1].train_accuracy, report.metrics["val"]["accuracy"]
    finding = f"The classifier overfits: it is right on {train:.1%} of train, and on {val:.1%} of val."
    if params.get("train.classifier") not in NETWORKS:
        space = "lda_shrinkage=0.05..0.9" if params.get("train.classifier") == "lda" else "logistic_c=0.001..1"
        return Advice(finding, f"Regularize more: `celebflow search train.{space} --trials 10`.")
    remedy = "Try discriminants instead of a network: `dvc exp run $(celebflow recipe fast)`."
    if alternative_accuracy is not None:
        if alternative_accuracy <= val:
            return Advice(finding, "Discriminants on the same features are no better: add photographs.")
        remedy += (
            f" On the same features, they reach {alternative_accuracy:.1%} of val "
            f"({100 * (alternative_accuracy - val):+.1f} points)."
        )
    return Advice(finding, remedy)


def _advise_on_evidence(evidence: EvidenceSummary | None, params: Mapping[str, object]) -> Advice | None:
    if evidence is None or not evidence.reads_surroundings:
        return None
    hidden = evidence.recognized_without_face
    finding = (
        f"With the face hidden, the classifier still recognizes {hidden.value:.0%} of "
        f"{hidden.count} photographs ({evidence.chance:.0%} by chance): it reads hair, clothes or backgrounds."
    )
    if params.get("extract.face.crop") == "detect":
        return Advice(finding, "Show it less of them: `dvc exp run --set-param extract.face.margin=0`.")
    return Advice(finding, "Crop faces: `dvc exp run --set-param extract.face.crop=detect`.")


def _advise_on_suspects(measured: Measured) -> Advice | None:
    sure = [each for each in measured.suspects if each.probability_of_likelier >= _LEAST_PROBABILITY]
    if not sure or not measured.judges_labels:
        return None
    share = f"{len(measured.suspects)} of {measured.photograph_count} labels are suspect"
    return Advice(
        f"{share}: {sure[0].path} looks like {sure[0].likelier}.",
        "Look at each: `celebflow review`.",
    )


def _advise_on_growth(measured: Measured) -> Advice | None:
    forecast = measured.forecast
    if forecast is None or forecast.gain_interval.low < _LEAST_GAIN:
        return None
    gain, low, high = (100 * each for each in (forecast.gain, forecast.gain_interval.low, forecast.gain_interval.high))
    gained = sorted((each for each in measured.gains.items() if each[1] > 0), key=lambda each: (-each[1], each[0]))
    most = f", first of {list_names([name for name, _ in gained])}, who gained most so far" if gained else ""
    return Advice(
        f"Twice as many photographs would raise accuracy by about {gain:.1f} points ({low:.1f} to {high:.1f}).",
        f"Add photographs{most}.",
    )


def _advise_on_imbalance(
    people: Sequence[PersonMetrics], in_train: Mapping[str, int], params: Mapping[str, object]
) -> Advice | None:
    known = [(each.person, in_train[each.person], each.recall) for each in people if each.recall is not None]
    known = [each for each in known if each[1]]
    if len(known) < _LEAST_PEOPLE:
        return None
    counts = np.array([count for _, count, _ in known], np.float64)
    recalls = np.array([recall for _, _, recall in known], np.float64)
    few = counts < np.median(counts)
    if counts.max() < _LEAST_RATIO * counts.min() or not few.any():
        return None
    loss = float(recalls[~few].mean() - recalls[few].mean())
    if loss < _LEAST_LOSS or _test_association(np.log(counts), recalls) > 1 - CONFIDENCE:
        return None
    fewest = sorted((each for each in known if each[1] < np.median(counts)), key=lambda each: (each[2], each[0]))
    finding = (
        f"People with few photographs are recognized less: those with fewer than {np.median(counts):g} in train have "
        f"a recall of {recalls[few].mean():.1%} on val, the others {recalls[~few].mean():.1%}."
    )
    remedy = f"Add photographs of {list_names([name for name, _, _ in fewest])}."
    if params.get("train.classifier") in NETWORKS and params.get("train.class_weights") == "none":
        remedy += " Or weigh people alike: `dvc exp run --set-param train.class_weights=balanced`."
    return Advice(finding, remedy)


def _test_association(x: FloatArray, y: FloatArray) -> float:
    """Return the p value of a permutation test: how often (N,) y rise with (N,) x as much by chance."""
    random = np.random.default_rng(0)
    centered = x - x.mean()
    permuted = np.array([centered @ random.permutation(y) for _ in range(_PERMUTATIONS)])
    # Sums of equal terms in another order differ by rounding.
    return float((1 + (permuted >= centered @ y - 1e-9).sum()) / (1 + _PERMUTATIONS))


def _advise_on_pair(predictions: Sequence[Prediction], people_count: int) -> Advice | None:
    """Advise on the two people who are confused more often than if their errors went to everybody alike."""
    confused = Counter(frozenset((each.actual, each.predicted)) for each in predictions if not each.is_hit)
    errors = Counter(each.actual for each in predictions if not each.is_hit)
    supports = Counter(each.actual for each in predictions)
    if people_count < 3 or not confused:
        return None
    pair_count = len(list(combinations(range(people_count), 2)))
    ranked = []
    for pair, count in confused.items():
        expected = sum(errors[name] for name in pair) / (people_count - 1)
        ranked.append((float(pdtrc(count - 1, expected)), sorted(pair), count))
    p_value, (first, second), count = min(ranked)
    if count < _LEAST_CONFUSED or p_value * pair_count > 1 - CONFIDENCE:
        return None
    total = supports[first] + supports[second]
    return Advice(
        f"{first} and {second} are hard to tell apart: {count} of their {total} photographs in val are taken for "
        "the other one.",
        "Look at “Most confused pairs”, add photographs of both, and check their labels: `celebflow suspects`.",
    )


def _advise_on_val(val: SplitReport) -> Advice | None:
    finding = describe_small_val(val.intervals.get("accuracy"), f"{len(val.predictions)} photographs")
    remedy = "Choose between recipes by more photographs: `celebflow crossvalidate`."
    return Advice(finding, remedy) if finding else None


def describe_small_val(accuracy: Interval | None, what: str) -> str:
    """Return the finding that the interval of val's accuracy is wide; `what` says what val has."""
    if accuracy is None or (accuracy.high - accuracy.low) / 2 <= _MAX_HALF_WIDTH:
        return ""
    points = 50 * (accuracy.high - accuracy.low)
    return f"Val is small: with {what}, its accuracy is certain to ±{points:.0f} points."


def compute_excess_p_value(wrong: int, count: int, other_wrong: int, other_count: int) -> float:
    """Return the p value of so many errors among `count` answers, if they came at the rate of the others.

    That rate is taken as (errors + 1) / (count + 2), as Laplace's rule of succession has it, so that it is never 0.
    """
    return float(bdtrc(wrong - 1, count, (other_wrong + 1) / (other_count + 2))) if wrong else 1.0


def list_names(names: Sequence[str]) -> str:
    """Return the first names, as in "A, B and C"."""
    *others, last = names[:_MAX_NAMES]
    return f"{', '.join(others)} and {last}" if others else last
