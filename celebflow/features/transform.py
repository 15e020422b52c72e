"""Turn a decoded photograph into the network's input: crop, views, resize, normalize."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from celebflow.backbone.source import count_features
from celebflow.features.crops import crop_center, crop_square
from celebflow.features.faces import Face, detect_faces
from celebflow.params import FaceParams, LayerName, View

# The fraction of the width and of the height that a closer view keeps.
_CLOSER_FRACTION = 0.88
WHOLE = FaceParams(crop="none", center_fraction=1.0, margin=0.0, align=False)
_OF_CONTEXT = ("context", "context_margin")


@dataclass(frozen=True)
class Transform:
    """How a decoded photograph becomes the network's input; saved with every classifier.

    The photograph is cropped according to `face`, and each of the `views` is made of the crop. The shorter side of a
    view is resized to `image_size_px` (bilinear, antialiased), its center square is kept, and the channels are
    normalized as torchvision's ImageNet weights expect. The outputs of `layers` are the features. The same is done
    with the context, if there is one; its features follow those of the crop.
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

    @property
    def regions(self) -> tuple["Transform", ...]:
        """Return a transform for each region of a photograph, crop and context, whose features stand side by side."""
        crop = self.face.model_copy(update={name: getattr(WHOLE, name) for name in _OF_CONTEXT})
        wider = crop.model_copy(update={"margin": self.face.context_margin, "center_fraction": 1.0})
        faces = {"none": (crop,), "margin": (crop, wider), "photograph": (crop, WHOLE)}[self.face.context]
        return tuple(replace(self, face=face) for face in faces)

    @property
    def shown(self) -> "Transform":
        """Return the region that is shown beside its heat map: the last, which contains the others."""
        return self.regions[-1]

    @property
    def feature_count(self) -> int:
        """Return the number of features of one view of a photograph."""
        return len(self.regions) * count_features(self.layers)

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
        if face is not None and self.detects_faces:
            return crop_square(photograph, face, self.face.margin, self.face.align)
        return photograph if self.face.crop == "none" else crop_center(photograph, self.face.center_fraction)

    def make_views(self, photograph: Image.Image, face: Face | None) -> list[Image.Image]:
        """Return the views of an RGB image, or of a face in it, as squares of image_size_px.

        With a context, each view's crop is followed by its context.
        """
        size = (self.image_size_px, self.image_size_px)
        areas = [region.crop(photograph, face) for region in self.regions]
        return [
            ImageOps.fit(_make_view(area, view), size, Image.Resampling.BILINEAR)
            for view in self.views
            for area in areas
        ]

    def make_inputs(self, photograph: Image.Image, face: Face | None) -> list[NDArray[np.float32]]:
        """Turn what make_views returns into (3, image_size_px, image_size_px) arrays."""
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
        unused = set(_OF_CONTEXT) if self.face.context == "none" else set()
        return asdict(self) | {"face": self.face.model_dump(exclude=unused)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transform":
        """Restore a transform from what to_dict returned, even after a round trip through JSON."""
        tuples = {name: tuple(values[name]) for name in ("views", "layers", "mean", "standard_deviation")}
        return cls(**values | tuples | {"face": FaceParams(**values["face"])})


def _make_view(image: Image.Image, view: View) -> Image.Image:
    if view.startswith("closer"):
        image = crop_center(image, _CLOSER_FRACTION)
    return ImageOps.mirror(image) if view.endswith("mirrored") else image
