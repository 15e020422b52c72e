"""The bytes of an image file → an upright RGB image, within limits, in this process."""

import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from math import ceil, prod
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

from celebflow.data.boxes import ColorCodes, check_items, find_color_codes
from celebflow.data.color_codes import make_gamma_profile, make_profile
from celebflow.data.colors import to_rgb
from celebflow.data.containers import (
    check_animation,
    check_bmp,
    check_png,
    check_tiff,
    count_png_images,
    find_orientation,
    find_png_colors,
    strip_avif,
    strip_jpeg,
    strip_png,
)
from celebflow.data.formats import PILLOW_FORMATS, PhotographError, explain_format
from celebflow.errors import lacks_memory

MAX_PIXELS = 100_000_000
_FEW_PIXELS = 2**20  # what smaller images may cost as well
_MAX_SIDE_PX = 65_535  # resizing a strip that is longer takes far too much memory
# Every scan of a progressive JPEG costs a pass over all its pixels, but few bytes; real files have about ten.
_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 2_000_000_000
_MAX_QUICK_SCANS = 20
_MAX_QUICK_PIXELS = 16_000_000
_MAX_SCAN_BYTES_PER_PIXEL = 6  # twice what noise needs; a pass over these bytes costs more than one over the pixels
_GRAYS_AS_COLORS = "LA;16B"  # what Pillow calls grays of 16 bits with transparency in a PNG file, while it reads them
_NO_MEMORY = "needs too much memory to decode; save it in a smaller size"
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
_DAMAGE = (
    AssertionError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
# Pillow warns at a size of its own, where decode refuses at `max_pixels`, and of damage around sound photographs.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
# Tags of TIFF.
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_WIDTH, _LENGTH = 256, 257
_STRIP_OFFSETS, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _TILE_OFFSETS = 273, 277, 278, 324
_TILE_STEP_PX = 16  # which the sides of tiles are multiples of
_REDUCED_RESOLUTION, _DNG_VERSION = 254, 50706
_COMPRESSION, _COLOR_MAP, _SUBSAMPLING = 259, 320, 530
_YCBCR, _MAX_16_BITS = 6, 65_535
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR_CONFIGURATION, _SAMPLE_FORMAT = 258, 262, 284, 339


class SlowError(Exception):
    """Decoding an image may take more than about a second on an idle machine."""


def decode(content: bytes, name: str, max_pixels: int = MAX_PIXELS, *, quick: bool = False) -> Image.Image:
    """Decode a whole file of the format with this name to an upright RGB image.

    Raises PhotographError when the file is damaged, or asks for more than decoders may be asked to do, and with `quick`
    SlowError before it decodes what may take long.
    """
    try:
        original, scans, scan_bytes, exif = content, 1, 0, b""
        if name in ("AVIF", "HEIF"):
            check_items(content)
        if name == "JPEG":
            content, exif, scans, scan_bytes = strip_jpeg(content)
        if name == "PNG":
            check_animation(count_png_images(content))
            content = strip_png(content)
        if name == "AVIF":
            content = strip_avif(content)
        with _open(content, name) as image:
            if name in ("AVIF", "WebP"):  # a HEIF file of several images is no animation: the primary one counts
                check_animation(image.n_frames)  # type: ignore[attr-defined] # of such files
            pixels = image.width * image.height
            size = f"{image.width}×{image.height} pixels"
            if pixels > max_pixels:
                limit = f"{max_pixels / 1e6:.0f} megapixels"
                raise PhotographError(f"has {size}, more than {limit}; save it in a smaller size")
            if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED_PIXELS:
                raise PhotographError(f"has {scans} scans of {size}, far more than photographs have")
            if scan_bytes > _MAX_SCAN_BYTES_PER_PIXEL * max(pixels, _FEW_PIXELS):
                raise PhotographError(
                    f"has {scan_bytes / 1e6:.0f} MB of scans for {size}, far more than photographs have"
                )
            if max(image.size) > _MAX_SIDE_PX:
                raise PhotographError(f"has {size}, and a side of more than {_MAX_SIDE_PX}")
            if quick and (pixels > _MAX_QUICK_PIXELS or scans > _MAX_QUICK_SCANS):
                raise SlowError
            if name == "TIFF":
                _check_tiff(image)
            if name == "PNG":
                check_png(content, image.width, image.height)
            has_grays = any(tile[-1] == _GRAYS_AS_COLORS for tile in image.tile)  # type: ignore[attr-defined] # of files
            image.load()
            if profile := _make_profile(image, original, name, gray=has_grays or image.mode.startswith(("L", "I;16"))):
                image.info["icc_profile"] = profile
            # ImageOps.exif_transpose also rewrites the EXIF data, and fails where they are damaged.
            transposition = _TRANSPOSITIONS.get(_read_orientation(image, exif))
            upright = image if transposition is None else image.transpose(transposition)
            return to_rgb(upright.convert("LA") if has_grays else upright)
    except Image.DecompressionBombError:
        raise PhotographError(f"decodes to far more than {max_pixels / 1e6:.0f} megapixels") from None
    except _DAMAGE as error:
        if lacks_memory(error):
            raise PhotographError(_NO_MEMORY) from None
        unknown = isinstance(error, UnidentifiedImageError)
        reason = ", or of a rare kind" if unknown else f" ({' '.join(str(error).split())})"
        raise PhotographError(f"is truncated or damaged{reason}; save it again as JPEG or PNG") from None
    except MemoryError:
        raise PhotographError(_NO_MEMORY) from None


def _make_profile(image: Image.Image, content: bytes, name: str, *, gray: bool) -> bytes | None:
    """Return a color profile for an image whose file states its colors by numbers that count; otherwise None."""
    has_profile = "icc_profile" in image.info
    if name in ("AVIF", "HEIF") and not has_profile:
        codes = find_color_codes(content)
        return make_profile(codes, gray=gray) if codes else None
    if name != "PNG":
        return None
    colors = find_png_colors(content)
    if colors.codes:
        return make_profile(ColorCodes(*colors.codes), gray=gray)
    if has_profile or colors.is_srgb or colors.exponent is None:
        return None
    places = colors.chromaticities
    return make_gamma_profile(colors.exponent, places and (*places[2:], *places[:2]), gray=gray)


def _open(content: bytes, name: str) -> Image.Image:
    if name == "BMP":
        check_bmp(content)
    if name == "TIFF":
        check_tiff(content)
    if name == "HEIF":
        import pillow_heif  # an extra

        pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(content), formats=[PILLOW_FORMATS[name]])


