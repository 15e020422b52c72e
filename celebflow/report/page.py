"""A result → its page: one HTML file without a reference to another."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celebflow.classifier.cards import ClassifierCard
from celebflow.data.photos import SPLITS, Photo
from celebflow.evaluation.advice import Advice
from celebflow.evaluation.metrics import PersonMetrics
from celebflow.evaluation.results import Report
from celebflow.paths import write_whole
from celebflow.report import markup
from celebflow.report.comparison_page import ComparedResults, describe_comparison
from celebflow.report.examples import Example
from celebflow.report.formats import FILTERS, is_headline, order_metrics
from celebflow.report.style import spell
from celebflow.report.why_section import Why

# File name without the split → group and title, in the order of the page; figures without a title come last.
_FIGURE_TITLES = {
    "duplicates": ("Data", "Near-duplicates, each group in one split"),
    "accuracy": ("Training", "Accuracy, train and val"),
    "loss": ("Training", "Loss, train and val"),
    "average_precision": ("Attributes", "Average precision by attribute"),
    "accuracy_by_attribute": ("Attributes", "Accuracy by attribute"),
    "co_occurrence": ("Attributes", "Co-occurrence"),
    "groups": ("Groups", "Lowest accuracy in groups"),
    "balanced_groups": ("Groups", "Lowest balanced accuracy in groups"),
    "confusion_matrix": ("Errors", "Confusion matrix"),
    "recall_by_person": ("Errors", "Recall by person"),
    "confused_pairs": ("Errors", "Most confused pairs"),
    "scores": ("Errors", "Scores of pairs"),
    "match_roc": ("Errors", "True and false match rates"),
    "det": ("Errors", "Detection error tradeoff"),
    "roc": ("Errors", "ROC"),
    "precision_recall": ("Errors", "Precision and recall"),
    "reliability": ("Calibration", "Reliability"),
    "open_set": ("Unknown people", "Coverage of known and unknown people"),
}
_PAGE = markup.Page("report.html.jinja", ("base.css", "report.css"), ("viewer.js", "limit.js", "report.js"))
# Figures that show the same photographs as the page's examples.
_IN_GALLERY = ("_errors", "_low_confidence_hits")


class ResultPage(ABC):
    """The page of a result, whatever its task, and what advice it has."""

    advice: Sequence[Advice] = ()

    @abstractmethod
    def render(self) -> str:
        """Return the page as HTML: one file without a reference to another."""

    def save(self, file: Path) -> None:
        """Write the page, and make its folder if it is missing."""
        with write_whole(file) as part:
            part.write_text(self.render(), encoding="utf-8")

    def print_advice(self) -> None:
        """Print what to do next, a line each."""
        for each in self.advice:
            print(each)


@dataclass(frozen=True)
class PageContent(ResultPage):
    """What the page shows: `params` have dotted names, and `figures` are PNG files by name."""

    report: Report
    card: ClassifierCard
    photos: Sequence[Photo]
    params: Mapping[str, object]
    figures: Mapping[str, bytes]
    examples: Sequence[Example]
    compared: ComparedResults | None = None
    advice: Sequence[Advice] = ()
    why: Why | None = None

    def render(self) -> str:
        """Return the page as render_page does."""
        return render_page(self)


@dataclass(frozen=True)
class _Figure:
    """A figure's PNG file; `split` is empty when it shows the whole result."""

    title: str
    split: str
    png: bytes


def load_figures(folder: Path) -> dict[str, bytes]:
    """Read the figures that the page shows, by name."""
    files = sorted(folder.glob("*.png"))
    return {file.stem: file.read_bytes() for file in files if not file.stem.endswith(_IN_GALLERY)}


def render_page(content: PageContent) -> str:
    """Return the page as HTML: one file without a reference to another.

    Names of people and params cannot inject markup: they are escaped, and the Content-Security-Policy allows only the
    page's own style sheet, script and images.
    """
    html, _ = markup.render(_PAGE, "img-src data:", FILTERS, **gather_values(content))
    return html


def gather_values(content: Any) -> dict[str, object]:
    """Return what the templates of all tasks need; `content` has the fields of a PageContent."""
    reports = content.report.splits
    return {
        "content": content,
        "reports": reports,
        "data_splits": SPLITS,
        "metrics": order_metrics(content.report.metrics),
        "headline": {name for report in reports.values() for name in report.intervals if is_headline(name)},
        "figures": _group_figures(content.figures, list(reports)),
        "people": {split: _rank_people(report.people) for split, report in reports.items()},
        "has_people": any(photo.person for photo in content.photos),  # of attributes, they may be unknown
        "duplicates": [count for count in Counter(photo.group for photo in content.photos).values() if count > 1],
        "compared": content.compared,
        **(describe_comparison(content.compared) if content.compared else {}),
    }


def _group_figures(figures: Mapping[str, bytes], splits: Sequence[str]) -> dict[str, list[_Figure]]:
    order = list(_FIGURE_TITLES)
    ranked = []
    for name, png in figures.items():
        split = next((split for split in splits if name.startswith(f"{split}_")), "")
        kind = name.removeprefix(f"{split}_")
        group, title = _FIGURE_TITLES.get(kind, ("Others", spell(kind).capitalize()))
        rank = order.index(kind) if kind in order else len(order)
        ranked.append((rank, group, _Figure(title, split, png)))
    groups: dict[str, list[_Figure]] = {}
    for _, group, figure in sorted(ranked, key=lambda each: each[0]):
        groups.setdefault(group, []).append(figure)
    return groups


def _rank_people(people: Sequence[PersonMetrics]) -> list[PersonMetrics]:
    """Put the person with the lowest recall first, and people without photographs last."""
    return sorted(people, key=lambda each: (each.recall is None, each.recall, each.person))
