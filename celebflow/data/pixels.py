"""The bytes of an image file → an upright RGB image, within limits, in this process."""

import io
import struct
import warnings

from PIL import ExifTags, Image, UnidentifiedImageError

from celebflow.data.colors import to_rgb
from celebflow.data.containers import check_bmp, find_orientation, strip_jpeg, strip_png
from celebflow.data.formats import PILLOW_FORMATS, PhotographError, explain_format

MAX_PIXELS = 100_000_000
# Every scan of a progressive JPEG costs a pass over all its pixels, but few bytes; real files have about ten.
_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 1_500_000_000
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
)
# Pillow warns at a size of its own, where decode refuses at `max_pixels`, and of damage around sound photographs.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
_REDUCED_RESOLUTION, _DNG_VERSION = 254, 50706  # tags of TIFF


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
                raise PhotographError(f"has {size}, more than {max_pixels / 1e6:.0f} megapixels")
            if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED_PIXELS:
                raise PhotographError(f"has {scans} scans of {size}, far more than photographs have")
            if name == "TIFF":
                _refuse_raw(image)
            image.load()
            # ImageOps.exif_transpose also rewrites the EXIF data, and fails where they are damaged.
            transposition = _TRANSPOSITIONS.get(_read_orientation(image, exif))
            return to_rgb(image if transposition is None else image.transpose(transposition))
    except Image.DecompressionBombError:
        raise PhotographError(f"decodes to far more than {max_pixels / 1e6:.0f} megapixels") from None
    except _DAMAGE as error:
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise PhotographError(f"is truncated or damaged{reason}") from None


def _open(content: bytes, name: str) -> Image.Image:
    if name == "BMP":
        check_bmp(content)
    if name == "PNG":
        content = strip_png(content)
    if name == "HEIF":
        import pillow_heif  # an extra

        pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(content), formats=[PILLOW_FORMATS[name]])


def _refuse_raw(image: Image.Image) -> None:
    """Refuse the RAW files of cameras that are also TIFF files, but begin with a small preview."""
    tags = image.tag_v2  # type: ignore[attr-defined] # of TIFF files
    if tags.get(_REDUCED_RESOLUTION, 0) & 1 or _DNG_VERSION in tags:
        raise PhotographError(explain_format("RAW"))


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
