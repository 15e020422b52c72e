"""Two results → what a page shows of their comparison, or a page of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation.comparison import Change, ResultComparison
from celebflow.evaluation.significance import CONFIDENCE
from celebflow.report import markup
from celebflow.report.formats import FIGURE_LABELS, FILTERS, format_percent
from celebflow.report.thumbnails import load_thumbnail

_MAX_CHANGES = 24
_PAGE = markup.Page("comparison.html.jinja", ("base.css", "report.css"), ("viewer.js",))


@dataclass(frozen=True, eq=False)
class ChangedPhotograph:
    """A photograph that only one of two results predicts rightly; `thumbnail` is None where it is not here."""

    change: Change
    thumbnail: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class ComparedResults:
    """Results A and B: their names, metrics by split, flat params, and one split photograph by photograph.

    `fixed` and `broken` may show only some of the photographs that `comparison` lists.
    """

    name_a: str
    name_b: str
    split: str
    metrics_a: Mapping[str, Mapping[str, float]]
    metrics_b: Mapping[str, Mapping[str, float]]
    params_a: Mapping[str, object]
    params_b: Mapping[str, object]
    comparison: ResultComparison
    fixed: Sequence[ChangedPhotograph]
    broken: Sequence[ChangedPhotograph]


def load_changes(changes: Sequence[Change], folder: Path) -> list[ChangedPhotograph]:
    """Load the thumbnails of the first changes from the photographs in `folder`, where they are there."""
    loaded = []
    for change in changes[:_MAX_CHANGES]:
        file = folder / change.b.path
        loaded.append(ChangedPhotograph(change, load_thumbnail(file) if file.is_file() else None))
    return loaded


def render_comparison(compared: ComparedResults) -> str:
    """Return a page of the comparison alone, as HTML: one file without a reference to any other."""
    html, _ = markup.render(_PAGE, "img-src data:", FILTERS, **describe_comparison(compared))
    return html


def describe_comparison(compared: ComparedResults) -> dict[str, object]:
    """Return what the template of a comparison needs."""
    names = dict.fromkeys([*FIGURE_LABELS, *(name for values in compared.metrics_b.values() for name in values)])
    splits = [split for split in compared.metrics_b if split in compared.metrics_a]
    figures = {}
    for name in names:
        row = {split: (compared.metrics_a[split].get(name), compared.metrics_b[split].get(name)) for split in splits}
        if any(a is not None and b is not None for a, b in row.values()):
            figures[name] = row
    params = dict.fromkeys([*compared.params_a, *compared.params_b])
    changed = {
        name: (compared.params_a.get(name, ""), compared.params_b.get(name, ""))
        for name in params
        if compared.params_a.get(name, "") != compared.params_b.get(name, "")
    }
    return {
        "compared": compared,
        "compared_figures": figures,
        "compared_splits": splits,
        "changed_params": changed,
        "verdict": describe_verdict(compared.comparison),
        "labels": FIGURE_LABELS,
    }


def describe_verdict(comparison: ResultComparison) -> str:
    """Say whether B is better, and what McNemar's p value means."""
    test = comparison.overall
    changed = test.only_a + test.only_b
    if not changed:
        return "Both results are right on the same photographs."
    chance = format_percent(test.p_value) if test.p_value >= 0.001 else f"less than {format_percent(0.001)}"
    text = (
        f"{comparison.verdict()} If neither result were better, the {changed} photographs that changed would split "
        f"as unevenly as this, or more so, in {chance} of cases (McNemar's exact test)."
    )
    if test.verdict == "chance":
        text += f" A clear result takes less than {format_percent(1 - CONFIDENCE)}, and an interval without 0."
    return text
