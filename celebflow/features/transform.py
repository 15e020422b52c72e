"""Turn a decoded photograph into the network's input: crop, views, resize, normalize."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from celebflow.features.crops import crop_center, crop_square
from celebflow.features.faces import Face, detect_faces
from celebflow.params import FaceParams, LayerName, View

# The fraction of the width and of the height that a closer view keeps.
_CLOSER_FRACTION = 0.88
WHOLE = FaceParams(crop="none", center_fraction=1.0, margin=0.0, align=False)


@dataclass(frozen=True)
class Transform:
    """How a decoded photograph becomes the network's input; saved with every classifier.

    The photograph is cropped according to `face`, and each of the `views` is made of the crop. The shorter side of a
    view is resized to `image_size_px` (bilinear, antialiased), its center square is kept, and the channels are
    normalized as torchvision's ImageNet weights expect. The outputs of `layers` are the features.
    """

    image_size_px: int
    face: FaceParams = WHOLE
    views: tuple[View, ...] = ("original",)
    layers: tuple[LayerName, ...] = ("pool5",)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    standard_deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def detects_faces(self) -> bool:
        """Tell whether faces are detected."""
        return self.face.crop == "detect"

    def find_faces(self, photograph: Image.Image) -> list[Face]:
        """Return the faces in an RGB image, its subject first; an empty list unless faces are detected."""
        return detect_faces(photograph) if self.detects_faces else []

    def find_subject(self, photograph: Image.Image) -> Face | None:
        """Return the face of an RGB image's subject; None without any face, or when faces are not detected."""
        return next(iter(self.find_faces(photograph)), None)

    def crop(self, photograph: Image.Image, face: Face | None) -> Image.Image:
        """Crop the part of an RGB image that the network sees, at the resolution of the image.

        Without a face, it is the center square, or the whole image when `face.crop` is none.
        """
        if face is not None:
            return crop_square(photograph, face, self.face.margin, self.face.align)
        return photograph if self.face.crop == "none" else crop_center(photograph, self.face.center_fraction)

    def make_views(self, photograph: Image.Image, face: Face | None) -> list[Image.Image]:
        """Return the views of an RGB image, or of a face in it, as squares of image_size_px."""
        part = self.crop(photograph, face)
        size = (self.image_size_px, self.image_size_px)
        return [ImageOps.fit(_make_view(part, view), size, Image.Resampling.BILINEAR) for view in self.views]

    def make_inputs(self, photograph: Image.Image, face: Face | None) -> list[NDArray[np.float32]]:
        """Turn an RGB image, or a face in it, into a (3, image_size_px, image_size_px) array for each view."""
        return [self._normalize(square) for square in self.make_views(photograph, face)]

    def _normalize(self, square: Image.Image) -> NDArray[np.float32]:
        pixels = np.asarray(square, dtype=np.float32) / np.float32(255)
        normalized = (pixels - np.array(self.mean, np.float32)) / np.array(self.standard_deviation, np.float32)
        return np.ascontiguousarray(normalized.transpose(2, 0, 1))

    def only(self, *views: View) -> "Transform":
        """Return the same transform with only these views."""
        return replace(self, views=views)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can store."""
        return asdict(self) | {"face": self.face.model_dump()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transform":
        """Restore a transform from what to_dict returned, even after a round trip through JSON."""
        tuples = {name: tuple(values[name]) for name in ("views", "layers", "mean", "standard_deviation")}
        return cls(**values | tuples | {"face": FaceParams(**values["face"])})


def _make_view(image: Image.Image, view: View) -> Image.Image:
    if view.startswith("closer"):
        image = crop_center(image, _CLOSER_FRACTION)
    return ImageOps.mirror(image) if view.endswith("mirrored") else image
