"""One way from a file's bytes to the network's input, and clear refusals."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from celebflow.images import PhotographError, Transform, decode_photograph


def _photograph(width: int = 60, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_each_format_is_decoded_to_rgb(kind: str) -> None:
    image = decode_photograph(_encode(_photograph(), kind))
    assert (image.mode, image.size) == ("RGB", (60, 60))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    content = _encode(_photograph(), kind)
    with pytest.raises(PhotographError, match="is truncated or damaged|is no JPEG"):
        decode_photograph(content[: int(len(content) * share)])


@pytest.mark.parametrize("content", [b"", b"hello", _encode(_photograph(), "GIF"), _encode(_photograph(), "TIFF")])
def test_what_is_no_photograph_is_refused(content: bytes) -> None:
    with pytest.raises(PhotographError, match="is no JPEG, PNG, WEBP or BMP image"):
        decode_photograph(content)


@pytest.mark.parametrize("size", [10_001, 14_000, 50_000])
def test_decompression_bombs_are_refused_before_they_unpack(size: int) -> None:
    with pytest.raises(PhotographError, match="100 megapixels"):
        decode_photograph(_png_that_claims(size, size))


def test_photographs_stand_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert decode_photograph(_encode(_photograph(40, 20), "JPEG", exif=exif)).size == (20, 40)


def test_transparent_parts_become_white_and_sixteen_bits_keep_their_shades() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_photograph(_encode(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    grey = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert decode_photograph(_encode(grey, "PNG")).getpixel((0, 0)) == (128, 128, 128)


def test_transform_equals_torchvisions() -> None:
    reference = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    photograph = _photograph(150, 150)
    ours = torch.from_numpy(Transform(224).apply(photograph))
    torch.testing.assert_close(ours, reference(photograph), rtol=1e-6, atol=1e-6)


def test_transform_keeps_the_centre_of_what_is_not_square() -> None:
    photograph = Image.new("RGB", (300, 100), "red")
    photograph.paste("blue", (100, 0, 200, 100))
    blue_only = Transform(64).apply(Image.new("RGB", (64, 64), "blue"))
    np.testing.assert_array_equal(Transform(64).apply(photograph)[:, :, 8:-8], blue_only[:, :, 8:-8])


def test_transform_survives_json() -> None:
    transform = Transform(96)
    assert Transform.from_dict({**transform.to_dict(), "mean": list(transform.mean)}) == transform
