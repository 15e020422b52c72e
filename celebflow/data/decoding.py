"""Decode and transform a photograph: one way for training and for prediction."""

import base64
import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from celebflow.errors import CelebflowError

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
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip 16-bit grays to white
        grays = np.asarray(image, dtype=np.uint16) >> 8
        image = Image.fromarray(grays.astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
