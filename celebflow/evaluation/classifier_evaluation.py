"""A classifier → the files of its result on val and test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from celebflow import paths
from celebflow.backbone.devices import select_device
from celebflow.classifier.fits import NOT_KEPT, Fits, open_fits
from celebflow.classifier.model import Classifier, load_classifier
from celebflow.classifier.training import compute_logits
from celebflow.data.photos import number_groups
from celebflow.evaluation.explanations import Explanation, save_explanations
from celebflow.evaluation.grad_cam import Explainer
from celebflow.evaluation.neighbors import TrainingPhotographs
from celebflow.evaluation.open_set import measure_open_set, measure_unknown_people
from celebflow.evaluation.results import (
    REPORTED_SPLITS,
    Prediction,
    list_errors,
    list_hits,
    load_predictions,
    print_metrics,
    require_backbone,
    save_split_report,
)
from celebflow.features.store import Features, select_split
from celebflow.params import ComputeParams

_BATCH_SIZE = 256
_MAX_ERRORS = 120
_MAX_HITS = 30


def evaluate_classifier(
    model_file: Path, features: Features, compute: ComputeParams, folder: Path
) -> dict[str, dict[str, float]]:
    """Evaluate the classifier in a file on val and test; write the files of each to folder/<split>.

    Returns each one's metrics. Raises CelebflowError when it was trained on the features of another backbone.
    """
    classifier = load_classifier(model_file)
    require_backbone(classifier.card.backbone, features, "classifier")
    classifier.to(select_device(compute.device))
    metrics = report_splits(classifier, features, folder)
    explain_splits(classifier, features, folder, open_fits(features))
    if warning := features.origin.backbone.warning():
        print(warning)
    return metrics


def report_splits(classifier: Classifier, features: Features, folder: Path) -> dict[str, dict[str, float]]:
    """Write what save_split_report does for val and test to folder/<split>, and return each one's metrics."""
    gallery = classifier.gallery
    unknown = None if gallery is None else measure_unknown_people(gallery, features, classifier.card.calibration)
    metrics = {}
    for split in REPORTED_SPLITS:
        examples = select_split(features, classifier.card.class_names, split)
        logits, labels = compute_logits(classifier, examples, _BATCH_SIZE)
        photos = [features.photos[row] for row in examples.rows]
        open_set = None
        if gallery is not None and unknown is not None:
            hits = logits.argmax(axis=1) == labels
            groups = number_groups(photos)
            open_set = measure_open_set(gallery, examples, hits, groups, classifier.card.calibration, unknown)
        metrics[split] = save_split_report(logits, labels, photos, classifier.card, folder / split, open_set)
        print_metrics(split, metrics[split])
    return metrics


def explain_splits(classifier: Classifier, features: Features, folder: Path, fits: Fits = NOT_KEPT) -> None:
    """Explain for val and test the most confident errors, then the least confident hits, into folder/<split>.

    Heat maps show what supports the predicted person. Errors are compared with the photographs of train, of both
    people. `fits` keep what the explanations of other results need, too.
    """
    explainer = Explainer(classifier)
    training = None if classifier.gallery is None else TrainingPhotographs(classifier, features, paths.DATA, fits)
    class_of = {name: number for number, name in enumerate(classifier.card.class_names)}
    for split in REPORTED_SPLITS:
        predictions = load_predictions(folder / split / "predictions.csv")
        errors = list_errors(predictions)[:_MAX_ERRORS]
        chosen = [*errors, *list_hits(predictions)[:_MAX_HITS]]
        predicted = np.array([class_of[each.predicted] for each in chosen], np.int64)
        heat_maps = explainer.explain([each.path for each in chosen], predicted, features)
        nearest = _find_nearest(errors, training, features)
        nearest += [("", "")] * (len(chosen) - len(errors))
        found = zip(chosen, heat_maps, nearest, strict=True)
        explanations = [Explanation(each, heat_map, *both) for each, heat_map, both in found]
        save_explanations(explanations, folder / split)


def _find_nearest(
    errors: Sequence[Prediction], training: TrainingPhotographs | None, features: Features
) -> list[tuple[str, str]]:
    """Return for each error the path of the nearest photograph of train, of the actual and of the predicted person."""
    if training is None or not errors:
        return [("", "") for _ in errors]
    rows = features.locate(error.path for error in errors)
    views = [features.gather(rows, view) for view in range(features.view_count)]
    return training.find_nearest_of(views, [(error.actual, error.predicted) for error in errors])
