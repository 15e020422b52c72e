"""Train the recipe for attributes on parts of the photographs, and predict others."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.attribute_training import fit_attributes
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.classifier_training import train_to_the_end
from celebflow.classifier.discriminants import MAX_RIDGE_PHOTOGRAPHS, average_logits, fit_regressions, fit_ridges
from celebflow.classifier.fits import Fits
from celebflow.classifier.part_training import can_project_parts, project_part, recall_products_of_views
from celebflow.classifier.parts import Part, predict_each, send_features
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
    epochs, and keeps the last one, so that no label decides of what is predicted. Trainings are those of predict_each.
    """
    params = train_to_the_end(params)
    determinants = names, params, everything.rows.tolist(), everything.labels.tolist()
    settings = params.preprocessing
    if params.classifier == "ridge" and not settings.standardize and len(everything) <= MAX_RIDGE_PHOTOGRAPHS:
        preprocessor = Preprocessor(settings, everything.features.origin.feature_count)
        products = Vectors(preprocessor, everything.features, everything.rows).recall_products(fits)
        predict = partial(_predict_by_ridges, products, everything.labels, params)
        return predict_each(predict, parts, compute, fits, determinants)
    if params.classifier == "logistic" and can_project_parts(everything, params):
        products = recall_products_of_views(everything, params, fits)
        predict = partial(_predict_by_regressions, products, everything.labels, params)
        return predict_each(predict, parts, compute, fits, determinants)
    predict = partial(_predict_by_features, send_features(everything, compute), names, params, compute)
    return predict_each(predict, parts, compute, fits, determinants, prints_epochs=True)


def _predict_by_ridges(
    products: NDArray[np.float32], labels: NDArray[np.int64], params: TrainParams, part: Part
) -> NDArray[np.float32]:
    """Predict from the (N, N) inner products of all photographs."""
    own = products[np.ix_(part.taken, part.taken)]
    weights, bias = fit_ridges(own, labels[part.taken], params)
    logits = products[np.ix_(part.asked, part.taken)] @ weights + bias
    return logits.astype(np.float32)


def _predict_by_regressions(
    products: NDArray[np.float32], labels: NDArray[np.int64], params: TrainParams, part: Part
) -> NDArray[np.float32]:
    """Predict from the inner products of all views of all photographs."""
    inputs, asked_inputs = project_part(products, params, part)
    view_count = len(products) // len(labels)
    weight, bias = fit_regressions(inputs, np.tile(labels[part.taken], (view_count, 1)), params)
    return average_logits(asked_inputs, weight, bias, view_count)


def _predict_by_features(
    everything: LabeledFeatures, names: Sequence[str], params: TrainParams, compute: ComputeParams, part: Part
) -> NDArray[np.float32]:
    train, asked = everything.select(part.taken), everything.select(part.asked)
    params = params.model_copy(update={"seed": part.seed})
    return fit_attributes(names, train, asked, params, compute, Checkpoints(), lambda _: None).on_val[0]
