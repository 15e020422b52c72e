"""What, beside the photographs, determines features."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from celebflow.backbone.vgg19 import BackboneSource, count_features
from celebflow.backbone.weights import load_backbone_source
from celebflow.features.runtimes import RuntimeName, choose_runtime
from celebflow.features.transform import WHOLE, Transform
from celebflow.params import ComputeParams, ExtractParams, FaceParams


@dataclass(frozen=True)
class FeatureOrigin:
    """What, beside the photographs, determines features; stored with them."""

    backbone: BackboneSource
    transform: Transform
    runtime: RuntimeName

    @property
    def feature_count(self) -> int:
        """Return how many features a view of a photograph has."""
        return count_features(self.transform.layers)

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        values = asdict(self) | {"transform": self.transform.to_dict()}
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "FeatureOrigin":
        """Read what `save` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        backbone, transform = BackboneSource(**values["backbone"]), Transform.from_dict(values["transform"])
        return cls(backbone, transform, values["runtime"])


def determine_origin(backbone_file: Path, extract: ExtractParams, compute: ComputeParams) -> FeatureOrigin:
    """Return what features will come from; raise CelebflowError when the runtime asked for cannot be had."""
    runtime = choose_runtime(extract.runtime, compute.device)
    transform = Transform(extract.image_size_px, _keep_effective(extract.face), extract.views, extract.layers)
    return FeatureOrigin(load_backbone_source(backbone_file), transform, runtime)


def _keep_effective(face: FaceParams) -> FaceParams:
    """Set what a crop does not use to one value, so that it makes no difference to the cache."""
    unused = {"none": ("center_fraction", "margin", "align"), "center": ("margin", "align"), "detect": ()}[face.crop]
    return face.model_copy(update={name: getattr(WHOLE, name) for name in unused})


def origin_file(folder: Path) -> Path:
    """Return where save_features writes what the features in `folder` came from."""
    return folder / "origin.json"
