"""Predictions out of fold and the quality of photographs → what makes people hard to recognize; pure functions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation.quality import Quality
from celebflow.evaluation.significance import CONFIDENCE
from celebflow.evaluation.suspects import Suspect

if TYPE_CHECKING:
    from celebflow.classifier.out_of_fold import OutOfFold  # imports PyTorch

Fault = Literal["dark", "blurred", "small", "turned"]
_WORST = 0.1  # of all photographs have each fault
_OFTEN = 0.25  # of a person's photographs
_LEAST_FAULTY = 3  # of a person's photographs
_FEW = 0.5  # of the median number of photographs
_ALIKE = 0.1  # of the probability
_MAX_CONFUSED = 3


@dataclass(frozen=True)
class FaultEffect:
    """How often predictions are wrong among the photographs with most of a fault, a tenth of all, and among the others.

    `p_value` is that of Fisher's exact test that they are not wrong more often.
    """

    fault: Fault
    error_rate: float
    other_error_rate: float
    p_value: float

    @property
    def is_clear(self) -> bool:
        """Tell whether the fault clearly makes errors likelier."""
        return self.p_value < 1 - CONFIDENCE


@dataclass(frozen=True)
class PersonSheet:
    """A person's photographs, errors out of fold and suspects, whom they are taken for, and what may be the reasons.

    `taken_for` are the people who were predicted most often instead, each with how often.
    """

    person: str
    photograph_count: int
    error_count: int
    suspect_count: int
    taken_for: list[tuple[str, int]]
    reasons: list[str]


def find_faults(qualities: Sequence[Quality]) -> dict[Fault, NDArray[np.bool_]]:
    """Tell for each fault which of N photographs are among the tenth that has most of it, (N,).

    A fault that most photographs have alike, or that cannot be measured, is left out.
    """
    badness = {
        "dark": [-each.brightness for each in qualities],
        "blurred": [-each.sharpness for each in qualities],
        "small": [-each.size_px for each in qualities],
        "turned": [np.nan if each.turn is None else each.turn for each in qualities],
    }
    faults: dict[Fault, NDArray[np.bool_]] = {}
    for fault in get_args(Fault):
        values = np.array(badness[fault], np.float64)
        if np.isnan(values).all():
            continue
        limit = np.nanquantile(values, 1 - _WORST)
        faulty = values > limit  # nan never is
        if faulty.sum() >= _LEAST_FAULTY:
            faults[fault] = faulty
    return faults


def compare_faults(predicted: "OutOfFold", faults: dict[Fault, NDArray[np.bool_]]) -> list[FaultEffect]:
    """Compare how often predictions are wrong with and without each fault; the clearest first."""
    from scipy.stats import fisher_exact  # takes a second to import

    wrong = predicted.logits.argmax(axis=1) != predicted.labels
    effects = []
    for fault, faulty in faults.items():
        with_fault, without = wrong[faulty & predicted.judged], wrong[~faulty & predicted.judged]
        if not len(with_fault) or not len(without):
            continue
        table = [[int(each.sum()), int((~each).sum())] for each in (with_fault, without)]
        p_value = float(fisher_exact(table, alternative="greater").pvalue)
        effects.append(FaultEffect(fault, float(with_fault.mean()), float(without.mean()), p_value))
    return sorted(effects, key=lambda each: each.p_value)


def build_sheets(
    predicted: "OutOfFold", faults: dict[Fault, NDArray[np.bool_]], suspects: Sequence[Suspect]
) -> list[PersonSheet]:
    """Return a sheet of each person, those with the highest error rate first.

    Reasons are given for people with errors: few photographs, another person to whom much of the probability goes, and
    faults that many of their photographs have.
    """
    guesses = predicted.logits.argmax(axis=1)
    counts = np.bincount(predicted.labels, minlength=len(predicted.class_names))
    suspect_counts = Counter(each.person for each in suspects)
    sheets = []
    for label, name in enumerate(predicted.class_names):
        own = (predicted.labels == label) & predicted.judged
        wrong = own & (guesses != label)
        taken_for = Counter(predicted.class_names[guess] for guess in guesses[wrong]).most_common(_MAX_CONFUSED)
        reasons = _find_reasons(predicted, faults, label, own, counts) if wrong.any() else []
        sheets.append(PersonSheet(name, int(counts[label]), int(wrong.sum()), suspect_counts[name], taken_for, reasons))
    return sorted(sheets, key=lambda each: (-each.error_count / max(each.photograph_count, 1), each.person))


def _find_reasons(
    predicted: "OutOfFold",
    faults: dict[Fault, NDArray[np.bool_]],
    label: int,
    own: NDArray[np.bool_],
    counts: NDArray[np.int64],
) -> list[str]:
    reasons = []
    median = float(np.median(counts[counts > 0]))
    if counts[label] < _FEW * median:
        reasons.append(f"few photographs ({counts[label]}, where the median is {median:g})")
    mean = predicted.probabilities[own].mean(axis=0)
    mean[label] = 0
    if mean.max() >= _ALIKE:
        other = predicted.class_names[int(mean.argmax())]
        reasons.append(f"looks like {other} ({mean.max():.0%} of the probability)")
    for fault, faulty in faults.items():
        count = int((faulty & own).sum())
        if count >= _LEAST_FAULTY and count >= _OFTEN * own.sum():
            reasons.append(f"{count} of {own.sum()} are {fault}")
    return reasons
