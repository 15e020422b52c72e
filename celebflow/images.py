"""Decode and transform a photograph: one way for training and for prediction."""

import base64
import io
import struct
import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from celebflow.errors import CelebflowError
from celebflow.faces import Face, crop_centre, crop_square, detect_faces
from celebflow.params import FaceParams, LayerName, View

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
ANY_FORMAT = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
MAX_PIXELS = 100_000_000

# A progressive JPEG may be drawn in any number of passes over all of it, each of some bytes; a real one has about ten.
_START_OF_SCAN = b"\xff\xda"
_MOST_SCANS = 100
# What EXIF's orientation asks for; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises of files that are cut off, or hold what they should not.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    OverflowError,
    TypeError,
    AttributeError,
    struct.error,
)

# Pillow only warns of what is large, and refuses at a size of its own; decode_photograph refuses at MAX_PIXELS.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # the photograph itself may be sound


class PhotographError(CelebflowError):
    """A file that is no photograph which celebflow can read; its text is the reason, without the file's name."""


# What remains of the width and of the height in a closer view.
_CLOSER_FRACTION = 0.88
WHOLE = FaceParams(crop="none", centre_fraction=1.0, margin=0.0, align=False)


@dataclass(frozen=True)
class Transform:
    """What a decoded photograph becomes on its way to features; saved with every classifier.

    The part that `face` says is cut out and shown in each of the `views`. Its shorter side is resized to
    `image_size_px` (bilinear, antialiased), the centre square is kept, and the channels are normalised as
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

    def cut_out(self, photograph: Image.Image, face: Face | None) -> Image.Image:
        """Return the part of an RGB image that the network sees, as large as it is there.

        Without a face, where faces are detected, it is the centre square.
        """
        if face is not None:
            return crop_square(photograph, face, self.face.margin, self.face.align)
        return photograph if self.face.crop == "none" else crop_centre(photograph, self.face.centre_fraction)

    def cut_out_subject(self, photograph: Image.Image) -> Image.Image:
        """Return the part of an RGB image that the network sees when nobody says which face is meant."""
        return self.cut_out(photograph, self.find_subject(photograph))

    def show(self, photograph: Image.Image, face: Face | None) -> list[Image.Image]:
        """Cut an RGB image, or a face in it, out for each view, as a square of image_size_px."""
        part, size = self.cut_out(photograph, face), (self.image_size_px, self.image_size_px)
        return [
            ImageOps.fit(_show(part, view), size, Image.Resampling.BILINEAR, centering=(0.5, 0.5))
            for view in self.views
        ]

    def apply(self, photograph: Image.Image, face: Face | None) -> list[NDArray[np.float32]]:
        """Turn an RGB image, or a face in it, into a (3, image_size_px, image_size_px) array for each view."""
        return [self._normalise(square) for square in self.show(photograph, face)]

    def _normalise(self, square: Image.Image) -> NDArray[np.float32]:
        pixels = np.asarray(square, dtype=np.float32) / np.float32(255)
        normalised = (pixels - np.array(self.mean, np.float32)) / np.array(self.standard_deviation, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))

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
        image = crop_centre(image, _CLOSER_FRACTION)
    return ImageOps.mirror(image) if view.endswith("mirrored") else image


def decode_photograph(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a whole JPEG, PNG, WebP or BMP file to an upright RGB image; transparent parts become white.

    Raises PhotographError when the bytes are no such file, are truncated or damaged, or unpack to more than
    `max_pixels`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width}×{image.height} pixels"
                raise PhotographError(f"has {size}, more than {max_pixels / 1e6:.0f} megapixels")
            if image.format == "JPEG" and (scans := content.count(_START_OF_SCAN)) > _MOST_SCANS:
                raise PhotographError(f"is drawn in {scans} passes, more than {_MOST_SCANS}")
            # ImageOps.exif_transpose would also write the EXIF anew, and fail where that is odd.
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            return _to_rgb(image if turn is None else image.transpose(turn))
    except UnidentifiedImageError:
        raise PhotographError(f"is no {ANY_FORMAT} image") from None
    except Image.DecompressionBombError:
        raise PhotographError(f"unpacks to far more than {max_pixels / 1e6:.0f} megapixels") from None
    except _DAMAGE as error:
        raise PhotographError(f"is truncated or damaged ({error})") from None


def decode_base64(text: str) -> bytes:
    """Return the bytes of a file in base64; raise PhotographError when it is none: no path or address is opened."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise PhotographError("is not in base64; paths and addresses are not read") from None


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return an (H, W, 3) picture as a JPEG file."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=85)
    return content.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip 16-bit greys to white
        greys = np.asarray(image, dtype=np.uint16) >> 8
        image = Image.fromarray(greys.astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
