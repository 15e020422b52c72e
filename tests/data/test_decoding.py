"""Photographs of each format are decoded, and other files are refused with a reason."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from celebflow.data.decoding import PhotographError, decode_base64, decode_photograph, encode_jpeg


def _draw_photograph(width: int = 60, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _claim_png_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_each_format_is_decoded_to_rgb(kind: str) -> None:
    image = decode_photograph(_encode(_draw_photograph(), kind))
    assert (image.mode, image.size) == ("RGB", (60, 60))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused(kind: str, fraction: float) -> None:
    content = _encode(_draw_photograph(), kind)
    with pytest.raises(PhotographError, match="truncated or damaged|not a JPEG"):
        decode_photograph(content[: int(len(content) * fraction)])


@pytest.mark.parametrize(
    "content", [b"", b"hello", _encode(_draw_photograph(), "GIF"), _encode(_draw_photograph(), "TIFF")]
)
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(PhotographError, match="JPEG, PNG, WEBP or BMP"):
        decode_photograph(content)


@pytest.mark.parametrize("size", [10_001, 14_000, 50_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(size: int) -> None:
    with pytest.raises(PhotographError, match="100 megapixels"):
        decode_photograph(_claim_png_size(size, size))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _encode(_draw_photograph(40, 20), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert decode_photograph(content).tobytes() == expected.tobytes()
    assert decode_photograph(content).size == ((20, 40) if orientation > 4 else (40, 20))


def test_damaged_exif_does_not_matter_besides_the_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    content = bytearray(_encode(_draw_photograph(40, 20), "JPEG", exif=exif))
    content[content.index(b"MM\0*") + 11] = 0  # the maker's tag becomes the width's, which is not a text
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert decode_photograph(bytes(content)).size == (20, 40)


def test_a_jpeg_with_too_many_scans_is_refused() -> None:
    progressive = _encode(_draw_photograph(40, 20), "JPEG", progressive=True)
    assert 1 < progressive.count(b"\xff\xda") < 20
    assert decode_photograph(progressive).size == (40, 20)
    last = progressive.rindex(b"\xff\xda")
    with pytest.raises(PhotographError, match="1[0-9][0-9] scans, more than 100"):
        decode_photograph(progressive[:last] + progressive[last:-2] * 110 + progressive[-2:])


def test_transparent_parts_become_white_and_16_bit_grays_keep_their_shades() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_photograph(_encode(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    gray = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert decode_photograph(_encode(gray, "PNG")).getpixel((0, 0)) == (128, 128, 128)


def test_base64_is_decoded_and_other_text_is_refused() -> None:
    assert decode_base64(base64.b64encode(b"any bytes").decode()) == b"any bytes"
    for text in ("/data/abc.png", "https://example.com/a.jpg", "Björn"):
        with pytest.raises(PhotographError, match="base64"):
            decode_base64(text)


def test_an_encoded_jpeg_shows_the_image() -> None:
    image = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    decoded = np.asarray(decode_photograph(encode_jpeg(image)), np.int64)
    assert decoded.shape == (16, 24, 3)
    assert np.abs(decoded - image).max() <= 4
