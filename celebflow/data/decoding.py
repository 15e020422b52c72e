"""Decode a photograph from the bytes of its file, alike for training and inference."""

import base64
import hashlib
import io
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from celebflow.data.files import read_file
from celebflow.data.formats import PhotographError, can_read, explain_format, explain_refusal, identify_format
from celebflow.data.isolation import MAX_SECONDS, decode_isolated
from celebflow.data.pixels import MAX_PIXELS, SlowError, decode
from celebflow.errors import CelebflowError

# Headers of these do not say what decoding costs: one file holds many images, of which others are made.
_ISOLATED = ("TIFF", "AVIF", "HEIF")
_MAX_QUICK_BYTES = 2**24  # what may take longer is decoded where it can be ended, if the caller has no time
_DATA_URL = re.compile(rb"\s*data:[^,]*;base64,", re.IGNORECASE)
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")  # from the URL-safe alphabet


def decode_photograph(content: bytes, max_pixels: int = MAX_PIXELS, max_seconds: float | None = None) -> Image.Image:
    """Decode a whole image file to an upright RGB image in the color space sRGB; transparent parts become white.

    Raises PhotographError when the bytes are not a file of a format that list_formats names, are truncated or damaged,
    decode to more than `max_pixels`, or take more than `max_seconds`. By default, only formats whose cost is not known
    beforehand have such a limit, of MAX_SECONDS.
    """
    name = identify_format(content)
    if name is None or not can_read(name):
        raise PhotographError(explain_format(name))
    in_haste = max_seconds is not None
    if name not in _ISOLATED and not (in_haste and len(content) > _MAX_QUICK_BYTES):
        with suppress(SlowError):
            return decode(content, name, max_pixels, quick=in_haste)
    return decode_isolated(content, name, max_pixels, MAX_SECONDS if max_seconds is None else max_seconds)


def load_photograph(path: Path, sha256: str | None = None) -> Image.Image:
    """Decode the photograph in a file that prepare has checked.

    Raises CelebflowError when it cannot be read or decoded now, or no longer has this SHA-256.
    """
    return decode_checked(path, read_checked(path, sha256))


def read_checked(path: Path, sha256: str | None = None) -> bytes:
    """Return the bytes of a file that prepare has checked.

    Raises CelebflowError when it cannot be read now, or no longer has this SHA-256.
    """
    try:
        content = read_file(path)
    except (PhotographError, OSError) as error:
        raise CelebflowError(
            f"{path} {explain_refusal(error)}. Run `dvc repro` to check the photographs again."
        ) from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise CelebflowError(f"{path} has changed since prepare checked it. Run `dvc repro` to check it again.")
    return content


def decode_checked(path: Path, content: bytes) -> Image.Image:
    """Decode what read_checked has read from a file; raise CelebflowError when it cannot be decoded now."""
    try:
        return decode_photograph(content)
    except PhotographError as error:
        raise CelebflowError(
            f"{path} {error}. Run `dvc repro --force prepare` to check the photographs again here."
        ) from None


def decode_base64(text: str) -> bytes:
    """Return the bytes of a file in base64; raise PhotographError for any other text. No path or URL is opened.

    It may be a data URL, have line breaks, use the URL-safe alphabet, and lack its padding.
    """
    try:
        encoded = text.encode("ascii")
        data_url = _DATA_URL.match(encoded)
        digits = encoded[data_url.end() if data_url else 0 :].translate(_TO_STANDARD, b" \t\r\n")
        padding = b"=" * (-len(digits) % 4)
        content = base64.b64decode(digits + padding, validate=True)
        # Encoders leave the bits that belong to no byte zero. In a path, which lacks padding as well, most are not.
        last = digits[-4 + len(padding) :] + padding
        if padding and base64.b64encode(base64.b64decode(last)) != last:
            raise ValueError
    except ValueError:
        raise PhotographError("is not in base64; paths and URLs are not read") from None
    return content


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return an (H, W, 3) image as the bytes of a JPEG file."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=85)
    return content.getvalue()
