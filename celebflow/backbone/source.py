"""Where a backbone's weights came from, and how many features it makes; read without PyTorch, which imports slowly."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from celebflow.errors import CelebflowError, raise_shortage
from celebflow.params import LayerName

FEATURE_COUNT = 512 * 7 * 7  # of one layer, pool4 or pool5, flattened channel-first like torchvision
BASE_LAYERS: tuple[LayerName, ...] = ("pool5",)
UNTRAINED_WARNING = (
    "UNTRAINED BACKBONE: random filters, no ImageNet weights; these figures say nothing about real faces."
)


@dataclass(frozen=True)
class BackboneSource:
    """Where a backbone's weights came from; saved with it and with every classifier that was trained on it.

    `fingerprint` is the SHA-256 of the values: backbones with equal fingerprints compute the same features.
    """

    weights: str
    trained: bool
    fingerprint: str

    def warning(self) -> str:
        """Return the warning to show with every result; it is empty for trained weights."""
        return "" if self.trained else UNTRAINED_WARNING


def count_features(layers: Sequence[LayerName]) -> int:
    """Return the number of features of all `layers` together."""
    return FEATURE_COUNT * len(layers)


def load_backbone_source(path: Path) -> BackboneSource:
    """Read where a saved backbone came from, without loading its weights.

    Raises CelebflowError when the file is missing or damaged, or an earlier version of celebflow wrote it.
    """
    try:
        with safe_open(path, "np") as file:
            return BackboneSource(**json.loads((file.metadata() or {})["celebflow"]))
    except (SafetensorError, OSError) as error:
        raise_shortage(error, path)
        raise CelebflowError(f"{path} is damaged or missing: {error}. Remove it, and run `dvc repro`.") from None
    except (KeyError, TypeError, ValueError):
        raise CelebflowError(
            f"{path} does not state where its weights came from: an older celebflow wrote it. Run `dvc repro`."
        ) from None
