"""A result → the page that shows it: one HTML file that needs nothing else; pure but for reading its templates."""

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from celebflow import markup
from celebflow.classifier import ClassifierCard
from celebflow.comparison import Change, ResultComparison
from celebflow.data import SPLITS, Photo
from celebflow.evaluation import PersonMetrics
from celebflow.reports import Prediction, Report
from celebflow.style import spell
from celebflow.uncertainty import CONFIDENCE, Comparison, Interval

_MISSING = "–"
_FIGURE_LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_auc": "Macro AUC",
    "top_5_accuracy": "Top-5 accuracy",
    "loss": "Loss (less is better)",
    "calibration_error": "Calibration error (less is better)",
    "uncalibrated_loss": "Loss before calibration",
    "uncalibrated_calibration_error": "Calibration error before calibration",
    "accepted": "Named at all; the others are “unknown”",
}
# In the order of the page; a drawing that stands in no group comes last.
_DRAWING_GROUPS = {
    "Data": {"duplicates": "Near-duplicates, each group in one split"},
    "Training": {"accuracy": "Accuracy over the epochs", "loss": "Loss over the epochs"},
    "Errors": {
        "confusion_matrix": "Confusion matrix",
        "recall_by_person": "Recall by person",
        "confused_pairs": "Who is taken for whom most often",
        "mistakes": "Most confident mistakes",
        "doubtful_hits": "Most doubtful hits",
        "roc": "ROC",
        "precision_recall": "Precision and recall",
    },
    "Calibration": {"reliability": "Reliability"},
    "Strangers": {"acceptance": "Known people and strangers who are named"},
}
_OTHERS = "Others"
_VERDICTS = {
    "better": "This result is better.",
    "worse": "This result is worse.",
    "chance": "The difference may be chance.",
}


@dataclass(frozen=True)
class Example:
    """A photograph of a split worth looking at, and where the network looked; both JPEG."""

    prediction: Prediction
    split: str
    thumbnail: bytes
    heat_map: bytes | None


@dataclass(frozen=True)
class ChangedPhotograph:
    """A photograph of val (JPEG) that only one of two results names rightly."""

    change: Change
    thumbnail: bytes | None


@dataclass(frozen=True)
class Previous:
    """The result to compare with: its figures by split, and what became of val's photographs since.

    In `comparison` A is the previous result and B the present one. `fixed` and `broken` may show only some of the
    photographs that it lists.
    """

    name: str
    metrics: Mapping[str, Mapping[str, float]]
    comparison: ResultComparison
    fixed: Sequence[ChangedPhotograph]
    broken: Sequence[ChangedPhotograph]


@dataclass(frozen=True)
class PageContent:
    """What the page shows: `params` by dotted name, `figures` (PNG) by the names of their files.

    `not_compared` says why there is no `previous` although there is an earlier result; else it is empty.
    """

    report: Report
    card: ClassifierCard
    photos: Sequence[Photo]
    params: Mapping[str, object]
    figures: Mapping[str, bytes]
    examples: Sequence[Example]
    previous: Previous | None
    not_compared: str


@dataclass(frozen=True)
class _Figure:
    """A figure of one split; None where it is not known."""

    value: float | None
    interval: Interval | None
    before: float | None

    @property
    def difference(self) -> float | None:
        return None if self.value is None or self.before is None else self.value - self.before


@dataclass(frozen=True)
class _Drawing:
    """A figure as picture; `split` is empty where it is of the whole result."""

    title: str
    split: str
    png: bytes


@dataclass(frozen=True)
class _DataSummary:
    """How many photographs and persons a split has."""

    split: str
    photos: int
    persons: int


