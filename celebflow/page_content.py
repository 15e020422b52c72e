"""A result's files and photographs → what the page shows of them, and of the result that was committed before."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from celebflow import paths
from celebflow.comparison import Change, compare_predictions
from celebflow.contact_sheets import load_thumbnail
from celebflow.errors import CelebflowError
from celebflow.experiments import NoOutputError, copy_outputs
from celebflow.explanations import Explainer, overlay_heat_map
from celebflow.features import Features
from celebflow.images import encode_jpeg
from celebflow.page import ChangedPhotograph, Example, PageContent, Previous, render_page
from celebflow.provenance import find_provenance
from celebflow.reports import Prediction, Report, SplitReport, load_metrics, load_predictions

_CHOOSING_SPLIT = "val"
_MOST_MISTAKES = 120
_MOST_HITS = 30
_MOST_CHANGES = 24
# Figures that show the same photographs as the page's own gallery.
_IN_GALLERY = ("_mistakes", "_doubtful_hits")


def save_page(report: Report, explainer: Explainer, features: Features, recipe: Mapping[str, object]) -> None:
    """Write reports/index.html: of the report, figures, photographs, heat maps, and the result before.

    `recipe` holds the params that the result came from, by their dotted names.
    """
    content = _gather_content(report, explainer, features, recipe)
    paths.PAGE.write_text(render_page(content), encoding="utf-8")


def _gather_content(
    report: Report, explainer: Explainer, features: Features, recipe: Mapping[str, object]
) -> PageContent:
    figures = {"duplicates": paths.DUPLICATES_SHEET.read_bytes()}
    for file in sorted(paths.FIGURES.glob("*.png")):
        if not file.stem.endswith(_IN_GALLERY):
            figures[file.stem] = file.read_bytes()
    commit, previous, not_compared = find_provenance().commit, None, ""
    try:
        previous = _find_previous(report, commit) if commit else None
    except CelebflowError as error:
        reason = str(error).replace(commit, commit[:7])
        not_compared = f"The result of commit {commit[:7]} is not compared with: {reason}"
    return PageContent(
        report=report,
        card=explainer.card,
        photos=features.photos,
        params=recipe,
        figures=figures,
        examples=[
            example
            for split, content in report.splits.items()
            for example in _gather_examples(split, content, explainer, features)
        ],
        previous=previous,
        not_compared=not_compared,
    )


def _gather_examples(split: str, report: SplitReport, explainer: Explainer, features: Features) -> Iterator[Example]:
    """Yield the most confident mistakes and the most doubtful hits, each with what spoke for the person named."""
    chosen = [*report.mistakes()[:_MOST_MISTAKES], *report.hits()[:_MOST_HITS]]

    def picture(prediction: Prediction, heat: NDArray[np.float32]) -> Example:
        image = load_thumbnail(paths.DATA / prediction.path, explainer.card.transform)
        return Example(prediction, split, encode_jpeg(image), encode_jpeg(overlay_heat_map(image, heat)))

    with ThreadPoolExecutor() as workers:
        yield from workers.map(picture, chosen, explainer.explain(chosen, features))


def _find_previous(report: Report, commit: str) -> Previous | None:
    """Return the result of the commit that this one began from; None where there is none, or it is this one.

    Raises CelebflowError when there is one that cannot be read, or that has no photograph in common with this one.
    """
    now = report.splits[_CHOOSING_SPLIT].predictions
    files = [paths.METRICS, paths.REPORTS / _CHOOSING_SPLIT / "predictions.csv"]
    with TemporaryDirectory() as folder:
        try:
            copies = copy_outputs(files, commit, Path(folder))
            if copies is None:
                return None
            metrics, before = load_metrics(copies[0]), load_predictions(copies[1])
        except NoOutputError:
            return None
    if before == now:
        return None
    compared = compare_predictions(before, now)
    return Previous(
        name=f"commit {commit[:7]}",
        metrics=metrics,
        comparison=compared,
        fixed=_picture(compared.fixed),
        broken=_picture(compared.broken),
    )


def _picture(changes: Sequence[Change]) -> list[ChangedPhotograph]:
    return [
        ChangedPhotograph(change, encode_jpeg(load_thumbnail(paths.DATA / change.b.path)))
        for change in changes[:_MOST_CHANGES]
    ]
