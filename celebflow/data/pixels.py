"""The bytes of an image file → an upright RGB image, within limits, in this process."""

import io
import struct
import warnings
import zlib

from PIL import ExifTags, Image, UnidentifiedImageError

from celebflow.data.colors import to_rgb
from celebflow.data.containers import check_bmp, check_tiff, find_orientation, strip_jpeg, strip_png
from celebflow.data.formats import PILLOW_FORMATS, PhotographError, explain_format
from celebflow.errors import lacks_memory

MAX_PIXELS = 100_000_000
_MAX_SIDE_PX = 65_535  # resizing a strip that is longer takes far too much memory
# Every scan of a progressive JPEG costs a pass over all its pixels, but few bytes; real files have about ten.
_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 2_000_000_000
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
_REDUCED_RESOLUTION, _DNG_VERSION = 254, 50706
_COMPRESSION, _COLOR_MAP, _SUBSAMPLING = 259, 320, 530
_YCBCR, _MAX_16_BITS = 6, 65_535
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR_CONFIGURATION, _SAMPLE_FORMAT = 258, 262, 284, 339


def decode(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a whole file of the format with this name to an upright RGB image.

    Raises PhotographError when the file is damaged, or asks for more than decoders may be asked to do.
    """
    try:
        scans, exif = 1, b""
        if name == "JPEG":
            content, exif, scans = strip_jpeg(content)
        with _open(content, name) as image:
            pixels = image.width * image.height
            size = f"{image.width}×{image.height} pixels"
            if pixels > max_pixels:
                limit = f"{max_pixels / 1e6:.0f} megapixels"
                raise PhotographError(f"has {size}, more than {limit}; save it in a smaller size")
            if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED_PIXELS:
                raise PhotographError(f"has {scans} scans of {size}, far more than photographs have")
            if max(image.size) > _MAX_SIDE_PX:
                raise PhotographError(f"has {size}, and a side of more than {_MAX_SIDE_PX}")
            if name == "TIFF":
                _check_tiff(image)
            image.load()
            # ImageOps.exif_transpose also rewrites the EXIF data, and fails where they are damaged.
            transposition = _TRANSPOSITIONS.get(_read_orientation(image, exif))
            return to_rgb(image if transposition is None else image.transpose(transposition))
    except Image.DecompressionBombError:
        raise PhotographError(f"decodes to far more than {max_pixels / 1e6:.0f} megapixels") from None
    except _DAMAGE as error:
        if lacks_memory(error):
            raise PhotographError(_NO_MEMORY) from None
        unknown = isinstance(error, UnidentifiedImageError)
        reason = ", or of a rare kind; save it again as JPEG or PNG" if unknown else f" ({error})"
        raise PhotographError(f"is truncated or damaged{reason}") from None
    except MemoryError:
        raise PhotographError(_NO_MEMORY) from None


def _open(content: bytes, name: str) -> Image.Image:
    if name == "BMP":
        check_bmp(content)
    if name == "TIFF":
        check_tiff(content)
    if name == "PNG":
        content = strip_png(content)
    if name == "HEIF":
        import pillow_heif  # an extra

        pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(content), formats=[PILLOW_FORMATS[name]])


def _check_tiff(image: Image.Image) -> None:
    """Refuse RAW files of cameras, which are TIFF files that begin with a small preview, and what Pillow misreads.

    That has numbers that are signed, floating-point, or of other than 1, 2, 4, 8 or 16 bits, or 16 bits in separate
    planes or with 0 for white, or a palette of 8 bits, or colors of which several pixels share one without compression.
    """
    tags = image.tag_v2  # type: ignore[attr-defined] # of TIFF files
    if tags.get(_REDUCED_RESOLUTION, 0) & 1 or _DNG_VERSION in tags:
        raise PhotographError(explain_format("RAW"))
    bits = set(tags.get(_BITS_PER_SAMPLE, (1,)))
    misread = 16 in bits and (tags.get(_PLANAR_CONFIGURATION) == 2 or tags.get(_PHOTOMETRIC) == 0)
    misread = misread or max(tags.get(_COLOR_MAP, (_MAX_16_BITS,))) < 256
    shared = tags.get(_PHOTOMETRIC) == _YCBCR and tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1)
    misread = misread or (shared and tags.get(_COMPRESSION, 1) == 1)
    if misread or bits - {1, 2, 4, 8, 16} or set(tags.get(_SAMPLE_FORMAT, (1,))) != {1}:
        raise PhotographError("is a TIFF file with a rare kind of numbers; save it with 8 bits per color")


def _read_orientation(image: Image.Image, exif: bytes) -> int:
    """Return EXIF's orientation, or else XMP's; 1 when neither has any."""
    # Without this, Pillow would read all of EXIF, which may be a lot.
    orientation = find_orientation(image.info.pop("exif", None) or exif)
    if orientation is not None:
        return orientation
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1
