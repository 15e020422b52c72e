"""A result → the page that shows it: one HTML file that needs nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from celebflow.classifier.model import ClassifierCard
from celebflow.data.photos import SPLITS, Photo
from celebflow.evaluation.metrics import PersonMetrics
from celebflow.evaluation.results import Report
from celebflow.evaluation.significance import Interval
from celebflow.report import markup
from celebflow.report.comparison_page import ComparedResults, describe_comparison
from celebflow.report.examples import Example
from celebflow.report.formats import FIGURE_LABELS, FILTERS
from celebflow.report.style import spell

# In the order of the page; a drawing that belongs to no group comes last.
_DRAWING_GROUPS = {
    "Data": {"duplicates": "Near-duplicates, each group in one split"},
    "Training": {"accuracy": "Accuracy by epoch", "loss": "Loss by epoch"},
    "Errors": {
        "confusion_matrix": "Confusion matrix",
        "recall_by_person": "Recall by person",
        "confused_pairs": "Most confused pairs",
        "errors": "Most confident errors",
        "low_confidence_hits": "Least confident hits",
        "roc": "ROC",
        "precision_recall": "Precision and recall",
    },
    "Calibration": {"reliability": "Reliability"},
    "Unknown people": {"open_set": "Coverage of known and unknown people"},
}
_OTHERS = "Others"
_PAGE = markup.Page("report.html.jinja", ("base.css", "report.css"), ("viewer.js", "report.js"))
# Figures that show the same photographs as the page's own gallery.
_IN_GALLERY = ("_errors", "_low_confidence_hits")


@dataclass(frozen=True)
class PageContent:
    """What the page shows: `params` by dotted name, `figures` (PNG) by the names of their files."""

    report: Report
    card: ClassifierCard
    photos: Sequence[Photo]
    params: Mapping[str, object]
    figures: Mapping[str, bytes]
    examples: Sequence[Example]
    compared: ComparedResults | None = None


@dataclass(frozen=True)
class _Figure:
    """A figure of one split; None where it is not known."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class _Drawing:
    """A figure as a picture; `split` is empty where it shows the whole result."""

    title: str
    split: str
    png: bytes


@dataclass(frozen=True)
class _DataSummary:
    """How many photographs and people a split has."""

    split: str
    photos: int
    people: int


def load_figures(folder: Path) -> dict[str, bytes]:
    """Read the PNG files that the page shows, by their names."""
    return {
        file.stem: file.read_bytes() for file in sorted(folder.glob("*.png")) if not file.stem.endswith(_IN_GALLERY)
    }


def save_page(content: PageContent, file: Path) -> None:
    """Write the page, and its folder if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render_page(content), encoding="utf-8")


def render_page(content: PageContent) -> str:
    """Return the page as HTML: one file without a reference to any other, whatever the people are called.

    Its Content-Security-Policy allows its own style sheet and script and the images inside it.
    """
    splits = list(content.report.splits)
    figures = _collect_figures(content)
    headlines: dict[str, dict[str, _Figure]] = {}
    others: dict[str, dict[str, _Figure]] = {}
    for name, row in figures.items():
        has_interval = any(figure.interval for figure in row.values())
        (headlines if has_interval else others)[name] = row
    html, _ = markup.render(
        _PAGE,
        "img-src data:",
        FILTERS,
        content=content,
        splits=splits,
        headlines=headlines,
        others=others,
        drawings=_group_drawings(content.figures, splits),
        people={split: _rank_people(report.people) for split, report in content.report.splits.items()},
        data=_summarize_data(content.photos),
        duplicates=[count for count in Counter(photo.group for photo in content.photos).values() if count > 1],
        **(describe_comparison(content.compared) if content.compared else {"compared": None, "labels": FIGURE_LABELS}),
    )
    return html


def _collect_figures(content: PageContent) -> dict[str, dict[str, _Figure]]:
    """Return every figure of the result by its name and split, in the order of the labels."""
    splits = content.report.splits
    metrics = {split: content.report.metrics.get(split, {}) for split in splits}
    names = dict.fromkeys([*FIGURE_LABELS, *(name for values in metrics.values() for name in values)])
    figures = {}
    for name in names:
        if any(name in values for values in metrics.values()):
            figures[name] = {
                split: _Figure(metrics[split].get(name), report.intervals.get(name)) for split, report in splits.items()
            }
    return figures


def _group_drawings(figures: Mapping[str, bytes], splits: Sequence[str]) -> dict[str, list[_Drawing]]:
    groups: dict[str, list[tuple[int, _Drawing]]] = {group: [] for group in [*_DRAWING_GROUPS, _OTHERS]}
    for name, png in figures.items():
        split = next((split for split in splits if name.startswith(f"{split}_")), "")
        kind = name.removeprefix(f"{split}_")
        group = next((group for group, titles in _DRAWING_GROUPS.items() if kind in titles), _OTHERS)
        titles = _DRAWING_GROUPS.get(group, {})
        rank = list(titles).index(kind) if kind in titles else len(titles)
        groups[group].append((rank, _Drawing(titles.get(kind, spell(kind).capitalize()), split, png)))
    ordered = {}
    for group, ranked in groups.items():
        if ranked:
            ordered[group] = [drawing for _, drawing in sorted(ranked, key=lambda each: each[0])]
    return ordered


def _rank_people(people: Sequence[PersonMetrics]) -> list[PersonMetrics]:
    """Put the person with the lowest recall first, and last those of whom nothing is known."""
    return sorted(people, key=lambda each: (each.recall is None, each.recall, each.person))


def _summarize_data(photos: Sequence[Photo]) -> list[_DataSummary]:
    rows = []
    for split in SPLITS:
        people = [photo.person for photo in photos if photo.split == split]
        rows.append(_DataSummary(split, len(people), len(set(people))))
    return rows
