"""Which attributes a photograph shows: the model, and its file."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from celebflow.classifier.cards import ATTRIBUTES, AttributeCard, load_attribute_card
from celebflow.classifier.model_files import explain_mismatch, require_finite, save_model
from celebflow.classifier.network import Network
from celebflow.classifier.preprocessing import Preprocessor


class AttributeModel(Network):
    """A network whose outputs are attributes, each yes or no."""

    def __init__(self, card: AttributeCard, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(card, preprocessor)
        self.card = card

    def save(self, path: Path) -> None:
        """Write weights and card to a safetensors file, the same bytes for the same values."""
        state = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_model(state, self.card, ATTRIBUTES, path)


def load_attribute_model(path: Path) -> AttributeModel:
    """Load what AttributeModel.save wrote, in evaluation mode on the CPU.

    Raises CelebflowError when the file is not a model of attributes that this version of celebflow can use.
    """
    with torch.device("meta"):
        model = AttributeModel(load_attribute_card(path))
    with explain_mismatch(path):
        state = load_file(path)
        model.load_state_dict(state, assign=True)
    require_finite(state, path)
    return model.eval()
