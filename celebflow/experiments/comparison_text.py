"""The comparison of two results → text for the terminal."""

from collections.abc import Sequence

from tabulate import tabulate

from celebflow.evaluation.comparison import Change, PersonHits, ResultComparison
from celebflow.evaluation.cross_validation import FoldComparison


def format_comparison(
    a: str,
    b: str,
    split: str,
    compared: ResultComparison,
    max_photographs: int,
    of_folds: FoldComparison | None = None,
) -> str:
    """Return the comparison of results A and B, called `a` and `b`, as text.

    Each list of photographs has at most `max_photographs`; -1 lists all. Results of cross-validation are also compared
    fold by fold.
    """
    parts = [
        summarize(a, b, split, compared, of_folds),
        _format_people(compared.people, compared.unit),
        _format_changes("B alone is right", compared.fixed, max_photographs),
        _format_changes("A alone is right", compared.broken, max_photographs),
    ]
    return "\n\n".join(part for part in parts if part)


def summarize(a: str, b: str, split: str, compared: ResultComparison, of_folds: FoldComparison | None = None) -> str:
    """Return the sentences that say how results A and B, called `a` and `b`, differ, and whether by chance."""
    overall = compared.overall
    counts = f"{compared.count} {compared.unit} of {split} in both"
    missing = {"A": compared.missing_from_a, "B": compared.missing_from_b}
    counts += "".join(f", {count} missing from {name}" for name, count in missing.items() if count)
    if compared.changed_count:
        counts += f", {compared.changed_count} left out because their labels or photographs changed"
    by_fold = ""
    if of_folds is not None:
        by_fold = (
            f"The mean difference of {of_folds.fold_count} folds is {of_folds.difference:+.4f} (95 % interval "
            f"{of_folds.interval.low:+.4f} to {of_folds.interval.high:+.4f}): p = {of_folds.p_value:.2g}.\n"
        )
    return (
        f"A: {a}, B: {b}, {counts}.\n"
        f"Accuracy: A {compared.accuracy_a:.4f}, B {compared.accuracy_b:.4f}, difference {overall.difference:+.4f} "
        f"(95 % interval {overall.interval.low:+.4f} to {overall.interval.high:+.4f}).\n"
        f"Only A is right on {overall.only_a}, only B on {overall.only_b}: p = {overall.p_value:.2g}.\n"
        f"{by_fold}{compared.verdict(of_folds)}"
    )


def _format_people(people: Sequence[PersonHits], unit: str) -> str:
    """Return a table of the people whose hits differ, the largest gain first; `unit` is what their hits count."""
    rows = []
    for person in sorted(people, key=lambda person: (person.hits_a - person.hits_b, person.person)):
        change = person.hits_b - person.hits_a
        if change:
            rows.append([person.person, person.support, person.hits_a, person.hits_b, f"{change:+d}"])
    headers = ["person", unit, "A right", "B right", "change"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=[0, 4], colalign=["left"])) if rows else ""


def _format_changes(title: str, changes: Sequence[Change], max_photographs: int) -> str:
    if not changes:
        return ""
    shown = changes if max_photographs < 0 else changes[:max_photographs]
    rows = [[change.b.title, change.a.predicted, change.b.predicted] for change in shown]
    table = str(tabulate(rows, [title, "A says", "B says"], tablefmt="plain", disable_numparse=True))
    hidden_count = len(changes) - len(shown)
    return f"{table}\nand {hidden_count} more; --limit -1 lists all" if hidden_count else table
