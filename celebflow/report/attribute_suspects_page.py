"""Suspect labels of attributes → a page that shows each beside photographs with both labels."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation.attribute_suspects import AttributeCount, AttributeSuspect
from celebflow.features.store import Features
from celebflow.report import markup
from celebflow.report.formats import FILTERS
from celebflow.report.thumbnails import load_crop

_MAX_SUSPECTS = 500  # of more, the page would take tens of megabytes
_PAGE = markup.Page("attribute_suspects.html.jinja", ("base.css", "report.css"), ("viewer.js", "limit.js"))


@dataclass(frozen=True, eq=False)
class ShownLabel:
    """A suspect and what the network saw, (side, side, 3); `nearest` are labels and pictures of photographs like it."""

    suspect: AttributeSuspect
    image: NDArray[np.uint8]
    nearest: list[tuple[str, NDArray[np.uint8]]]


def choose_shown(suspects: Sequence[AttributeSuspect]) -> list[AttributeSuspect]:
    """Return the suspects that the page shows: all, or of very many the surest of each attribute."""
    return sorted(suspects, key=lambda suspect: (suspect.rank, suspect.probability_of_given))[:_MAX_SUSPECTS]


def render_attribute_suspects(
    shown: Sequence[tuple[AttributeSuspect, Mapping[str, str]]],
    counts: Sequence[AttributeCount],
    features: Features,
    folder: Path,
) -> str:
    """Return a page of suspects, by attribute, as HTML: one file without a reference.

    Beside each suspect are the paths of the nearest photographs by label. Photographs are in `folder`. The attributes
    with the most suspects come first.
    """

    @cache
    def crop(path: str) -> NDArray[np.uint8]:
        sha256 = features.find_sha256(path)
        return load_crop(folder / path, sha256, features.origin.transform, features.subjects.get(path))

    def show(suspect: AttributeSuspect, nearest: Mapping[str, str]) -> ShownLabel:
        return ShownLabel(suspect, crop(suspect.path), [(label, crop(path)) for label, path in nearest.items()])

    with ThreadPoolExecutor() as workers:
        loaded = list(workers.map(show, *zip(*shown, strict=True))) if shown else []
    galleries: dict[str, list[ShownLabel]] = {}
    for each in sorted(loaded, key=lambda each: each.suspect.rank):
        galleries.setdefault(each.suspect.attribute, []).append(each)
    ordered = sorted((each for each in counts if each.suspects), key=lambda each: -each.suspects)
    html, _ = markup.render(
        _PAGE,
        "img-src data:",
        FILTERS,
        counts=ordered,
        galleries=galleries,
        suspect_count=sum(each.suspects for each in counts),
        count=sum(each.labels for each in counts),
        warning=features.origin.backbone.warning(),
    )
    return html
