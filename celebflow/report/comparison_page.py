"""Two results → a page that compares them, or a section of a result's page."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation.comparison import Change, ResultComparison
from celebflow.evaluation.significance import CONFIDENCE
from celebflow.report import markup
from celebflow.report.formats import FILTERS, format_percent, order_metrics
from celebflow.report.thumbnails import load_thumbnail

_MAX_CHANGES = 24
_PAGE = markup.Page("comparison.html.jinja", ("base.css", "report.css"), ("viewer.js", "limit.js"))


@dataclass(frozen=True, eq=False)
class ChangedPhotograph:
    """A photograph, or a pair, that only one of two results predicts correctly.

    `thumbnails` are those of the files that are there.
    """

    change: Change
    thumbnails: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class ComparedResults:
    """Results A and B: names, metrics by split, params by dotted name, and a comparison on one split.

    `fixed` and `broken` may show only some of the photographs that `comparison` lists. `data_change` says how their
    photographs differ, empty where they do not or it is not known.
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
    data_change: str = ""


def load_changes(changes: Sequence[Change], folder: Path, sha256_of: Mapping[str, str]) -> list[ChangedPhotograph]:
    """Return the first changes with the thumbnails of the photographs in `folder`, as far as these are still there.

    `sha256_of` are the SHA-256 of photographs by path, as prepare found them.
    """
    loaded = []
    for change in changes[:_MAX_CHANGES]:
        files = [folder / name for name in change.b.photographs if _is_there(folder / name, sha256_of.get(name))]
        loaded.append(ChangedPhotograph(change, [load_thumbnail(file, None) for file in files]))
    return loaded


def _is_there(file: Path, sha256: str | None) -> bool:
    return file.is_file() and (sha256 is None or hashlib.sha256(file.read_bytes()).hexdigest() == sha256)


def render_comparison(compared: ComparedResults) -> str:
    """Return a page with only the comparison, as HTML: one file without a reference to another."""
    html, _ = markup.render(_PAGE, "img-src data:", FILTERS, compared=compared, **describe_comparison(compared))
    return html


def describe_comparison(compared: ComparedResults) -> dict[str, object]:
    """Return what the template of a comparison needs beside `compared`."""
    splits = [split for split in compared.metrics_b if split in compared.metrics_a]
    metrics = {}
    for name in order_metrics(compared.metrics_b):
        row = [(compared.metrics_a[split].get(name), compared.metrics_b[split].get(name)) for split in splits]
        if any(a is not None and b is not None for a, b in row):
            metrics[name] = row
    params = {}
    for name in dict.fromkeys([*compared.params_a, *compared.params_b]):
        a, b = compared.params_a.get(name, ""), compared.params_b.get(name, "")
        if a != b:
            params[name] = a, b
    return {
        "compared_splits": splits,
        "compared_metrics": metrics,
        "changed_params": params,
        "verdict": describe_verdict(compared.comparison),
    }


def describe_verdict(comparison: ResultComparison) -> str:
    """Say whether B is better, and what the p value of McNemar's test means."""
    test = comparison.overall
    changed = test.only_a + test.only_b
    if not changed:
        return f"Both results are correct on the same {comparison.unit}."
    chance = format_percent(test.p_value) if test.p_value >= 0.001 else f"less than {format_percent(0.001)}"
    text = (
        f"{comparison.verdict()} If neither result were better, the {changed} {comparison.unit} that changed would "
        f"split as unevenly as this, or more so, in {chance} of cases (McNemar's exact test)."
    )
    if test.verdict == "chance":
        text += f" A clear difference needs less than {format_percent(1 - CONFIDENCE)} and an interval without 0."
    return text
