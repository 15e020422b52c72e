"""Suspects → a page that shows each beside the photographs that it resembles."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation.suspects import Suspect
from celebflow.features.store import Features
from celebflow.report import markup
from celebflow.report.formats import FILTERS
from celebflow.report.thumbnails import load_crop

_MAX_SUSPECTS = 500  # of more, the page would take tens of megabytes
_PAGE = markup.Page("suspects.html.jinja", ("base.css", "report.css"), ("viewer.js", "limit.js"))


@dataclass(frozen=True, eq=False)
class ShownSuspect:
    """A suspect and what the network saw, (side, side, 3); `nearest` are names and pictures of the nearest two."""

    suspect: Suspect
    image: NDArray[np.uint8]
    nearest: list[tuple[str, NDArray[np.uint8]]]


def show_suspects(suspects: Sequence[Suspect], features: Features, folder: Path) -> list[ShownSuspect]:
    """Load what the page shows of suspects whose photographs are in `folder`; of very many, of the surest."""

    @cache
    def crop(path: str) -> NDArray[np.uint8]:
        sha256 = features.find_sha256(path)
        return load_crop(folder / path, sha256, features.origin.transform, features.subjects.get(path))

    def show(suspect: Suspect) -> ShownSuspect:
        nearest = {suspect.person: suspect.nearest_of_person, suspect.likelier: suspect.nearest_of_likelier}
        return ShownSuspect(suspect, crop(suspect.path), [(name, crop(path)) for name, path in nearest.items() if path])

    with ThreadPoolExecutor() as workers:
        return list(workers.map(show, suspects[:_MAX_SUSPECTS]))


def render_suspects(suspects: Sequence[Suspect], count: int, features: Features, folder: Path) -> str:
    """Return a page of the suspects among `count` photographs in `folder`, as HTML: one file without a reference.

    Of very many, it shows the surest.
    """
    html, _ = markup.render(
        _PAGE,
        "img-src data:",
        FILTERS,
        suspects=show_suspects(suspects, features, folder),
        suspect_count=len(suspects),
        count=count,
        warning=features.origin.backbone.warning(),
    )
    return html