def _check_tiff(image: Image.Image) -> None:
    """Refuse RAW files of cameras, which are TIFF files that begin with a small preview, and what Pillow misreads.

    That has numbers that are signed, floating-point, or of other than 1, 2, 4, 8 or 16 bits, or 16 bits in separate
    planes or with 0 for white, or grays with transparency in separate planes, or a palette of 8 bits, or colors of
    which several pixels share one without compression. Files whose tiles reach far beyond the image are refused, too.
    """
    tags = image.tag_v2  # type: ignore[attr-defined] # of TIFF files
    _check_tiles(image, tags)
    _check_parts(tags)
    if tags.get(_REDUCED_RESOLUTION, 0) & 1 or _DNG_VERSION in tags:
        raise PhotographError(explain_format("RAW"))
    bits = set(tags.get(_BITS_PER_SAMPLE, (1,)))
    separate = tags.get(_PLANAR_CONFIGURATION) == 2
    misread = (16 in bits and (separate or tags.get(_PHOTOMETRIC) == 0)) or (separate and image.mode in ("LA", "La"))
    misread = misread or max(tags.get(_COLOR_MAP, (_MAX_16_BITS,))) < 256
    shared = tags.get(_PHOTOMETRIC) == _YCBCR and tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1)
    misread = misread or (shared and tags.get(_COMPRESSION, 1) == 1)
    if misread or bits - {1, 2, 4, 8, 16} or set(tags.get(_SAMPLE_FORMAT, (1,))) != {1}:
        raise PhotographError("is a TIFF file with a rare kind of numbers; save it with 8 bits per color")


def _check_tiles(image: Image.Image, tags: Mapping[int, Any]) -> None:
    """Refuse a TIFF file whose tiles take far more memory or time than its pixels: each is decoded in full."""
    if _TILE_WIDTH not in tags or _TILE_LENGTH not in tags:
        return
    sides = [max(1, int(tags[tag])) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
    pixels, count = 1, 1
    for side, tile_side in zip(image.size, sides, strict=True):
        pixels *= ceil(side / _TILE_STEP_PX) * _TILE_STEP_PX
        count *= ceil(side / tile_side)
    most = max(pixels, _FEW_PIXELS)
    if prod(sides) > most or prod(sides) * count > 4 * most:  # tiles as large as the image can cover four times as much
        size = f"{count} tiles of {sides[0]}×{sides[1]} pixels for an image of {image.width}×{image.height}"
        raise PhotographError(f"has {size}; save it again as JPEG or PNG")


def _check_parts(tags: Mapping[int, Any]) -> None:
    """Refuse a TIFF file that has fewer strips or tiles than cover the image: Pillow shows the others black."""
    tiled = _TILE_WIDTH in tags and _TILE_LENGTH in tags
    sides = (_TILE_WIDTH, _TILE_LENGTH) if tiled else (_WIDTH, _ROWS_PER_STRIP)
    needed = prod(
        ceil(tags[side] / (int(tags.get(part, 0)) or tags[side]))
        for side, part in zip((_WIDTH, _LENGTH), sides, strict=True)
    )
    if tags.get(_PLANAR_CONFIGURATION) == 2:
        needed *= tags.get(_SAMPLES_PER_PIXEL, 1)
    starts = tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    starts = starts if isinstance(starts, tuple) else (starts,)
    if len(starts) < needed or 0 in starts[:needed]:
        raise PhotographError("is truncated: it holds fewer pixels than it should; save it again as JPEG or PNG")


def _read_orientation(image: Image.Image, exif: bytes) -> int:
    """Return EXIF's orientation, or else XMP's; 1 when neither has any.

    AVIF and HEIF turn images in a way of their own, which Pillow states as EXIF, and theirs counts alone.
    """
    # Without this, Pillow would read all of EXIF, which may be a lot.
    orientation = find_orientation(image.info.pop("exif", None) or exif)
    if orientation is not None or image.format in ("AVIF", "HEIF"):
        return orientation or 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1
