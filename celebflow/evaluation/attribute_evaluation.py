"""A model of attributes → the files of its result on val and test."""

from pathlib import Path

import numpy as np

from celebflow import paths
from celebflow.backbone.devices import select_device
from celebflow.classifier.attribute_model import AttributeModel, load_attribute_model
from celebflow.classifier.attribute_training import select_attributes
from celebflow.classifier.training import compute_logits
from celebflow.data.attributes import load_attributes
from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_results import (
    ANSWERS,
    AttributePrediction,
    AttributeSplitReport,
    load_attribute_split,
    rank_attributes,
    save_attribute_report,
)
from celebflow.evaluation.explanations import Explanation, save_explanations
from celebflow.evaluation.grad_cam import Explainer
from celebflow.evaluation.results import REPORTED_SPLITS, print_metrics, require_backbone
from celebflow.features.store import Features
from celebflow.params import ComputeParams

_BATCH_SIZE = 256
_MAX_EXAMPLES = 240  # of a split
_EXAMPLES_PER_ATTRIBUTE = (2, 12)  # at least and at most


def evaluate_attributes(
    model_file: Path, features: Features, compute: ComputeParams, folder: Path
) -> dict[str, dict[str, float]]:
    """Evaluate the model of attributes in a file on val and test; write the files of each to folder/<split>.

    Returns each one's metrics. Raises CelebflowError when the model was trained on the features of another backbone,
    or for other attributes.
    """
    model = load_attribute_model(model_file).to(select_device(compute.device))
    table = load_attributes(paths.ATTRIBUTES)
    require_backbone(model.card.backbone, features, "model")
    if model.card.class_names != table.names:
        raise CelebflowError(f"The model knows other attributes than {paths.ATTRIBUTES} has. Run `dvc repro`.")
    metrics = {}
    for split in REPORTED_SPLITS:
        examples = select_attributes(features, table, split)
        logits, labels = compute_logits(model, examples, _BATCH_SIZE)
        photos = [features.photos[row] for row in examples.rows]
        metrics[split] = save_attribute_report(logits, labels, photos, model.card, folder / split)
        print_metrics(split, metrics[split])
    explain_attributes(model, features, folder)
    if warning := features.origin.backbone.warning():
        print(warning)
    return metrics


def explain_attributes(model: AttributeModel, features: Features, folder: Path) -> None:
    """Explain for val and test the most confident errors of each attribute, into folder/<split>.

    Heat maps show what supports yes, whatever was answered.
    """
    explainer = Explainer(model)
    class_of = {name: number for number, name in enumerate(model.card.class_names)}
    for split in REPORTED_SPLITS:
        errors = choose_errors(load_attribute_split(folder / split))
        classes = np.array([class_of[error.attribute] for error in errors], np.int64)
        heat_maps = explainer.explain([error.photographs[0] for error in errors], classes, features)
        save_explanations([Explanation(*each) for each in zip(errors, heat_maps, strict=True)], folder / split)


def choose_errors(split: AttributeSplitReport) -> list[AttributePrediction]:
    """Return the most confident errors of each attribute, those of an attribute together.

    Half are answers of yes and half of no, as far as there are enough of both; the attributes with the lowest average
    precision come first.
    """
    fewest, most = _EXAMPLES_PER_ATTRIBUTE
    count = min(most, max(fewest, _MAX_EXAMPLES // len(split.attributes)))
    chosen: list[AttributePrediction] = []
    for attribute in rank_attributes(split.attributes):
        errors = split.list_errors(attribute.attribute)
        firsts = [[each for each in errors if each.predicted == answer][: count // 2] for answer in ANSWERS]
        balanced = [each for first in firsts for each in first]
        others = [each for each in errors if each not in balanced]
        kept = [*balanced, *others[: count - len(balanced)]]
        chosen += sorted(kept, key=lambda each: (each.probability_of_actual, each.path))
    return chosen[:_MAX_EXAMPLES]
