"""The classifier that replaces VGG19's own: build it, save it with all that prediction needs, and load it."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from celebflow.classifier.cards import CLASSIFIER, ClassifierCard, load_classifier_card
from celebflow.classifier.gallery import Gallery
from celebflow.classifier.model_files import explain_mismatch, require_finite, save_model
from celebflow.classifier.network import Network
from celebflow.classifier.preprocessing import Preprocessor

_GALLERY = "gallery."  # begins the names of the gallery's tensors


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
    save_model(state, classifier.card, CLASSIFIER, path)


def load_classifier(path: Path) -> Classifier:
    """Load what save_classifier wrote, in evaluation mode on the CPU.

    Raises CelebflowError when the file is not a classifier that this version of celebflow can use.
    """
    with torch.device("meta"):
        classifier = Classifier(load_classifier_card(path))
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
