"""A result with photographs, features and explanations, that tests share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier.model import Classifier
from celebflow.evaluation.classifier_evaluation import explain_splits
from celebflow.evaluation.explanations import Explanation, load_explanations
from celebflow.evaluation.results import Prediction, Report
from celebflow.features.origin import FeatureOrigin
from celebflow.features.store import Features
from celebflow.report.examples import Example, build_examples
from tests.images import hash_photos
from tests.models import make_gallery
from tests.results import list_photos, make_card, write_result


@dataclass(frozen=True, eq=False)
class PhotographedResult:
    """A result on photographs in `folder`, with its explanations and examples."""

    report: Report
    classifier: Classifier
    features: Features
    folder: Path
    explained: dict[str, list[Explanation[Prediction]]]
    examples: list[Example]


def make_result(
    folder: Path, logits: NDArray[np.float32], labels: NDArray[np.int64], *, trained: bool = True
) -> PhotographedResult:
    """Make a result of these logits, with three training photographs per person; each has a color of its own."""
    names = [f"Person_{number} $x^2$" for number in range(logits.shape[1])]
    report, card = write_result(folder, make_card(names, trained=trained), logits, labels)
    photos = [
        *list_photos(card.class_names, labels, "test"),
        *list_photos(card.class_names, np.arange(len(names)).repeat(3), "train"),
        *list_photos(card.class_names, labels, "val"),
    ]
    for number, photo in enumerate(photos):
        path = folder / "data" / photo.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(path)
    photos = hash_photos(photos, folder / "data")
    random = np.random.default_rng(0)
    indices = [np.sort(random.choice(FEATURE_COUNT, 50, replace=False)).astype(np.uint16) for _ in photos]
    features = Features(
        offsets=np.arange(len(photos) + 1) * 50,
        indices=np.concatenate(indices),
        values=random.random(50 * len(photos), np.float32),
        photos=photos,
        origin=FeatureOrigin(card.backbone, card.transform, "torch"),
        subjects={},
    )
    classifier = Classifier(card).eval()
    classifier.gallery = make_gallery(len(names), card.transform)
    explain_splits(classifier, features, folder)
    explained = {
        split: load_explanations(content.predictions, folder / split) for split, content in report.splits.items()
    }
    examples = build_examples(explained, features, folder / "data")
    return PhotographedResult(report, classifier, features, folder / "data", explained, examples)


def find_row(image: NDArray[np.uint8]) -> int:
    """Return by its color which of a result's photographs this is, as a row of the features."""
    red, green, _ = image[0, 0]
    return int(red) + 256 * int(green)