def render_page(content: PageContent) -> str:
    """Return the page as HTML: one file without a reference to any other, whatever the persons are called.

    Its Content-Security-Policy allows its own style sheet and script and the images inside it.
    """
    filters: dict[str, Callable[..., str]] = {
        "spell": spell,
        "number": _format_number,
        "signed": _format_signed,
        "percent": _format_percent,
        "value": _format_value,
        "jpeg": lambda content: _to_uri(content, "image/jpeg"),
        "png": lambda content: _to_uri(content, "image/png"),
    }
    figures = _collect_figures(content)
    html, _ = markup.render(
        "report",
        "img-src data:",
        filters,
        content=content,
        splits=list(content.report.splits),
        labels=_FIGURE_LABELS,
        headlines={name: row for name, row in figures.items() if any(cell.interval for cell in row.values())},
        others={name: row for name, row in figures.items() if not any(cell.interval for cell in row.values())},
        compared={name: row for name, row in figures.items() if any(cell.before is not None for cell in row.values())},
        verdict=_describe_comparison(content.previous.comparison.overall) if content.previous else "",
        drawings=_group_drawings(content.figures, list(content.report.splits)),
        persons={split: _rank_persons(report.persons) for split, report in content.report.splits.items()},
        data=_summarise_data(content.photos),
        duplicates=[count for count in Counter(photo.group for photo in content.photos).values() if count > 1],
    )
    return html


def _collect_figures(content: PageContent) -> dict[str, dict[str, _Figure]]:
    """Return every figure of the result by its name and split, the order being that of the labels."""
    splits = content.report.splits
    metrics = {split: content.report.metrics.get(split, {}) for split in splits}
    before = content.previous.metrics if content.previous else {}
    names = dict.fromkeys([*_FIGURE_LABELS, *(name for figures in metrics.values() for name in figures)])
    return {
        name: {
            split: _Figure(metrics[split].get(name), report.intervals.get(name), before.get(split, {}).get(name))
            for split, report in splits.items()
        }
        for name in names
        if any(name in figures for figures in metrics.values())
    }


def _group_drawings(figures: Mapping[str, bytes], splits: Sequence[str]) -> dict[str, list[_Drawing]]:
    groups: dict[str, list[tuple[int, _Drawing]]] = {group: [] for group in [*_DRAWING_GROUPS, _OTHERS]}
    for name, png in figures.items():
        split = next((split for split in splits if name.startswith(f"{split}_")), "")
        kind = name.removeprefix(f"{split}_")
        group = next((group for group, titles in _DRAWING_GROUPS.items() if kind in titles), _OTHERS)
        titles = _DRAWING_GROUPS.get(group, {})
        rank = list(titles).index(kind) if kind in titles else len(titles)
        groups[group].append((rank, _Drawing(titles.get(kind, spell(kind).capitalize()), split, png)))
    return {
        group: [drawing for _, drawing in sorted(ranked, key=lambda each: each[0])]
        for group, ranked in groups.items()
        if ranked
    }


def _rank_persons(persons: Sequence[PersonMetrics]) -> list[PersonMetrics]:
    """Put first whom the classifier knows worst, and last those of whom nothing can be said."""
    return sorted(persons, key=lambda each: (each.recall is None, each.recall, each.person))


def _summarise_data(photos: Sequence[Photo]) -> list[_DataSummary]:
    rows = []
    for split in SPLITS:
        persons = [photo.person for photo in photos if photo.split == split]
        rows.append(_DataSummary(split, len(persons), len(set(persons))))
    return rows


def _describe_comparison(comparison: Comparison) -> str:
    """Say whether the result is better, and what McNemar's p value says to those who never met it."""
    changed = comparison.only_a + comparison.only_b
    if not changed:
        return "Both results name the same photographs rightly."
    chance = (
        _format_percent(comparison.p_value) if comparison.p_value >= 0.001 else f"less than {_format_percent(0.001)}"
    )
    text = (
        f"{_VERDICTS[comparison.verdict]} If neither result were better, the {changed} photographs that changed would "
        f"fall as unevenly as this, or more so, in {chance} of cases (McNemar's exact test)."
    )
    if comparison.verdict == "chance":
        text += (
            f" To tell which is better takes less than {_format_percent(1 - CONFIDENCE)}, and an interval without 0."
        )
    return text


def _format_number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.3f}"


def _format_signed(value: float | None) -> str:
    return _MISSING if value is None else f"{value:+.3f}".replace("-", "−")


def _format_percent(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _format_value(value: object) -> str:
    """Write a param as params.yaml would, a list without its brackets."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(_format_value(each) for each in value)
    return str(value)


def _to_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
