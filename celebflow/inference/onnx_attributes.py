"""A model of attributes → one ONNX file, from which any runtime computes the same probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from celebflow.classifier.attribute_calibration import UNCERTAIN_ODDS
from celebflow.classifier.cards import AttributeCard
from celebflow.inference.attribute_predictor import AttributePredictor
from celebflow.inference.onnx_graph import (
    INPUT,
    Graph,
    add_backbone,
    add_network,
    add_pixels,
    describe_input,
    draw_noise,
    make_model,
    require_onnx,
    run,
    save_checked,
)

OUTPUT = "probabilities"
MAX_DIFFERENCE = 1e-4  # of probabilities


def export_attributes(predictor: AttributePredictor, file: Path) -> float:
    """Write a model of attributes to an ONNX file, and check the file's probabilities against the predictor's.

    Its input is that of export_model. Its output is the (N, A) probabilities of yes; the metadata hold the names of the
    attributes, their thresholds, and when an answer is uncertain.

    Returns the largest difference between probabilities on a few photographs of noise.

    Raises CelebflowError, and leaves no file, when it exceeds MAX_DIFFERENCE or when the libraries are missing.
    """
    require_onnx()
    return save_checked(
        _build(predictor), file, lambda unchecked: _measure_difference(unchecked, predictor), MAX_DIFFERENCE
    )


def _build(predictor: AttributePredictor) -> Any:
    card, transform = predictor.card, predictor.card.transform
    calibration = card.calibration
    graph = Graph(INPUT)
    add_pixels(graph, transform)
    add_backbone(graph, predictor.backbone, transform)
    add_network(graph, predictor.model, len(transform.views))
    graph.add("Mul", torch.tensor(calibration.slopes))
    graph.add("Add", torch.tensor(calibration.offsets))
    graph.add("Sigmoid")
    # 0.5 + (2 · max_probability - 1) · (p - 0.5), as AttributeCalibration.compute_probabilities has it.
    bounds = torch.tensor(calibration.max_probabilities)
    graph.add("Mul", 2 * bounds - 1)
    graph.add("Add", 1 - bounds)
    graph.name_last(OUTPUT)
    return make_model(graph, transform, {OUTPUT: len(card.class_names)}, _describe_model(card))


def _measure_difference(file: Path, predictor: AttributePredictor) -> float:
    photographs = draw_noise()
    exported = run(file, predictor.card.transform, photographs)[OUTPUT]
    expected = [faces[0].probabilities for faces in predictor.predict_faces(photographs, 1, whole=True)]
    return float(np.abs(exported - np.stack(expected)).max())


def _describe_model(card: AttributeCard) -> dict[str, str]:
    """Return the metadata of the file: facts in JSON, and texts."""
    facts = {
        "attributes": card.class_names,
        "thresholds": card.calibration.thresholds.tolist(),
        "uncertain_odds": UNCERTAIN_ODDS,
    }
    metadata = describe_input(card.transform, card.backbone, facts)
    metadata["output"] = (
        "Calibrated probabilities of yes in the order of attributes. The answer is yes from the attribute's threshold "
        "on. It is uncertain where the odds of yes, p / (1 - p), are within a factor of uncertain_odds of those at the "
        "threshold."
    )
    return metadata
