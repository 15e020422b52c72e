"""Decode a photograph from the bytes of its file, alike for training and inference."""

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
# Every scan of a progressive JPEG costs a pass over all its pixels, but few bytes; real files have about ten.
_START_OF_SCAN = b"\xff\xda"
_MAX_SCANS = 100
# What brings each of EXIF's orientations upright; 1 is upright.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises for truncated or damaged files.
_DAMAGE = OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, TypeError, AttributeError, struct.error
# Pillow warns at a size of its own; decode_photograph refuses at MAX_PIXELS.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)  # the photograph itself may be sound


class PhotographError(CelebflowError):
    """A file is not a photograph that celebflow can read; the text is the reason, without the file's name."""


def decode_photograph(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a whole JPEG, PNG, WebP or BMP file to an upright RGB image; transparent parts become white.

    Raises PhotographError when the bytes are not such a file, are truncated or damaged, or decode to more than
    `max_pixels`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise PhotographError(f"has {width}×{height} pixels, more than {max_pixels / 1e6:.0f} megapixels")
            if image.format == "JPEG" and (scans := content.count(_START_OF_SCAN)) > _MAX_SCANS:
                raise PhotographError(f"has {scans} scans, more than {_MAX_SCANS}")
            # ImageOps.exif_transpose also rewrites the EXIF data, and fails where they are damaged.
            transposition = _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            return _to_rgb(image if transposition is None else image.transpose(transposition))
    except UnidentifiedImageError:
        raise PhotographError(f"is not a {ANY_FORMAT} image") from None
    except Image.DecompressionBombError:
        raise PhotographError(f"decodes to far more than {max_pixels / 1e6:.0f} megapixels") from None
    except _DAMAGE as error:
        raise PhotographError(f"is truncated or damaged ({error})") from None


def decode_base64(text: str) -> bytes:
    """Return the bytes of a file in base64; raise PhotographError for any other text. No path or URL is opened."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise PhotographError("is not in base64; paths and URLs are not read") from None


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return an (H, W, 3) image as the bytes of a JPEG file."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=85)
    return content.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips 16-bit grays to white
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
