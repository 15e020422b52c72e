"""Photographs → who is in them, with a classifier that was taught and the backbone it was taught on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image

from celebflow.backbone import count_features, load_backbone
from celebflow.calibration import FloatArray, softmax
from celebflow.classifier import Classifier
from celebflow.errors import CelebflowError
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
        self._runtime = build_runtime(choose_runtime("auto", "cpu"), backbone, card.transform.layers)

    @torch.inference_mode()
    def predict(self, photographs: Sequence[Image.Image]) -> FloatArray:
        """Return (N, people) probabilities of N RGB photographs, in the order of the card's class names.

        Below the card's `calibration.threshold`, the greatest of a row says that nobody of them is in the photograph.
        """
        with ThreadPoolExecutor(self._runtime.workers) as workers:
            photographs_views = list(workers.map(self._extract, photographs))
        feature_count = count_features(self.card.transform.layers)
        views = (SparseBatch.from_rows(list(rows), feature_count) for rows in zip(*photographs_views, strict=True))
        return softmax(self._classifier.average(views).numpy() / self.card.calibration.temperature)

    def _extract(self, photograph: Image.Image) -> list[SparseRow]:
        faces = self.card.transform.find_faces(photograph)
        images = self.card.transform.apply(photograph, faces[0] if faces else None)
        return [SparseRow.from_dense(self._runtime.extract(image)) for image in images]
