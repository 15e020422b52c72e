"""A trained model → one ONNX file, from which any runtime computes the same probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from celebflow.backbone.vgg19 import Backbone
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.gallery import Gallery
from celebflow.classifier.model import Classifier
from celebflow.errors import CelebflowError
from celebflow.features.transform import Transform
from celebflow.inference.onnx_graph import (
    INPUT,
    Graph,
    add_backbone,
    add_embedding,
    add_network,
    add_pixels,
    describe_input,
    draw_noise,
    make_model,
    require_onnx,
    run,
    save_checked,
)
from celebflow.inference.predictor import Predictor

MAX_DIFFERENCE = 1e-4  # of probabilities
_MAX_MATCH_DIFFERENCE = 1e-2  # of matches, which are logarithms of ratios
OUTPUT, MATCH = "probabilities", "match"


def export_model(predictor: Predictor, file: Path) -> float:
    """Write a model to an ONNX file, and check the file's probabilities against the predictor's.

    Its input is the views of N photographs, or of faces in them, cropped and resized: (N, views, size, size, 3) pixels
    of 8 bits. Its outputs are (N, people) calibrated probabilities and, where people may be unknown, their (N, 1)
    matches. The metadata holds class names, transform, threshold and what else a program needs.

    Returns the largest difference between probabilities on a few photographs of noise.

    Raises CelebflowError, and leaves no file, when it exceeds MAX_DIFFERENCE or when the libraries are missing.
    """
    require_onnx()
    model = _build(predictor.backbone, predictor.classifier)
    return save_checked(model, file, lambda unchecked: _measure_difference(unchecked, predictor), MAX_DIFFERENCE)


def _measure_difference(file: Path, predictor: Predictor) -> float:
    photographs = draw_noise()
    expected = [faces[0] for faces in predictor.predict_faces(photographs, 1, whole=True)]
    probabilities, matches = run_model(file, predictor.card.transform, photographs)
    if matches is not None:
        difference = float(np.abs(matches - np.array([face.match for face in expected], float)).max())
        if not difference <= _MAX_MATCH_DIFFERENCE:
            raise CelebflowError(f"ONNX Runtime's matches differ by {difference:.1e}, so nothing was exported.")
    return float(np.abs(probabilities - np.stack([face.probabilities for face in expected])).max())


def run_model(
    file: Path, transform: Transform, photographs: Sequence[Image.Image]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Run ONNX Runtime on the subjects of N RGB photographs, one at a time.

    Returns (N, people) probabilities and the (N,) matches, or None where the model has none.
    """
    outputs = run(file, transform, photographs)
    return outputs[OUTPUT], outputs[MATCH][:, 0] if MATCH in outputs else None


def _build(backbone: Backbone, classifier: Classifier) -> Any:
    card = classifier.card
    transform = card.transform
    views = len(transform.views)
    graph = Graph(INPUT)
    add_pixels(graph, transform)
    features = add_backbone(graph, backbone, transform)
    outputs = {OUTPUT: len(card.class_names)}
    if classifier.gallery is not None:
        _add_gallery(graph, classifier.gallery, views)
        outputs[MATCH] = 1
        graph.last = features
    add_network(graph, classifier, views)
    graph.add("Div", torch.tensor([card.calibration.temperature]))
    graph.add("Softmax", axis=1)
    _limit_confidence(graph, card)
    graph.name_last(OUTPUT)
    return make_model(graph, transform, outputs, _describe_model(classifier))


def _add_gallery(graph: Graph, gallery: Gallery, views: int) -> None:
    """Add what turns features into matches."""
    people = gallery.people
    coordinates = add_embedding(graph, gallery, views)
    products = graph.add("MatMul", torch.from_numpy(people.factors).float())
    graph.combine("Mul", [coordinates, coordinates])
    squares = graph.add("MatMul", torch.from_numpy(people.squares).float())
    graph.combine("Add", [products, squares])
    graph.add("Add", torch.from_numpy(people.offsets).float())
    graph.add("ReduceMax", axes=[1], keepdims=1)
    graph.name_last(MATCH)


def _limit_confidence(graph: Graph, card: ClassifierCard) -> None:
    """Add what moves probabilities towards equal ones, as Calibration.compute_probabilities does."""
    if card.calibration.max_confidence < 1:
        factor = card.calibration.shrink_factor(len(card.class_names))
        graph.add("Mul", torch.tensor([factor]))
        graph.add("Add", torch.tensor([(1 - factor) / len(card.class_names)]))


def _describe_model(classifier: Classifier) -> dict[str, str]:
    """Return the metadata of the file: facts in JSON, and texts."""
    card = classifier.card
    facts = {"class_names": card.class_names, "threshold": card.calibration.threshold}
    metadata = describe_input(card.transform, card.backbone, facts)
    metadata["output"] = (
        "Calibrated probabilities in the order of class_names. A face whose match is below the threshold is unknown."
    )
    return metadata
