"""Train the recipe for attributes on parts of the photographs, and predict others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from celebflow.classifier.attribute_training import fit_attributes
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.classifier_training import train_to_the_end
from celebflow.classifier.discriminants import MAX_RIDGE_PHOTOGRAPHS, average_logits, fit_regressions, fit_ridges
from celebflow.classifier.fits import Fits
from celebflow.classifier.part_training import Part, can_project_parts, project_parts
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.vectors import Vectors
from celebflow.features.store import LabeledFeatures
from celebflow.params import ComputeParams, TrainParams


def predict_attribute_parts(
    everything: LabeledFeatures,
    names: Sequence[str],
    params: TrainParams,
    compute: ComputeParams,
    fits: Fits,
    parts: Sequence[Part],
) -> list[NDArray[np.float32]]:
    """Train a model of the attributes `names` for each part, and return its (M, A) logits of what it predicts.

    Everything is fitted anew to the photographs that are taken, as training does it. A network is trained for all its
    epochs, and keeps the last one, so that no label decides of what is predicted.
    """
    params = train_to_the_end(params)
    settings = params.preprocessing
    if params.classifier == "ridge" and not settings.standardize and len(everything) <= MAX_RIDGE_PHOTOGRAPHS:
        return _predict_by_ridges(everything, params, fits, parts)
    if params.classifier == "logistic" and can_project_parts(everything, params):
        found = []
        for part, inputs, asked_inputs in project_parts(everything, params, fits, parts):
            labels = np.tile(everything.labels[part.taken], (everything.view_count, 1))
            weight, bias = fit_regressions(inputs, labels, params)
            found.append(average_logits(asked_inputs, weight, bias, everything.view_count))
        return found
    found = []
    for number, part in enumerate(parts, 1):
        print(f"Part {number} of {len(parts)}, {part.taken.sum()} photographs:")
        train, asked = everything.select(part.taken), everything.select(part.asked)
        fitted = fit_attributes(names, train, asked, params, compute, Checkpoints(), lambda _: None)
        found.append(fitted.on_val[0])
    return found


def _predict_by_ridges(
    everything: LabeledFeatures, params: TrainParams, fits: Fits, parts: Sequence[Part]
) -> list[NDArray[np.float32]]:
    """Do what predict_attribute_parts does, from the inner products of all photographs, which are computed once."""
    preprocessor = Preprocessor(params.preprocessing, everything.features.origin.feature_count)
    products = Vectors(preprocessor, everything.features, everything.rows).recall_products(fits)
    found = []
    for part in tqdm(parts, "training on parts", unit="part", disable=None):
        own = products[np.ix_(part.taken, part.taken)]
        weights, bias = fit_ridges(own, everything.labels[part.taken], params)
        logits = products[np.ix_(part.asked, part.taken)] @ weights + bias
        found.append(logits.astype(np.float32))
    return found
