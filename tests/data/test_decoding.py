"""One way from a file's bytes to the network's input, and clear refusals."""

import io
import json
import struct
import zlib
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms

from celebflow.data.decoding import PhotographError, decode_photograph
from celebflow.features import transform as transform_module
from celebflow.features.transform import Transform
from celebflow.params import FaceParams


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _encode(_photograph(40, 20), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert decode_photograph(content).tobytes() == expected.tobytes()
    assert decode_photograph(content).size == ((20, 40) if orientation > 4 else (40, 20))


def test_exif_that_holds_nonsense_beside_the_orientation_does_not_matter() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    content = bytearray(_encode(_photograph(40, 20), "JPEG", exif=exif))
    content[content.index(b"MM\0*") + 11] = 0  # the maker becomes the width, which is no text
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert decode_photograph(bytes(content)).size == (20, 40)


def test_a_jpeg_that_is_drawn_again_and_again_is_refused() -> None:
    progressive = _encode(_photograph(40, 20), "JPEG", progressive=True)
    assert 1 < progressive.count(b"\xff\xda") < 20
    assert decode_photograph(progressive).size == (40, 20)
    last = progressive.rindex(b"\xff\xda")
    with pytest.raises(PhotographError, match="is drawn in 1.. passes, more than 100"):
        decode_photograph(progressive[:last] + progressive[last:-2] * 110 + progressive[-2:])


def test_transparent_parts_become_white_and_sixteen_bits_keep_their_shades() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_photograph(_encode(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    gray = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert decode_photograph(_encode(gray, "PNG")).getpixel((0, 0)) == (128, 128, 128)


def test_transform_equals_torchvisions() -> None:
    reference = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    photograph = _photograph(150, 150)
    ours = torch.from_numpy(Transform(224).apply(photograph, None)[0])
    torch.testing.assert_close(ours, reference(photograph), rtol=1e-6, atol=1e-6)


def test_transform_keeps_the_center_of_what_is_not_square() -> None:
    photograph = Image.new("RGB", (300, 100), "red")
    photograph.paste("blue", (100, 0, 200, 100))
    blue_only = Transform(64).apply(Image.new("RGB", (64, 64), "blue"), None)[0]
    np.testing.assert_array_equal(Transform(64).apply(photograph, None)[0][:, :, 8:-8], blue_only[:, :, 8:-8])


def test_a_transform_is_of_the_whole_photograph_unless_it_says_otherwise() -> None:
    photograph = _photograph(75, 50)
    (found,) = Transform(96).apply(photograph, None)
    fitted = ImageOps.fit(photograph, (96, 96), Image.Resampling.BILINEAR, centering=(0.5, 0.5))
    mean, deviation = (np.array(each, np.float32) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels = np.asarray(fitted, np.float32) / np.float32(255)
    np.testing.assert_array_equal(found, ((pixels - mean) / deviation).transpose(2, 0, 1))
    assert Transform(96).layers == ("pool5",)
    assert Transform(96).find_faces(photograph) == []


def _crop(kind: str, fraction: float = 0.5) -> FaceParams:
    return FaceParams.model_validate({"crop": kind, "center_fraction": fraction, "margin": 0.3, "align": True})


@pytest.mark.parametrize(
    ("width", "height", "fraction", "rows", "columns"),
    [
        (60, 40, 0.5, slice(10, 30), slice(20, 40)),
        (40, 60, 0.5, slice(20, 40), slice(10, 30)),
        (50, 50, 0.64, slice(9, 41), slice(9, 41)),
        (61, 40, 0.25, slice(15, 25), slice(25, 35)),
        (61, 40, 1.0, slice(0, 40), slice(10, 50)),
        (3, 3, 0.01, slice(1, 2), slice(1, 2)),
    ],
)
def test_the_center_is_a_square_whose_side_is_a_fraction_of_the_shorter_one(
    width: int, height: int, fraction: float, rows: slice, columns: slice
) -> None:
    photograph = _photograph(width, height)
    transform = Transform(32, _crop("center", fraction))
    expected = np.asarray(photograph)[rows, columns]
    np.testing.assert_array_equal(np.asarray(transform.crop(photograph, None)), expected)
    (found,) = transform.make_inputs(photograph, None)
    np.testing.assert_array_equal(found, Transform(32).apply(Image.fromarray(expected), None)[0])


def test_views_are_the_part_its_mirror_image_and_closer_ones() -> None:
    photograph = _photograph(70, 50)
    shown = np.asarray(photograph)[:, 10:60]
    closer = shown[3:47, 3:47]  # 88 % of each side
    expected = [shown, shown[:, ::-1], closer, closer[:, ::-1]]
    for size in (50, 44, 32):
        transform = Transform(size, _crop("center", 1.0), ("original", "mirrored", "closer", "closer_mirrored"))
        found = transform.make_inputs(photograph, None)
        assert len(found) == 4
        for array, pixels in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, Transform(size).apply(Image.fromarray(pixels), None)[0])
        assert len({array.tobytes() for array in found}) == 4


def test_views_stand_in_the_order_asked_for_and_alone_are_the_same() -> None:
    photograph = _photograph(70, 50)
    transform = Transform(32, _crop("center"), ("original", "closer_mirrored", "mirrored"))
    found = transform.make_inputs(photograph, None)
    for view, array in zip(transform.views, found, strict=True):
        np.testing.assert_array_equal(transform.only(view).apply(photograph, None), [array])


def test_where_faces_are_detected_the_face_is_crop_or_without_one_the_center(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photograph, face, cut = _photograph(60, 40), object(), _photograph(20, 20)
    asked: list[tuple[Any, ...]] = []

    def crop_square(*arguments: Any) -> Image.Image:
        asked.append(arguments)
        return cut

    monkeypatch.setattr(transform_module, "crop_square", crop_square)
    monkeypatch.setattr(transform_module, "detect_faces", lambda _: [face])
    transform = Transform(32, _crop("detect"))
    faces = transform.find_faces(photograph)
    assert faces == [face]
    assert transform.crop(photograph, faces[0]) is cut
    assert asked == [(photograph, face, 0.3, True)]
    center = Transform(32, _crop("center")).apply(photograph, None)
    np.testing.assert_array_equal(transform.make_inputs(photograph, None), center)
    for kind in ("none", "center"):
        assert Transform(32, _crop(kind)).find_faces(photograph) == []


def test_transform_survives_json() -> None:
    whole = Transform(96)
    other = Transform(
        64,
        _crop("detect", 0.7),
        ("original", "closer"),
        ("pool5", "pool4"),
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
    )
    assert all(getattr(whole, field.name) != getattr(other, field.name) for field in fields(Transform))
    for transform in (whole, other):
        assert Transform.from_dict(json.loads(json.dumps(transform.to_dict()))) == transform
