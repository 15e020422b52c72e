"""Photographs → the small squares that galleries and pages show."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageOps

from celebflow.data.decoding import load_photograph
from celebflow.features.faces import Face
from celebflow.features.transform import Transform

THUMBNAIL_SIDE_PX = 160
_OPACITY = 0.5


def load_thumbnail(file: Path, sha256: str | None) -> NDArray[np.uint8]:
    """Return the center square of a photograph, (side, side, 3), as load_photograph loads it.

    Where a result is shown, `sha256` is that of the photograph which it is about.
    """
    return make_thumbnail(load_photograph(file, sha256))


def load_crop(file: Path, sha256: str | None, transform: Transform, subject: Face | None) -> NDArray[np.uint8]:
    """Return what the network sees of a photograph, (side, side, 3); `subject` is the face that extract chose."""
    return make_thumbnail(transform.shown.crop(load_photograph(file, sha256), subject))


def make_thumbnail(photograph: Image.Image) -> NDArray[np.uint8]:
    """Return the center square of an RGB image, (side, side, 3)."""
    size = (THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX)
    return np.asarray(ImageOps.fit(photograph, size, Image.Resampling.LANCZOS, centering=(0.5, 0.5)))


def overlay_heat_map(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay a (7, 7) heat map over the (H, W, 3) image that the network saw: bright parts support the person."""
    height, width, _ = image.shape
    smooth = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))
    colors = colormaps["inferno"](smooth)[..., :3] * 255
    mixed: NDArray[np.uint8] = ((1 - _OPACITY) * image + _OPACITY * colors).round().astype(np.uint8)
    return mixed
