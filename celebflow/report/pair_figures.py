"""Results of verification → figures: scores, curves of errors, and sheets of the pairs that went wrong."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import ndtri

from celebflow.classifier.pair_calibration import format_probability
from celebflow.evaluation.pair_metrics import FALSE_MATCH_RATES, Rates, trace_rates
from celebflow.evaluation.pair_results import DIFFERENT, FOLDS, SAME, PairPrediction, PairReport, VerificationReport
from celebflow.report.contact_sheets import Tile, draw_contact_sheet
from celebflow.report.figures import draw_history, draw_recall_by_person, draw_reliability
from celebflow.report.style import BLUE, GRAY, ORANGE, new_figure, spell

_MAX_PAIRS = 24
_BINS = 60
_SHOWN_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # marks of the axes of a DET curve
# The contact sheets: name, kind of the pairs, what the model said, and the title.
SHEETS = (
    ("false_matches", DIFFERENT, "False matches: two people taken for one"),
    ("false_non_matches", SAME, "False non-matches: one person taken for two"),
)


def draw_pair_charts(report: VerificationReport, warning: str) -> dict[str, Figure]:
    """Draw every figure of a result that shows numbers; the keys are the names of their files."""
    figures = {
        "accuracy": draw_history(report.history, "accuracy", "Accuracy", 1.03, warning),
        "loss": draw_history(report.history, "loss", "Loss (cross-entropy)", None, warning),
    }
    for split, pairs in report.splits.items():
        rates = trace_rates(pairs.log_odds, pairs.same)
        name = name_split(split)
        figures |= {
            f"{split}_scores": draw_scores(pairs, name, warning),
            f"{split}_match_roc": draw_match_roc(rates, name, warning),
            f"{split}_det": draw_det(rates, name, warning),
            f"{split}_reliability": draw_reliability({"calibrated": pairs.reliability}, name, warning, "Pairs"),
        }
        if split != FOLDS:
            figures[f"{split}_recall_by_person"] = draw_recall_by_person(
                pairs.people, split, warning, "pairs of the person"
            )
    return figures


def name_split(split: str) -> str:
    """Return what titles call a split."""
    return "all folds" if split == FOLDS else split


def draw_scores(pairs: PairReport, split: str, warning: str) -> Figure:
    """Draw the distributions of the log odds of both kinds of pairs, and the threshold between the two answers."""
    figure, axes = new_figure(6.4, 4.2, warning)
    log_odds, same = pairs.log_odds, pairs.same
    low, high = np.percentile(log_odds, [0.5, 99.5]).tolist()  # a few far ones would flatten the rest
    if low == high:  # all scores but a few are equal
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    shown = np.clip(log_odds, edges[0], edges[-1])
    for kind, label, color in ((~same, "two people", ORANGE), (same, "the same person", BLUE)):
        wrong = (log_odds[kind] >= 0) != (label != "two people")
        text = f"{label}: {kind.sum():,} pairs, {wrong.mean():.1%} on the wrong side"
        axes.hist(shown[kind], edges.tolist(), density=True, color=color, alpha=0.6, label=text)
    axes.axvline(0, color="black", linewidth=1, linestyle="--", label="threshold: equally likely")
    axes.set(title=f"Scores of pairs, {split}", xlabel="Log odds of the same person", ylabel="Density")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def draw_match_roc(rates: Rates, split: str, warning: str) -> Figure:
    """Draw the true match rate by the false match rate, on a logarithmic axis: what matters is at its left end."""
    figure, axes = new_figure(6.4, 4.6, warning)
    false_matches, true_matches = rates.false_matches[0], rates.true_matches[0]
    least = 10 ** np.floor(np.log10(np.clip(np.min(false_matches[false_matches > 0]), 1e-6, 0.1)))
    label = f"AUC {rates.compute_auc()[0]:.4f}, equal error rate {rates.compute_equal_error_rate()[0]:.2%}"
    axes.plot(np.maximum(false_matches, least), true_matches, color=BLUE, drawstyle="steps-post", label=label)
    for rate in FALSE_MATCH_RATES.values():
        found = rates.find_true_match_rate(rate)[0]
        axes.plot(rate, found, color=ORANGE, marker="o", linestyle="", label=f"{found:.1%} at {rate:.1%}")
    axes.set_xscale("log")
    axes.set(title=f"True and false match rates, {split}", xlim=(least, 1), ylim=(0, 1.02))
    axes.set(xlabel="False match rate (FMR)", ylabel="True match rate (1 − FNMR)")
    axes.xaxis.set_major_formatter(lambda rate, _: f"{100 * rate:g}%")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def draw_det(rates: Rates, split: str, warning: str) -> Figure:
    """Draw the detection error tradeoff (Martin et al., 1997): both errors on the scale of normal deviates."""
    figure, axes = new_figure(5.2, 5.0, warning)
    low, high = _SHOWN_RATES[0] / 2, 0.5
    false_matches, false_non_matches = (
        np.clip(each, low, high) for each in (rates.false_matches[0], 1 - rates.true_matches[0])
    )
    axes.plot(ndtri(false_matches), ndtri(false_non_matches), color=BLUE)
    equal = float(rates.compute_equal_error_rate()[0])
    axes.plot(ndtri([low, high]), ndtri([low, high]), color=GRAY, linewidth=0.8, linestyle=":")
    if low < equal < high:
        axes.plot(ndtri(equal), ndtri(equal), color=ORANGE, marker="o", linestyle="", label=f"equal: {equal:.2%}")
        axes.legend(loc="upper right", fontsize=8)
    labels = [f"{rate:.1%}" if rate < 0.01 else f"{rate:.0%}" for rate in _SHOWN_RATES]
    axes.set_xticks(ndtri(_SHOWN_RATES), labels, fontsize=7, rotation=45)
    axes.set_yticks(ndtri(_SHOWN_RATES), labels, fontsize=7)
    axes.set(title=f"Detection error tradeoff, {split}", xlim=ndtri([low, high]), ylim=ndtri([low, high]))
    axes.set(xlabel="False match rate (FMR)", ylabel="False non-match rate (FNMR)")
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    return figure


def draw_sheets(
    report: VerificationReport, load: Callable[[str], NDArray[np.uint8]], warning: str
) -> dict[str, Figure]:
    """Draw the pairs with the worst errors of each kind; `load` returns what the network saw of a photograph.

    There is no figure of the errors that a split does not have.
    """
    figures = {}
    for split, pairs in report.splits.items():
        for name, kind, title in SHEETS:
            errors = pairs.list_errors(kind)
            if not errors:
                continue
            tiles = [Tile(load_pair(error, load), caption_pair(error), ORANGE) for error in errors[:_MAX_PAIRS]]
            shown = f"{title}, {name_split(split)}: {len(tiles)} of {len(errors)}, most confident first"
            figures[f"{split}_{name}"] = draw_contact_sheet(shown, [("", tiles)], warning)
    return figures


def load_pair(prediction: PairPrediction, load: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return both photographs of a pair side by side, (side, 2 · side, 3)."""
    return np.concatenate([load(prediction.first), load(prediction.second)], axis=1)


def caption_pair(prediction: PairPrediction) -> str:
    """Return who is in a pair, and how likely the model took both for the same person."""
    people = [spell(path.split("/")[0]) for path in (prediction.first, prediction.second)]
    named = people[0] if prediction.actual == SAME else " / ".join(people)
    return f"{named}\nsame person: {format_probability(prediction.log_odds)}"


def list_pair_examples(report: VerificationReport, max_count: int) -> Mapping[str, Sequence[PairPrediction]]:
    """Return for each split the worst errors of both kinds, the most confident first."""
    chosen = {}
    for split, pairs in report.splits.items():
        errors = [error for _, kind, _ in SHEETS for error in pairs.list_errors(kind)[:max_count]]
        chosen[split] = sorted(errors, key=lambda each: -abs(each.log_odds))
    return chosen
