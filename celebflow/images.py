"""Decode and transform a photograph: one way for training and for prediction."""

import io
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from celebflow.errors import CelebflowError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 100_000_000

# Pillow only warns of what is large, and refuses at a size of its own; decode_photograph refuses at MAX_PIXELS.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PhotographError(CelebflowError):
    """A file that is no photograph which celebflow can read; its text is the reason, without the file's name."""


@dataclass(frozen=True)
class Transform:
    """How a decoded photograph becomes the network's input; saved with every classifier.

    The shorter side is resized to `image_size_px` (bilinear, antialiased), the centre square is kept, and the
    channels are normalised as torchvision's ImageNet weights expect.
    """

    image_size_px: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    standard_deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def apply(self, photograph: Image.Image) -> NDArray[np.float32]:
        """Turn an RGB image into a (3, image_size_px, image_size_px) array."""
        size = (self.image_size_px, self.image_size_px)
        square = ImageOps.fit(photograph, size, Image.Resampling.BILINEAR, centering=(0.5, 0.5))
        pixels = np.asarray(square, dtype=np.float32) / np.float32(255)
        normalised = (pixels - np.array(self.mean, np.float32)) / np.array(self.standard_deviation, np.float32)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, to be stored beside a classifier."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transform":
        """Restore what to_dict returned, also after a round trip through JSON."""
        return cls(
            image_size_px=values["image_size_px"],
            mean=tuple(values["mean"]),
            standard_deviation=tuple(values["standard_deviation"]),
        )


def decode_photograph(content: bytes) -> Image.Image:
    """Decode a whole JPEG, PNG, WebP or BMP file to an upright RGB image; transparent parts become white.

    Raises PhotographError when the bytes are no such file, are truncated or damaged, or unpack to more than
    MAX_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PhotographError(_too_large(image.width, image.height))
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise PhotographError(f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Image.DecompressionBombError:
        raise PhotographError(f"unpacks to far more than {MAX_PIXELS / 1e6:.0f} megapixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError) as error:  # as Pillow raises them
        raise PhotographError(f"is truncated or damaged ({error})") from None


def _too_large(width: int, height: int) -> str:
    return f"has {width}×{height} pixels, more than {MAX_PIXELS / 1e6:.0f} megapixels"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip 16-bit greys to white
        greys = np.asarray(image, dtype=np.uint16) >> 8
        image = Image.fromarray(greys.astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
