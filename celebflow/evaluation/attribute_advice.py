"""A result of attributes → what to do next: few sentences, each computed, with its number and a command."""

from collections.abc import Mapping, Sequence

from celebflow.evaluation.advice import MAX_SENTENCES, NETWORKS, Advice, list_names
from celebflow.evaluation.attribute_groups import MIN_GROUP_SIZE, GroupAccuracy, list_worst_groups
from celebflow.evaluation.attribute_metrics import AttributeMetrics
from celebflow.evaluation.attribute_results import AttributeReport

_OVERFIT_GAP = 0.05  # of the mean accuracies of train and val, of which half lies above the interval of val
_FEW = 10  # labels of an answer in val
_CHANCE = 0.5  # the AUC of guesses


def advise_on_attributes(report: AttributeReport, params: Mapping[str, object]) -> list[Advice]:
    """Return at most five pieces of advice on a result of attributes, what is likely to help most first.

    `params` are flat. Only train and val count: test is for reporting. There is none where nothing is to say.
    """
    val = report.splits["val"]
    found = [
        _advise_on_overfitting(report, params),
        _advise_on_guesses(val.attributes),
        _advise_on_groups(val.groups),
        _advise_on_few(val.attributes),
    ]
    return [each for each in found if each is not None][:MAX_SENTENCES]


def _advise_on_overfitting(report: AttributeReport, params: Mapping[str, object]) -> Advice | None:
    """Advise on networks alone: regressions fit train closely, and are not better on val with a larger penalty."""
    train, val = report.history[-1].train_accuracy, report.history[-1].val_accuracy
    interval = report.splits["val"].intervals.get("accuracy")
    clear = interval is None or train - interval.high >= _OVERFIT_GAP / 2
    if params.get("train.classifier") not in NETWORKS or train - val < _OVERFIT_GAP or not clear:
        return None
    return Advice(
        f"The network overfits: it is right on {train:.1%} of the labels of train, and on {val:.1%} of those of val.",
        "Try ridge regression instead: `dvc exp run $(celebflow recipe attributes)`.",
    )


def _advise_on_guesses(attributes: Sequence[AttributeMetrics]) -> Advice | None:
    """Advise on attributes whose AUC may be that of guesses, though val has enough labels to tell."""
    guessed = [
        (each.auc, each)
        for each in attributes
        if each.auc is not None and each.auc_low is not None and each.auc_low <= _CHANCE and not _is_rare(each)
    ]
    if not guessed:
        return None
    worst_first = [each for _, each in sorted(guessed, key=lambda each: (each[0], each[1].attribute))]
    worst = worst_first[0]
    names = list_names([each.attribute for each in worst_first])
    return Advice(
        f"{len(guessed)} of {len(attributes)} attributes are not told better than by guessing: {names}. The AUC of "
        f"{worst.attribute} on val is {worst.auc:.2f} ({worst.auc_low:.2f} to {worst.auc_high:.2f}).",
        "Check their labels, `celebflow suspects`, or leave them out of data/attributes.csv.",
    )


def _advise_on_groups(groups: Sequence[GroupAccuracy]) -> Advice | None:
    worst = next(iter(list_worst_groups(groups, 1, MIN_GROUP_SIZE, "balanced_accuracy")), None)
    if worst is None:
        return None
    other = "no" if worst.value == "yes" else "yes"
    return Advice(
        f"{worst.attribute} works less where {worst.given} is {worst.value}: its balanced accuracy on val is "
        f"{worst.balanced_accuracy:.1%} there, and {worst.other_balanced_accuracy:.1%} where it is {other}.",
        f"Add photographs with both answers to {worst.attribute} in which {worst.given} is {worst.value}.",
    )


def _advise_on_few(attributes: Sequence[AttributeMetrics]) -> Advice | None:
    rare = [(min(each.yes, each.support - each.yes), each) for each in attributes if _is_rare(each)]
    if not rare:
        return None
    ranked = [each for _, each in sorted(rare, key=lambda each: (each[0], each[1].attribute))]
    counts = [f"{each.attribute} ({each.yes} yes, {each.support - each.yes} no)" for each in ranked]
    return Advice(
        f"Of {len(rare)} of {len(attributes)} attributes, val has fewer than {_FEW} labels of yes or of no, so figures "
        f"say little: {list_names(counts)}.",
        "Add photographs that have the rarer answer, or leave these attributes out of data/attributes.csv.",
    )


def _is_rare(attribute: AttributeMetrics) -> bool:
    return min(attribute.yes, attribute.support - attribute.yes) < _FEW
