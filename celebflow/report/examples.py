"""The photographs of a result that are worth looking at: built once, for the figures and the page."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.evaluation.explanations import Explanation
from celebflow.evaluation.results import Prediction
from celebflow.features.store import Features
from celebflow.report.thumbnails import load_crop, overlay_heat_map


@dataclass(frozen=True, eq=False)
class NearestExample:
    """A photograph of train, (side, side, 3), that resembles an example."""

    person: str
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Example:
    """A photograph of a split: what the network saw, and the same below the heat map, each (side, side, 3).

    For an error, `nearest` are the photographs in train of the actual and of the predicted person that resemble it
    most, as the network saw them.
    """

    prediction: Prediction
    split: str
    image: NDArray[np.uint8]
    heat_map: NDArray[np.uint8]
    nearest: list[NearestExample]


def build_examples(
    explained: Mapping[str, Sequence[Explanation[Prediction]]], features: Features, folder: Path
) -> list[Example]:
    """Build the examples of each split, in the order of its explanations, from the photographs in `folder`."""

    @cache
    def crop(path: str) -> NDArray[np.uint8]:
        sha256, subject = features.find_sha256(path), features.subjects.get(path)
        return load_crop(folder / path, sha256, features.origin.transform, subject)

    def build(split: str, explanation: Explanation[Prediction]) -> Example:
        prediction = explanation.prediction
        image = crop(prediction.path)
        nearest = {prediction.actual: explanation.nearest_of_actual}
        nearest[prediction.predicted] = explanation.nearest_of_predicted
        shown = [NearestExample(person, crop(path)) for person, path in nearest.items() if path]
        return Example(prediction, split, image, overlay_heat_map(image, explanation.heat_map), shown)

    examples: list[Example] = []
    with ThreadPoolExecutor() as workers:
        for split, explanations in explained.items():
            examples += workers.map(build, repeat(split), explanations)
    return examples
