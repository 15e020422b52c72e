"""Pixels of any kind → RGB as a screen shows them."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# Profiles of one color space round differently. One whose colors differ from sRGB's by no more than this, of 255, is
# not applied, so that photographs with it equal those without any.
_MAX_SRGB_DIFFERENCE = 2
_MAX_PROFILE_BYTES = 2**22  # of any format
_STRIP_ROWS = 256
_PROGRAM = b"mpet"  # any number of steps for each color; photographs have tables and curves
_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB in the color space sRGB; transparent parts become white.

    A color profile that is damaged, or that is of another kind than the image, is ignored; that of colors also says how
    bright grays are.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips 16-bit grays to white
        image = _to_8_bits(image)
    if image.mode == "La":  # multiplied by the transparency
        image = image.convert("LA")
    if not image.has_transparency_data:
        return _apply_profile(image, profile)
    if image.format == "BMP" and image.getchannel("A").getextrema() == (0, 0):  # the channel is not used
        return _apply_profile(image.convert("RGB"), profile)
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP_ROWS):  # whole, the layers would take four times the memory
        box = (0, top, image.width, min(top + _STRIP_ROWS, image.height))
        flat.paste(_flatten(image.crop(box), profile), box)
    return flat


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.uint16)
    grays = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return grays
    opaque = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grays, opaque))


def _flatten(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Lay an image over white."""
    layer = image.convert("RGBA")
    colors = _apply_profile(image.convert("L") if image.mode in ("L", "LA") else layer.convert("RGB"), profile)
    colors.putalpha(layer.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), colors).convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode not in _MODES.values():
        image = image.convert("RGB")
    transform = _build_transform(profile, image.mode) if profile else None
    return (image if transform is None else _convert(image, transform)).convert("RGB")


def _convert(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    if image.mode != transform.input_mode:  # grays with a profile of colors
        image = image.convert(transform.input_mode)
    return ImageCms.applyTransform(image, transform)  # type: ignore[return-value] # None only when in place


@lru_cache(8)
def _build_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what converts an image of this mode and profile to sRGB; None when nothing does, or need to."""
    if len(profile) > _MAX_PROFILE_BYTES or _PROGRAM in profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        of_profile = _MODES.get(source.profile.xcolor_space.strip())
        if of_profile is None or (of_profile != mode and (of_profile, mode) != ("RGB", "L")):
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), of_profile, "RGB")
        return None if mode != "CMYK" and _keeps_colors(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _keeps_colors(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    values = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    image = Image.fromarray(values if mode == "RGB" else values[..., 0])
    difference = np.asarray(_convert(image, transform), np.int16) - np.asarray(image.convert("RGB"), np.int16)
    return bool(np.abs(difference).max() <= _MAX_SRGB_DIFFERENCE)
