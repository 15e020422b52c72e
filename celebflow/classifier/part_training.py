"""Train the recipe on parts of the photographs, and predict others: for learning curves and cross-validation."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.checkpoints import Checkpoints
from celebflow.classifier.classifier_training import fit_classifier, train_to_the_end
from celebflow.classifier.components import fit_components
from celebflow.classifier.discriminants import average_logits, fit_people
from celebflow.classifier.fits import Fits
from celebflow.classifier.parts import Part, predict_each, send_features
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.projection import MAX_VIEWS
from celebflow.classifier.training import compute_logits
from celebflow.classifier.vectors import list_views
from celebflow.features.store import LabeledFeatures
from celebflow.params import ComputeParams, TrainParams

_FAR = 1e4  # how much lower the logits are of people of whom the classifier has seen no photograph


def predict_parts(
    everything: LabeledFeatures,
    class_names: Sequence[str],
    params: TrainParams,
    compute: ComputeParams,
    fits: Fits,
    parts: Sequence[Part],
) -> list[NDArray[np.float32]]:
    """Train a classifier for each part, and return its (M, people) logits of the photographs that it predicts.

    Everything is fitted anew to the photographs that are taken, as training does it. A network is trained for all its
    epochs, and keeps the last one, so that no label decides of what is predicted. People of whom no photograph is taken
    are far less probable than all others. Trainings are those of predict_each.
    """
    params = train_to_the_end(params)
    determinants = class_names, params, everything.rows.tolist(), everything.labels.tolist()
    if params.classifier in ("lda", "logistic") and can_project_parts(everything, params):
        products = recall_products_of_views(everything, params, fits)
        predict = partial(_predict_by_products, products, everything.labels, len(class_names), params)
        return predict_each(predict, parts, compute, fits, determinants)
    predict = partial(_predict_by_features, send_features(everything, compute), class_names, params, compute)
    return predict_each(predict, parts, compute, fits, determinants, prints_epochs=True)


def _predict_by_products(
    products: NDArray[np.float32], labels: NDArray[np.int64], person_count: int, params: TrainParams, part: Part
) -> NDArray[np.float32]:
    inputs, asked_inputs = project_part(products, params, part)
    view_count = len(products) // len(labels)
    return predict_at_once(inputs, labels[part.taken], asked_inputs, params, view_count, person_count)


def _predict_by_features(
    everything: LabeledFeatures, class_names: Sequence[str], params: TrainParams, compute: ComputeParams, part: Part
) -> NDArray[np.float32]:
    seen = np.unique(everything.labels[part.taken])
    known = part.asked & np.isin(everything.labels, seen)
    train, val = (
        replace(each, labels=np.searchsorted(seen, each.labels))
        for each in (everything.select(part.taken), everything.select(known))
    )
    names = [class_names[label] for label in seen]
    params = params.model_copy(update={"seed": part.seed})
    fitted = fit_classifier(names, train, val, params, compute, Checkpoints(), lambda _: None)
    logits, _ = compute_logits(fitted.classifier, everything.select(part.asked), params.batch_size)
    return _spread_logits(logits, seen, len(class_names))


def predict_at_once(
    inputs: Any,
    labels: NDArray[np.int64],
    asked_inputs: Any,
    params: TrainParams,
    view_count: int,
    person_count: int,
) -> NDArray[np.float32]:
    """Fit a classifier without epochs to the views of photographs; return its (M, people) logits of M others.

    `inputs` and `asked_inputs` are what collect_inputs returns, and `labels` (N,) those of the N photographs.
    """
    weight, bias = fit_people(inputs, np.tile(labels, view_count), params)
    return _spread_logits(average_logits(asked_inputs, weight, bias, view_count), np.unique(labels), person_count)


def _spread_logits(logits: NDArray[np.float32], seen: NDArray[np.int64], person_count: int) -> NDArray[np.float32]:
    """Return (M, people) logits, from those of the people that a classifier has `seen`."""
    lowest = logits.min(axis=1, keepdims=True) - np.float32(_FAR)
    spread: NDArray[np.float32] = np.repeat(lowest, person_count, axis=1)
    spread[:, seen] = logits
    return spread


def can_project_parts(everything: LabeledFeatures, params: TrainParams) -> bool:
    """Return whether the recipe has a projection that project_part can fit to a part of these photographs."""
    few = everything.view_count * len(everything) <= MAX_VIEWS
    return params.preprocessing.pca_components is not None and not params.preprocessing.standardize and few


def recall_products_of_views(everything: LabeledFeatures, params: TrainParams, fits: Fits) -> NDArray[np.float32]:
    """Return the (N · V, N · V) inner products of all views of all photographs, one view after the other."""
    settings = params.preprocessing.model_copy(update={"pca_components": None})
    preprocessor = Preprocessor(settings, everything.features.origin.feature_count)
    return list_views(preprocessor, everything.features, everything.rows).recall_products(fits)


def project_part(products: NDArray[np.float32], params: TrainParams, part: Part) -> tuple[FloatArray, FloatArray]:
    """Fit the projection to a part, and return the projected views that are taken and those that are asked.

    `products` are what recall_products_of_views returns.
    """
    taken, asked = part.select_views(len(products) // len(part.taken))
    of_taken = products[np.ix_(taken, taken)]
    components = fit_components(of_taken, params.preprocessing.pca_components or 0, part.seed)
    return components.project(of_taken), components.project(products[np.ix_(asked, taken)])
