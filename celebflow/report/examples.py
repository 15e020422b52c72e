"""The photographs of a result that are worth looking at: built once, for the figures and the page."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation.results import Prediction, Report
from celebflow.features.store import Features
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from celebflow.report.thumbnails import load_crop

_MAX_ERRORS = 120
_MAX_HITS = 30


@dataclass(frozen=True, eq=False)
class Example:
    """A photograph of a split: what the network saw, and the same below the heat map, each (side, side, 3)."""

    prediction: Prediction
    split: str
    image: NDArray[np.uint8]
    heat_map: NDArray[np.uint8]


def build_examples(report: Report, explainer: Explainer, features: Features, folder: Path) -> list[Example]:
    """Build for each split the most confident errors, then the least confident hits, from the photographs in `folder`.

    The heat map shows which parts support the prediction.
    """
    transform, subjects = explainer.card.transform, features.subjects

    def build(split: str, prediction: Prediction, heat: NDArray[np.float32]) -> Example:
        image = load_crop(folder / prediction.path, transform, subjects.get(prediction.path))
        return Example(prediction, split, image, overlay_heat_map(image, heat))

    examples: list[Example] = []
    with ThreadPoolExecutor() as workers:
        for split, content in report.splits.items():
            chosen = [*content.errors()[:_MAX_ERRORS], *content.hits()[:_MAX_HITS]]
            examples += workers.map(build, repeat(split), chosen, explainer.explain(chosen, features))
    return examples
