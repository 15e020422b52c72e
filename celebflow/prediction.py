"""Photographs → who is in them, with a classifier that was taught and the backbone it was taught on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from celebflow.backbone import FEATURE_COUNT, load_backbone
from celebflow.classifier import Classifier
from celebflow.errors import CelebflowError
from celebflow.evaluation import FloatArray, softmax
from celebflow.runtimes import build_runtime, choose_runtime
from celebflow.sparse import SparseBatch, SparseRow


class Predictor:
    """A classifier with its backbone, on the CPU, ready for photographs; what it needs to know stands in its card."""

    def __init__(self, classifier: Classifier, backbone_file: Path) -> None:
        backbone = load_backbone(backbone_file, "cpu")
        card = classifier.card
        if backbone.source.fingerprint != card.backbone.fingerprint:
            raise CelebflowError(
                f"{backbone_file} is not the backbone that the classifier was taught on ({card.backbone.weights}). "
                "Run `dvc repro`."
            )
        self.card = card
        self._classifier = classifier.eval()
        self._runtime = build_runtime(choose_runtime("auto", "cpu"), backbone)

    @torch.inference_mode()
    def predict(self, photographs: Sequence[Image.Image]) -> FloatArray:
        """Return (N, people) probabilities of N RGB photographs, in the order of the card's class names."""
        images = [self.card.transform.apply(photograph) for photograph in photographs]
        rows = [SparseRow.from_dense(self._runtime.extract(image)) for image in images]
        return softmax(self._classifier(SparseBatch.from_rows(rows, FEATURE_COUNT)).numpy())
