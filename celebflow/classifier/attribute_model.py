"""Which attributes a photograph shows: the model, its card, and its file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.attribute_calibration import AttributeCalibration
from celebflow.classifier.model_files import ATTRIBUTES, explain_mismatch, read_card, require_finite, save_model
from celebflow.classifier.network import Network, NetworkCard
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.features.transform import Transform
from celebflow.params import PreprocessingParams

# Increment it when the meaning of a saved file changes, so that files of earlier versions are refused.
_FORMAT = 1


@dataclass(frozen=True)
class AttributeCard(NetworkCard):
    """What a saved model of attributes needs to be used; `class_names` are the attributes.

    `yes_fractions` are the attributes' fractions of yes on train.
    """

    calibration: AttributeCalibration = field(kw_only=True)
    yes_fractions: tuple[float, ...] = field(kw_only=True)


class AttributeModel(Network):
    """A network whose outputs are attributes, each yes or no."""

    def __init__(self, card: AttributeCard, preprocessor: Preprocessor | None = None) -> None:
        super().__init__(card, preprocessor)
        self.card = card

    def save(self, path: Path) -> None:
        """Write weights and card to a safetensors file, the same bytes for the same values."""
        state = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        models = {"transform": self.card.transform.to_dict(), "preprocessing": self.card.preprocessing.model_dump()}
        save_model(state, asdict(self.card) | models | {"format": _FORMAT}, ATTRIBUTES, path)


def load_attribute_model(path: Path) -> AttributeModel:
    """Load what AttributeModel.save wrote, in evaluation mode on the CPU.

    Raises CelebflowError when the file is not a model of attributes that this version of celebflow can use.
    """
    with torch.device("meta"):
        model = AttributeModel(load_card(path))
    with explain_mismatch(path):
        state = load_file(path)
        model.load_state_dict(state, assign=True)
    require_finite(state, path)
    return model.eval()


def load_card(path: Path) -> AttributeCard:
    """Read a saved model's card, without its weights.

    Raises CelebflowError when the file has no card, or another version of celebflow saved it.
    """
    return read_card(path, ATTRIBUTES, _FORMAT, _make_card)


def _make_card(values: Mapping[str, Any]) -> AttributeCard:
    fitted = values["calibration"]
    calibration = {name: tuple(value) for name, value in fitted.items() if name != "used"}
    card = AttributeCard(
        class_names=tuple(values["class_names"]),
        hidden_units=tuple(values["hidden_units"]),
        dropout=values["dropout"],
        transform=Transform.from_dict(values["transform"]),
        backbone=BackboneSource(**values["backbone"]),
        preprocessing=PreprocessingParams(**values["preprocessing"]),
        calibration=AttributeCalibration(**calibration, used=fitted["used"]),
        yes_fractions=tuple(values["yes_fractions"]),
    )
    if not len(card.class_names) == len(card.yes_fractions) == len(card.calibration.slopes):
        raise ValueError("its attributes and its calibration differ in number")
    return card
