"""The classifier that replaces VGG19's own: build it, save it with all that prediction needs, and load it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.calibration import Calibration
from celebflow.classifier.gallery import Gallery
from celebflow.classifier.model_files import CLASSIFIER, explain_mismatch, read_card, require_finite, save_model
from celebflow.classifier.network import Network, NetworkCard
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.features.transform import Transform
from celebflow.params import PreprocessingParams

# Increment it when the meaning of a saved file changes, so that files of earlier versions are refused.
_FORMAT = 5
_GALLERY = "gallery."  # begins the names of the gallery's tensors


@dataclass(frozen=True)
class ClassifierCard(NetworkCard):
    """What a saved classifier needs to be used; `class_names` are people."""

    calibration: Calibration = field(kw_only=True)


class Classifier(Network):
    """A network whose outputs are people.

    `gallery` tells unknown people; it stays on the CPU, and is None where there is nothing to fit it to.
    """

    def __init__(self, card: ClassifierCard, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(card, preprocessor)
        self.card = card
        self.gallery: Gallery | None = None

    def save(self, path: Path) -> None:
        """Write weights and card to a safetensors file."""
        save_classifier(self, path)


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write weights, gallery and card to a safetensors file, the same bytes for the same values."""
    state = {name: tensor.cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    if classifier.gallery is not None:
        state |= {f"{_GALLERY}{name}": tensor for name, tensor in classifier.gallery.state().items()}
    card = classifier.card
    models = {"transform": card.transform.to_dict(), "preprocessing": card.preprocessing.model_dump()}
    save_model(state, asdict(card) | models | {"format": _FORMAT}, CLASSIFIER, path)


def load_classifier(path: Path) -> Classifier:
    """Load what save_classifier wrote, in evaluation mode on the CPU.

    Raises CelebflowError when the file is not a classifier that this version of celebflow can use.
    """
    with torch.device("meta"):
        classifier = Classifier(load_card(path))
    with explain_mismatch(path):
        state = load_file(path)
        of_gallery = {name.removeprefix(_GALLERY): state.pop(name) for name in [*state] if name.startswith(_GALLERY)}
        classifier.load_state_dict(state, assign=True)
        if of_gallery:
            classifier.gallery = Gallery.from_state(of_gallery, classifier.preprocessor.feature_count)
        _require_gallery(classifier)
    require_finite(state | of_gallery, path)
    return classifier.eval()


def _require_gallery(classifier: Classifier) -> None:
    """Raise KeyError when the gallery is missing that the card's threshold needs, or has other people."""
    needed = len(classifier.card.class_names) if classifier.card.calibration.threshold is not None else 0
    found = 0 if classifier.gallery is None else len(classifier.gallery.means)
    if found != needed:
        raise KeyError(f"a gallery of {needed} people, not {found}")


def load_card(path: Path) -> ClassifierCard:
    """Read a saved classifier's card, without its weights.

    Raises CelebflowError when the file has no card, or another version of celebflow saved it.
    """
    return read_card(path, CLASSIFIER, _FORMAT, _make_card)


def _make_card(values: Mapping[str, Any]) -> ClassifierCard:
    return ClassifierCard(
        class_names=tuple(values["class_names"]),
        hidden_units=tuple(values["hidden_units"]),
        dropout=values["dropout"],
        transform=Transform.from_dict(values["transform"]),
        backbone=BackboneSource(**values["backbone"]),
        calibration=Calibration(**values["calibration"]),
        preprocessing=PreprocessingParams(**values["preprocessing"]),
    )
