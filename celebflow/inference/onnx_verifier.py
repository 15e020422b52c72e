"""A verifier → one ONNX file, from which any runtime computes the same coordinates of faces."""

from pathlib import Path
from typing import Any

import numpy as np

from celebflow.inference.onnx_graph import (
    INPUT,
    Graph,
    add_backbone,
    add_embedding,
    add_pixels,
    describe_input,
    draw_noise,
    make_model,
    require_onnx,
    run,
    save_checked,
)
from celebflow.inference.pair_verifier import PairVerifier

OUTPUT = "coordinates"
MAX_DIFFERENCE = 1e-3  # relative to the standard deviation of a coordinate


def export_verifier(verifier: PairVerifier, file: Path) -> float:
    """Write a verifier to an ONNX file, and check the file's coordinates against the verifier's.

    Its input is that of export_model. Its output is the (N, D) coordinates of the faces, by which pairs are scored; the
    metadata hold what a program needs for that.

    Returns the largest difference between coordinates, relative to their standard deviations, on a few photographs of
    noise.

    Raises CelebflowError, and leaves no file, when it exceeds MAX_DIFFERENCE or when the libraries are missing.
    """
    require_onnx()
    return save_checked(
        _build(verifier), file, lambda unchecked: _measure_difference(unchecked, verifier), MAX_DIFFERENCE
    )


def _build(verifier: PairVerifier) -> Any:
    transform = verifier.card.transform
    graph = Graph(INPUT)
    add_pixels(graph, transform)
    add_backbone(graph, verifier.backbone, transform)
    add_embedding(graph, verifier.verifier, len(transform.views))
    graph.name_last(OUTPUT)
    return make_model(graph, transform, {OUTPUT: len(verifier.verifier.model.between)}, _describe_model(verifier))


def _measure_difference(file: Path, verifier: PairVerifier) -> float:
    photographs = draw_noise()
    exported = run(file, verifier.card.transform, photographs)[OUTPUT]
    expected = np.concatenate([verifier.embed(photograph, whole=True) for photograph in photographs])
    deviations = np.sqrt(1 + verifier.verifier.model.between)
    return float((np.abs(exported - expected) / deviations).max())


def _describe_model(verifier: PairVerifier) -> dict[str, str]:
    """Return the metadata of the file: facts in JSON, and texts."""
    card = verifier.card
    facts = {
        "score": card.score,
        "between": verifier.verifier.model.between.tolist(),
        "slope": card.calibration.slope,
        "offset": card.calibration.offset,
        "max_probability": card.calibration.max_probability,
        "false_match_rate": card.calibration.false_match_rate,
        "false_non_match_rate": card.calibration.false_non_match_rate,
    }
    metadata = describe_input(card.transform, card.backbone, facts)
    metadata["output"] = (
        "Coordinates a and b of two faces have a score s. With the score plda, s is the sum over coordinates of "
        "(a² + b²) · (1 / (1 + v) - (1 + v) / (1 + 2 v)) / 2 + a · b · v / (1 + 2 v) + log(1 + v) - log(1 + 2 v) / 2, "
        "where v is between. With lda, s is the cosine of a and b. With p = 1 / (1 + exp(-(slope · s + offset))), the "
        "probability of the same person is 0.5 + (2 · max_probability - 1) · (p - 0.5)."
    )
    return metadata
