"""The classifier that replaces VGG19's own: built, saved with all that prediction needs, and loaded."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from celebflow.backbone import BackboneSource, count_features
from celebflow.calibration import UNCALIBRATED, Calibration
from celebflow.errors import CelebflowError
from celebflow.feature_transforms import UNCHANGED, FeatureTransform
from celebflow.images import Transform
from celebflow.layers import DenseLinear, SparseLinear
from celebflow.sparse import SparseBatch


@dataclass(frozen=True)
class ClassifierCard:
    """What a saved classifier needs to be used; prediction never reads params.yaml."""

    class_names: tuple[str, ...]
    hidden_units: tuple[int, ...]
    dropout: float
    transform: Transform
    backbone: BackboneSource
    calibration: Calibration
    feature_transform: FeatureTransform = UNCHANGED


class Classifier(nn.Module):
    """Features → logits: linear layers with ReLU and Dropout between them, one output a person.

    `first` is the layer that takes the features. Where they are projected, it is that projection, and learns nothing.
    """

    scale: Tensor  # (features,), where they are standardised

    def __init__(self, card: ClassifierCard) -> None:
        super().__init__()
        self.card = card
        feature_count = count_features(card.transform.layers)
        if card.feature_transform.standardise:
            self.register_buffer("scale", torch.ones(feature_count))
        widths = [*card.hidden_units, len(card.class_names)]
        layers: list[nn.Module] = []
        if (components := card.feature_transform.components) is None:
            self.first = SparseLinear(feature_count, widths[0])
        else:
            self.first = SparseLinear(feature_count, components).requires_grad_(False)
            layers.append(DenseLinear(components, widths[0]))
        for inputs, outputs in pairwise(widths):
            layers += [nn.ReLU(), nn.Dropout(card.dropout), DenseLinear(inputs, outputs)]
        self.rest = nn.Sequential(*layers)

    def prepare(self, features: SparseBatch) -> SparseBatch:
        """Return (N, 25088 · layers) features as the first layer takes them."""
        standardised = self.card.feature_transform.standardise
        return self.card.feature_transform.apply(features, self.scale.cpu().numpy() if standardised else None)

    def forward(self, features: SparseBatch) -> Tensor:
        """Turn (N, 25088 · layers) features into (N, people) logits."""
        logits: Tensor = self.rest(self.first(self.prepare(features)))
        return logits

    def embed(self, features: SparseBatch) -> Tensor:
        """Turn (N, 25088 · layers) features into what the last layer takes: (N, width). Without one, that is logits."""
        embedded: Tensor = self.rest[:-1](self.first(self.prepare(features)))
        return embedded

    def average(self, views: Iterable[SparseBatch]) -> Tensor:
        """Return the mean of the (N, people) logits of several views of N photographs."""
        return torch.stack([self(features) for features in views]).mean(0)


def make_classifier(
    class_names: Sequence[str],
    hidden_units: Sequence[int],
    dropout: float,
    transform: Transform,
    backbone: BackboneSource,
    feature_transform: FeatureTransform = UNCHANGED,
) -> Classifier:
    """Build a fresh classifier; its first weights follow from torch's global seed."""
    names, widths = tuple(class_names), tuple(hidden_units)
    return Classifier(ClassifierCard(names, widths, dropout, transform, backbone, UNCALIBRATED, feature_transform))


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write weights and card to a safetensors file, the same bytes for the same values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    # One key: safetensors writes several in no fixed order.
    card = asdict(classifier.card) | {"transform": classifier.card.transform.to_dict()}
    save_file(state, path, metadata={"celebflow": json.dumps(card, sort_keys=True)})


def load_classifier(path: Path) -> Classifier:
    """Load what save_classifier wrote, in evaluation mode on the CPU.

    Raises CelebflowError when the file is no classifier of celebflow's.
    """
    with torch.device("meta"):
        classifier = Classifier(load_card(path))
    try:
        classifier.load_state_dict(load_file(path), assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise CelebflowError(f"{path} does not hold what its card says ({error}). Run `dvc repro`.") from None
    return classifier.eval()


def load_card(path: Path) -> ClassifierCard:
    """Read a saved classifier's card, without its weights; raise CelebflowError when the file has none."""
    try:
        with safe_open(path, "pt") as file:
            return _parse_card(json.loads(file.metadata()["celebflow"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CelebflowError(f"{path} is no classifier that celebflow saved ({error}). Run `dvc repro`.") from None


def _parse_card(values: dict[str, Any]) -> ClassifierCard:
    return ClassifierCard(
        class_names=tuple(values["class_names"]),
        hidden_units=tuple(values["hidden_units"]),
        dropout=values["dropout"],
        transform=Transform.from_dict(values["transform"]),
        backbone=BackboneSource(**values["backbone"]),
        calibration=Calibration(**values["calibration"]),
        feature_transform=FeatureTransform(**values["feature_transform"]),
    )
