"""From a decoded photograph to the network’s input: crop, views, resize, normalize."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from celebflow.features.crops import crop_center, crop_square
from celebflow.features.faces import Face, detect_faces
from celebflow.params import FaceParams, LayerName, View

# What remains of the width and of the height in a closer view.
_CLOSER_FRACTION = 0.88
WHOLE = FaceParams(crop="none", center_fraction=1.0, margin=0.0, align=False)


@dataclass(frozen=True)
class Transform:
    """What a decoded photograph becomes on its way to features; saved with every classifier.

    The part that `face` says is cut out and shown in each of the `views`. Its shorter side is resized to
    `image_size_px` (bilinear, antialiased), the center square is kept, and the channels are normalized as
    torchvision's ImageNet weights expect. The outputs of `layers` are its features.
    """

    image_size_px: int
    face: FaceParams = WHOLE
    views: tuple[View, ...] = ("original",)
    layers: tuple[LayerName, ...] = ("pool5",)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    standard_deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def detects_faces(self) -> bool:
        """Tell whether faces are looked for."""
        return self.face.crop == "detect"

    def find_faces(self, photograph: Image.Image) -> list[Face]:
        """Return the faces in an RGB image, the photograph's subject first; none unless faces are detected."""
        return detect_faces(photograph) if self.detects_faces else []

    def find_subject(self, photograph: Image.Image) -> Face | None:
        """Return the face of an RGB image's subject; None where there is none, or faces are not detected."""
        return next(iter(self.find_faces(photograph)), None)

    def crop(self, photograph: Image.Image, face: Face | None) -> Image.Image:
        """Return the part of an RGB image that the network sees, as large as it is there.

        Without a face, where faces are detected, it is the center square.
        """
        if face is not None:
            return crop_square(photograph, face, self.face.margin, self.face.align)
        return photograph if self.face.crop == "none" else crop_center(photograph, self.face.center_fraction)

    def crop_subject(self, photograph: Image.Image) -> Image.Image:
        """Return the part of an RGB image that the network sees when nobody says which face is meant."""
        return self.crop(photograph, self.find_subject(photograph))

    def make_views(self, photograph: Image.Image, face: Face | None) -> list[Image.Image]:
        """Cut an RGB image, or a face in it, out for each view, as a square of image_size_px."""
        part, size = self.crop(photograph, face), (self.image_size_px, self.image_size_px)
        return [
            ImageOps.fit(_show(part, view), size, Image.Resampling.BILINEAR, centering=(0.5, 0.5))
            for view in self.views
        ]

    def make_inputs(self, photograph: Image.Image, face: Face | None) -> list[NDArray[np.float32]]:
        """Turn an RGB image, or a face in it, into a (3, image_size_px, image_size_px) array for each view."""
        return [self._normalize(square) for square in self.make_views(photograph, face)]

    def _normalize(self, square: Image.Image) -> NDArray[np.float32]:
        pixels = np.asarray(square, dtype=np.float32) / np.float32(255)
        normalized = (pixels - np.array(self.mean, np.float32)) / np.array(self.standard_deviation, np.float32)
        return np.ascontiguousarray(normalized.transpose(2, 0, 1))

    def only(self, *views: View) -> "Transform":
        """Return the same with these views alone."""
        return replace(self, views=views)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, to be stored beside a classifier."""
        return asdict(self) | {"face": self.face.model_dump()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transform":
        """Restore what to_dict returned, also after a round trip through JSON."""
        return cls(
            image_size_px=values["image_size_px"],
            face=FaceParams(**values["face"]),
            views=tuple(values["views"]),
            layers=tuple(values["layers"]),
            mean=tuple(values["mean"]),
            standard_deviation=tuple(values["standard_deviation"]),
        )


def _show(image: Image.Image, view: View) -> Image.Image:
    if view.startswith("closer"):
        image = crop_center(image, _CLOSER_FRACTION)
    return ImageOps.mirror(image) if view.endswith("mirrored") else image
