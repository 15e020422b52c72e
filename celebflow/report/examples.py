"""The photographs of a result that are worth looking at: built once, for the figures and the page."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.fits import NOT_KEPT, Fits
from celebflow.classifier.model import Classifier
from celebflow.evaluation.neighbors import Neighbor, TrainingPhotographs
from celebflow.evaluation.results import Prediction, Report
from celebflow.features.store import Features
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from celebflow.report.thumbnails import load_crop

_MAX_ERRORS = 120
_MAX_HITS = 30
_NEAREST_COUNT = 2


@dataclass(frozen=True, eq=False)
class NearestExample:
    """A photograph of train, (side, side, 3), that resembles an example."""

    person: str
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Example:
    """A photograph of a split: what the network saw, and the same below the heat map, each (side, side, 3).

    For an error, `nearest` are the photographs of train that resemble it most, as the network saw them.
    """

    prediction: Prediction
    split: str
    image: NDArray[np.uint8]
    heat_map: NDArray[np.uint8]
    nearest: list[NearestExample]


def build_examples(
    report: Report,
    classifier: Classifier,
    explainer: Explainer,
    features: Features,
    folder: Path,
    fits: Fits = NOT_KEPT,
) -> list[Example]:
    """Build for each split the most confident errors, then the least confident hits, from the photographs in `folder`.

    The heat map shows which parts support the prediction. `fits` keep what other plots of the same gallery need, too.
    """
    card, subjects = classifier.card, features.subjects
    class_of = {name: number for number, name in enumerate(card.class_names)}
    training = None if classifier.gallery is None else TrainingPhotographs(classifier, features, folder, fits)

    @cache
    def crop(path: str) -> NDArray[np.uint8]:
        return load_crop(folder / path, features.find_sha256(path), card.transform, subjects.get(path))

    def build(split: str, prediction: Prediction, heat: NDArray[np.float32], neighbors: Sequence[Neighbor]) -> Example:
        image = crop(prediction.path)
        nearest = [NearestExample(each.photo.person, crop(each.photo.path)) for each in neighbors]
        return Example(prediction, split, image, overlay_heat_map(image, heat), nearest)

    examples: list[Example] = []
    with ThreadPoolExecutor() as workers:
        for split, content in report.splits.items():
            errors, hits = content.errors()[:_MAX_ERRORS], content.hits()[:_MAX_HITS]
            nearest = chain(_find_nearest(errors, training, features), repeat([]))
            chosen = [*errors, *hits]
            predicted = np.array([class_of[each.predicted] for each in chosen], np.int64)
            heats = explainer.explain([each.path for each in chosen], predicted, features)
            examples += workers.map(build, repeat(split), chosen, heats, nearest)
    return examples


def _find_nearest(
    predictions: Sequence[Prediction], training: TrainingPhotographs | None, features: Features
) -> list[list[Neighbor]]:
    """Return the photographs of train that are nearest to each prediction's."""
    if training is None or not predictions:
        return [[] for _ in predictions]
    rows = features.locate(prediction.path for prediction in predictions)
    views = [features.gather(rows, view) for view in range(features.view_count)]
    return training.find_nearest(views, _NEAREST_COUNT)
