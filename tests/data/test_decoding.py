"""Photographs of each format are decoded, and other files are refused with a reason."""

import base64
import io
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from celebflow.data import containers, formats, isolation, pixels
from celebflow.data.boxes import check_items, find_color_codes
from celebflow.data.decoding import decode_base64, decode_photograph, encode_jpeg, load_photograph
from celebflow.data.formats import PILLOW_FORMATS, PhotographError
from celebflow.errors import CelebflowError
from tests import REPOSITORY
from tests.images import make_chunk, repeat_last_scan
from tests.profiles import ADOBE_RGB, DISPLAY_P3, make_cmyk_profile, make_gray_profile, make_rgb_profile

pillow_heif.register_heif_opener()
KINDS = list(PILLOW_FORMATS.values())


def _draw_photograph(width: int = 60, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _make_png(width: int, height: int, bits: int, color_type: int, rows: bytes) -> bytes:
    header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + make_chunk(b"IDAT", zlib.compress(rows)) + make_chunk(b"IEND", b"")


def _claim_png_size(width: int, height: int) -> bytes:
    return _make_png(width, height, 8, 2, bytes(100))


def _insert_chunks(png: bytes, *chunks: bytes) -> bytes:
    """Insert chunks behind the header of a PNG file."""
    return png[:33] + b"".join(chunks) + png[33:]


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_is_decoded_to_rgb(kind: str) -> None:
    photograph = _draw_photograph(12, 8).resize((60, 40))
    image = decode_photograph(_encode(photograph, kind))
    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert np.abs(np.asarray(image, np.int64) - np.asarray(photograph)).mean() < 15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused_with_the_remedy(kind: str, fraction: float) -> None:
    content = _encode(_draw_photograph(), kind)
    with pytest.raises(PhotographError, match="truncated or damaged.*save it again as JPEG or PNG"):
        decode_photograph(content[: int(len(content) * fraction)])


@pytest.mark.parametrize("fraction", [0.5, 0.9])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_file_whose_end_was_replaced_by_zeros_is_refused(fraction: float, progressive: bool) -> None:
    file = io.BytesIO()
    _draw_photograph(300, 200).save(file, "JPEG", progressive=progressive)
    content = file.getvalue()
    kept = int(len(content) * fraction)
    with pytest.raises(PhotographError, match="truncated: zeros stand for its end; copy it again"):
        decode_photograph(content[:kept] + bytes(len(content) - kept))
    np.testing.assert_array_equal(decode_photograph(content + bytes(5000)), decode_photograph(content))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.97])
def test_a_file_of_boxes_in_which_zeros_stand_for_pixels_is_refused(kind: str, fraction: float) -> None:
    content = _encode(_draw_photograph(300, 200), kind)
    kept = int(len(content) * fraction)
    with pytest.raises(PhotographError, match="truncated: zeros stand for a part of it; copy it again"):
        decode_photograph(content[:kept] + bytes(len(content) - kept))


def test_a_hole_of_zeros_in_a_heif_file_is_refused() -> None:
    content = bytearray(_encode(_draw_photograph(300, 200), "HEIF"))
    middle = len(content) // 2
    content[middle : middle + 512] = bytes(512)
    with pytest.raises(PhotographError, match="zeros stand for a part of it"):
        decode_photograph(bytes(content))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_zeros_in_exif_around_plain_pixels_and_behind_a_file_of_boxes_cost_no_photograph(kind: str) -> None:
    exif = Image.Exif()
    exif[0x927C] = bytes(500)
    for image in (_draw_photograph(), Image.new("RGB", (1000, 700)), Image.new("RGB", (1000, 700), "white")):
        content = _encode(image, kind, exif=exif)
        assert bytes(500) in content
        for behind in (b"", bytes(5000), struct.pack(">I4s", 5008, b"mpvd") + bytes(5000)):  # as phones add a film
            assert decode_photograph(content + behind).size == image.size


@pytest.mark.parametrize("damage", [b"iloc", b"iinf", b"infe", b"pitm", b"ipma", b"ipco", b"colr", b"iprp"])
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_damaged_boxes_are_left_to_the_decoder(kind: str, damage: bytes) -> None:
    content = _encode(_draw_photograph(), kind)
    start = content.index(damage)
    for position in range(start - 4, start + 24):
        for value in (0, 255):
            changed = bytes([*content[:position], value, *content[position + 1 :]])
            find_color_codes(changed)
            check_items(changed)
    check_items(content[: start + 6])
    assert find_color_codes(content[: start + 6]) is None


def test_items_of_very_many_parts_are_not_read() -> None:
    entry = struct.pack(">HHH", 1, 0, 65535)  # whose numbers have no bytes
    places = struct.pack(">IHH", 0, 0, 60000) + entry * 60000
    boxes = bytes(4) + struct.pack(">I4s", 8 + len(places), b"iloc") + places
    check_items(struct.pack(">I4s", 8 + len(boxes), b"meta") + boxes)


# The first column and row of each pass of an interlaced PNG file, and its steps to the next.
_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("width", "height", "bits", "color_type"), [(60, 40, 8, 2), (1, 9, 1, 0), (3, 1, 16, 6)])
def test_a_png_whose_pixels_end_properly_but_too_early_is_refused(
    width: int, height: int, bits: int, color_type: int, interlaced: bool
) -> None:
    channels = {0: 1, 2: 3, 6: 4}[color_type]
    rows = b""
    for left, top, across, down in _PASSES if interlaced else [(0, 0, 1, 1)]:
        columns = len(range(left, width, across))
        row = bytes(1 + (columns * bits * channels + 7) // 8)
        rows += row * len(range(top, height, down)) if columns else b""
    for missing in (0, 1, len(rows)):
        png = bytearray(_make_png(width, height, bits, color_type, rows[: len(rows) - missing]))
        png[28] = interlaced
        png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
        if missing == 0:
            assert decode_photograph(bytes(png)).size == (width, height)
            continue
        with pytest.raises(PhotographError, match="truncated.*save it again"):
            decode_photograph(bytes(png))


def test_the_first_header_of_a_png_file_counts_alone() -> None:
    png = _make_png(10, 2, 8, 0, (b"\0" + b"\xff" * 10) * 2)
    larger = _make_png(10, 10, 8, 0, b"")
    assert png[12:16] == larger[12:16] == b"IHDR"
    twice = png[:33] + larger[8:33] + png[33:]
    assert decode_photograph(twice) == decode_photograph(png)


_BOX = b"\0\0\0\x18ftyp"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; copy or download it again"),
        (b"hello", "not a JPEG, PNG, WebP, BMP, TIFF, AVIF or HEIF image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "Git LFS.*run git lfs pull"),
        (b"\0\0\1\0\1\0", "is a Windows icon file"),
        (b"RIFF\0\0\0\0WAVE", "not a JPEG"),
        (_encode(_draw_photograph(), "GIF"), "is a GIF file.*save it as JPEG"),
        (_encode(_draw_photograph(), "JPEG2000"), "is a JPEG 2000 file.*save it as JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL file"),
        (b"FUJIFILMCCD-RAW 0201", "RAW file of a camera; export it"),
        (b"II*\0\x10\0\0\0CR\2\0", "RAW file of a camera; export it"),
        (_BOX + b"crx \0\0\0\1crx isom", "RAW file of a camera; export it"),
        (_BOX + b"isom\0\0\2\0isomiso2", "is a video"),
        (b"RIFF\0\0\0\0AVI LIST", "is a video"),
        (b"8BPS\0\1", "is a Photoshop file"),
        (b"%PDF-1.7", "is a PDF file"),
        (b'<?xml version="1.0"?>\n<svg width="9">', "is an SVG file"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "is a web page, not an image; download the image again"),
    ],
)
def test_other_files_are_refused_with_their_format_and_the_remedy(content: bytes, message: str) -> None:
    with pytest.raises(PhotographError, match=message):
        decode_photograph(content)


@pytest.mark.parametrize("brand", [b"mif1", b"mif2", b"miaf", b"heif", b"avci", b"avcs", b"hevm", b"hevs"])
def test_a_heif_file_of_any_brand_is_no_video(brand: bytes) -> None:
    content = _encode(_draw_photograph(), "HEIF")
    end = int.from_bytes(content[:4])
    minor = content[12:16]
    branded = content[:8] + brand + minor + brand * ((end - 16) // 4) + content[end:]
    assert formats.identify_format(branded) == "HEIF"
    try:
        assert decode_photograph(branded).size == (60, 60)
    except PhotographError as error:  # as the library does not know every brand
        assert "rare kind" in str(error)


def test_heif_needs_a_library_which_the_message_names(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _encode(_draw_photograph(), "HEIF")
    assert "AVIF or HEIF" in formats.list_formats()
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert "TIFF or AVIF" in formats.list_formats()
    with pytest.raises(
        PhotographError, match=r"HEIF image: pip install 'celebflow\[heif\]' reads it, or save it as JPEG"
    ):
        decode_photograph(content)


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_a_raw_file_that_begins_with_a_small_tiff_is_refused(tags: dict[int, object]) -> None:
    with pytest.raises(PhotographError, match="RAW file of a camera"):
        decode_photograph(_encode(_draw_photograph(), "TIFF", tiffinfo=tags))


@pytest.mark.parametrize("size", [10_001, 14_000, 50_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(size: int) -> None:
    with pytest.raises(PhotographError, match="100 megapixels"):
        decode_photograph(_claim_png_size(size, size))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _encode(_draw_photograph(4, 2).resize((40, 20)), kind, exif=exif, lossless=True)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert expected.size == ((20, 40) if orientation > 4 else (40, 20))
    assert decode_photograph(content).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_xmp_turns_photographs_but_not_of_a_format_that_turns_them_itself(kind: str) -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    content = _encode(_draw_photograph(40, 20), kind, xmp=xmp, pnginfo=info)
    assert decode_photograph(content).size == ((40, 20) if kind == "AVIF" else (20, 40))


def test_damaged_exif_costs_no_avif() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    sound = _encode(_draw_photograph(40, 20), "AVIF", exif=exif)
    damaged = sound.replace(b"MM\0*", b"MX\0*")
    with pytest.raises(ValueError, match="Exif"):
        Image.open(io.BytesIO(damaged))
    assert decode_photograph(damaged).tobytes() == decode_photograph(sound).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_costs_no_photograph(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    content = bytearray(_encode(_draw_photograph(40, 20), kind, exif=exif))
    content[content.index(b"MM\0*") + 11] = 0  # the maker's tag becomes the width's, which is not a text
    if kind == "PNG":
        start = content.index(b"eXIf")
        length = int.from_bytes(content[start - 4 : start])
        content[start + 4 + length : start + 8 + length] = struct.pack(
            ">I", zlib.crc32(content[start : start + 4 + length])
        )
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert decode_photograph(bytes(content)).size == (20, 40), "the orientation is sound"
    damaged = bytes(content).replace(b"MM\0*", b"MX\0*")
    if kind == "PNG":
        damaged = _insert_chunks(_encode(_draw_photograph(40, 20), kind), make_chunk(b"eXIf", b"no EXIF"))
    assert decode_photograph(damaged).size == (40, 20)


def test_an_image_with_too_many_scans_is_refused_in_files_of_one_and_of_several_pictures() -> None:
    progressive = _encode(_draw_photograph(40, 20), "JPEG", progressive=True)
    assert 1 < progressive.count(b"\xff\xda") < 20
    assert decode_photograph(progressive).size == (40, 20)
    with pytest.raises(PhotographError, match="1[0-9][0-9] scans of 40×20 pixels"):
        decode_photograph(repeat_last_scan(progressive, 110))
    second = _draw_photograph(30, 30)
    several = _encode(_draw_photograph(40, 20), "MPO", save_all=True, append_images=[second], progressive=True)
    with Image.open(io.BytesIO(several)) as image:
        assert image.format == "MPO"
    assert decode_photograph(several).size == (40, 20)
    with pytest.raises(PhotographError, match="1[0-9][0-9] scans of 40×20 pixels"):
        decode_photograph(repeat_last_scan(several, 110))


def test_an_image_with_far_more_bytes_of_scans_than_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_FEW_PIXELS", 1)
    noise = Image.effect_noise((600, 400), 90).convert("RGB")
    progressive = _encode(noise, "JPEG", progressive=True, quality=95)
    trailing = progressive + bytes(8_000_000)
    assert decode_photograph(trailing).tobytes() == decode_photograph(progressive).tobytes()
    with pytest.raises(PhotographError, match="MB of scans for 600×400 pixels"):
        decode_photograph(repeat_last_scan(progressive, 90))


def test_scans_cannot_hide_behind_a_marker_that_decoders_skip_alone() -> None:
    progressive = _encode(_draw_photograph(40, 20), "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    hidden = progressive[:-2] + b"\xff\x02\xff\xff" + progressive[last:-2] * 110 + progressive[-2:]
    with pytest.raises(PhotographError, match="1[0-9][0-9] scans of 40×20 pixels"):
        decode_photograph(hidden.ljust(70_000, b"\0"))


def test_scans_cannot_hide_behind_an_end_that_comes_before_the_image() -> None:
    progressive = _encode(_draw_photograph(40, 20), "JPEG", progressive=True)
    assert decode_photograph(b"\xff\xd8\xff\xd9" + progressive).size == (40, 20)
    for tables in (b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xee\0\2\xff\xd9"):
        with pytest.raises(PhotographError, match="1[0-9][0-9] scans of 40×20 pixels"):
            decode_photograph(tables + repeat_last_scan(progressive, 110))


def test_only_the_scans_that_are_decoded_count() -> None:
    progressive = _encode(_draw_photograph(40, 20), "JPEG", progressive=True)
    expected = decode_photograph(progressive).tobytes()
    scan_marks = b"\xff\xda\0\2" * 200
    video_behind = progressive + b"\0\0\0\x18ftypmp42" + scan_marks
    in_segment = progressive[:2] + b"\xff\xe5" + struct.pack(">H", 2 + len(scan_marks)) + scan_marks + progressive[2:]
    for content in (video_behind, in_segment):
        assert decode_photograph(content).tobytes() == expected


def test_exif_in_very_many_segments_costs_no_photograph() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = _encode(_draw_photograph(40, 20), "JPEG", exif=exif)
    more = b"\xff\xe1" + struct.pack(">H", 60_008) + b"Exif\0\0" + bytes(60_000)
    end = content.index(b"\xff\xdb")
    assert decode_photograph(content[:end] + more * 100 + content[end:]).size == (20, 40)


def test_files_of_very_many_small_parts_are_refused() -> None:
    jpeg, png = _encode(_draw_photograph(), "JPEG"), _encode(_draw_photograph(), "PNG")
    with pytest.raises(PhotographError, match="more than 100000 segments"):
        decode_photograph(jpeg[:2] + b"\xff\xfe\0\2" * 100_001 + jpeg[2:])
    with pytest.raises(PhotographError, match="too many bytes between its segments"):
        decode_photograph(jpeg[:2] + b"\xff" * 100_000 + jpeg[2:])
    comment = b"\xff" * 60_000 + b"\xff\xfe\0\2"
    with pytest.raises(PhotographError, match="too many bytes between its segments"):
        decode_photograph(jpeg[:2] + comment * 2 + jpeg[2:])
    for rest in (bytes(100_000), b"\xff\xd0" * 50_000):  # and no segment behind it
        with pytest.raises(PhotographError, match="too many bytes between its segments"):
            decode_photograph(jpeg[:20] + rest)
    assert decode_photograph(jpeg + bytes(100_000)).size == (60, 60)
    with pytest.raises(PhotographError, match="more than 100000 chunks"):
        decode_photograph(_insert_chunks(png, *[make_chunk(b"teSt", b"")] * 100_001))
    runs = bytearray(_encode(_draw_photograph().convert("P"), "BMP"))
    runs[30] = 1  # run-length encoding
    with pytest.raises(PhotographError, match=r"5\.0 MB and 60×60 pixels of run-length encoding"):
        decode_photograph(bytes(runs).ljust(5_000_000, b"\1"))


def test_large_and_damaged_texts_and_profiles_in_a_png_cost_no_photograph() -> None:
    png = _encode(_draw_photograph(), "PNG")
    large = zlib.compress(bytes(2**23))
    text = make_chunk(b"zTXt", b"Comment\0\0" + large)
    profile = make_chunk(b"iCCP", b"ICC\0\0" + large)
    damaged = make_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(b"x"))[:-1] + b"?"
    for chunks in ([text], [profile], [text] * 100, [damaged]):
        with pytest.raises((ValueError, UnidentifiedImageError)):
            Image.open(io.BytesIO(_insert_chunks(png, *chunks)))
        assert decode_photograph(_insert_chunks(png, *chunks)).tobytes() == _draw_photograph().tobytes()


def test_few_of_very_many_profiles_and_texts_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[int] = []
    unpacks = containers._unpacks

    def count(packed: bytes, max_bytes: int) -> bool:
        unpacked.append(max_bytes)
        return unpacks(packed, max_bytes)

    monkeypatch.setattr(containers, "_unpacks", count)
    png = _encode(_draw_photograph(), "PNG")
    profile = make_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(1000)))
    text = make_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1000)))
    assert decode_photograph(_insert_chunks(png, *[profile, text] * 5000)).tobytes() == _draw_photograph().tobytes()
    assert len(unpacked) == 100


def test_an_image_of_runs_is_refused_by_its_pixels() -> None:
    runs = bytearray(_encode(_draw_photograph().convert("P"), "BMP"))
    runs[18:26], runs[30] = struct.pack("<ii", 10_000, -10_000), 1
    with pytest.raises(PhotographError, match="10000×10000 pixels of run-length encoding"):
        decode_photograph(bytes(runs))


def test_a_palette_image_without_a_palette_is_refused() -> None:
    with pytest.raises(PhotographError, match="truncated or damaged"):
        decode_photograph(_make_png(2, 2, 8, 3, bytes(6)))


def test_an_answer_at_the_last_moment_does_not_cost_the_next_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _encode(_draw_photograph(), "TIFF")
    decode_photograph(content)
    decode = isolation._Decoder.decode

    def answer_late(decoder: isolation._Decoder, *arguments: Any) -> Image.Image:
        image = decode(decoder, *arguments)
        decoder._process.kill()  # as its timer does at the end of the time
        return image

    with monkeypatch.context() as patch:
        patch.setattr(isolation._Decoder, "decode", answer_late)
        patch.setattr(isolation, "time", SimpleNamespace(monotonic=iter([0.0, 10.0]).__next__))  # not the servers'
        assert decode_photograph(content, max_seconds=10).size == (60, 60)
    assert decode_photograph(content).size == (60, 60)


def test_decoding_ends_at_its_limit_and_the_next_photograph_is_decoded() -> None:
    content = _encode(Image.effect_noise((3000, 3000), 50), "AVIF", speed=10)
    with pytest.raises(PhotographError, match=r"takes more than 0\.01 s"):
        decode_photograph(content, max_seconds=0.01)
    small = _encode(_draw_photograph(), "AVIF")
    assert decode_photograph(small).size == (60, 60)
    with pytest.raises(PhotographError, match="truncated or damaged"):
        decode_photograph(small[:200])
    assert decode_photograph(small).size == (60, 60)


def _repeat_last_scan(content: bytes, count: int) -> bytes:
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * count + content[-2:]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: _encode(Image.new("RGB", (4001, 4000)), "JPEG"), id="many pixels, JPEG"),
        pytest.param(lambda: _encode(Image.new("RGB", (4001, 4000)), "PNG"), id="many pixels, PNG"),
        pytest.param(lambda: _encode(Image.new("RGB", (4001, 4000)), "WEBP", method=0), id="many pixels, WebP"),
        pytest.param(lambda: _encode(Image.new("RGB", (4001, 4000)), "BMP"), id="many pixels, BMP"),
        pytest.param(
            lambda: _repeat_last_scan(_encode(Image.new("RGB", (3000, 3000)), "JPEG", progressive=True), 20),
            id="many scans",
        ),
        pytest.param(lambda: _encode(_draw_photograph(), "JPEG") + bytes(2**24), id="many bytes"),
    ],
)
def test_whatever_may_take_long_ends_at_the_limit_in_every_format(make: Callable[[], bytes]) -> None:
    content = make()
    with pytest.raises(PhotographError, match=r"takes more than 0\.001 s"):
        decode_photograph(content, max_seconds=0.001)
    assert decode_photograph(content, max_seconds=60).tobytes() == decode_photograph(content).tobytes()


def test_photographs_of_usual_sizes_are_decoded_without_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(isolation, "subprocess")
    monkeypatch.setattr(isolation, "_idle", [])
    for name in ("JPEG", "PNG", "WEBP"):
        assert decode_photograph(_encode(Image.new("RGB", (4000, 3000)), name), max_seconds=10).size == (4000, 3000)
    assert decode_photograph(_encode(Image.new("RGB", (5000, 4000)), "JPEG")).size == (5000, 4000)


def test_a_decoder_that_died_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _encode(_draw_photograph(), "TIFF")
    assert decode_photograph(content).size == (60, 60)
    (decoder,) = isolation._idle
    decoder._process.kill()
    decoder._process.wait()
    assert decode_photograph(content).tobytes() == _draw_photograph().tobytes()


def test_decoding_stays_within_a_limit_that_only_root_may_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10**9, 2 * 10**9))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, both: limits.append(both))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    isolation.main()
    assert limits == [(10**9, 10**9)]


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file")])
def test_lack_of_memory_is_no_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(PhotographError, match="memory.*smaller size"):
        decode_photograph(_encode(_draw_photograph(), "JPEG"))


def test_decoders_import_nothing_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text("open('imported', 'w')")
    (tmp_path / "photograph.tif").write_bytes(_encode(_draw_photograph(), "TIFF"))
    script = (
        "from pathlib import Path; from celebflow.data.decoding import decode_photograph; "
        "print(decode_photograph(Path('photograph.tif').read_bytes()).size)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(REPOSITORY)!r}); {script}"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout == "(60, 60)\n", result.stderr
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)),
        Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)),
    ],
)
def test_tiff_files_that_would_be_misread_are_refused_with_the_remedy(image: Image.Image) -> None:
    with pytest.raises(PhotographError, match="rare kind of numbers; save it with 8 bits per color"):
        decode_photograph(_encode(image, "TIFF"))
    grays = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    with pytest.raises(PhotographError, match="rare kind of numbers"):
        black_is_zero, white_is_zero = (struct.pack("<HHII", 262, 3, 1, number) for number in (1, 0))
        decode_photograph(_encode(grays, "TIFF").replace(black_is_zero, white_is_zero))


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "tiff_lzw"}])
def test_a_tiff_of_several_photographs_is_refused_with_the_remedy(options: dict[str, object]) -> None:
    pages = [_draw_photograph(50, 70), _draw_photograph(60, 40)]
    with pytest.raises(PhotographError, match="holds 3 pages, of which only the first would count; save each"):
        decode_photograph(_encode(_draw_photograph(), "TIFF", save_all=True, append_images=pages, **options))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "PNG"])
def test_an_animation_is_refused_with_the_remedy(kind: str) -> None:
    others = [_draw_photograph().rotate(angle) for angle in (90, 180)]
    with pytest.raises(PhotographError, match="an animation of 3 images, of which only the first would count; save"):
        decode_photograph(_encode(_draw_photograph(), kind, save_all=True, append_images=others, duration=100))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "PNG"])
def test_an_animation_of_one_image_is_a_photograph(kind: str) -> None:
    content = _encode(_draw_photograph(), kind, save_all=True, append_images=[_draw_photograph()], duration=100)
    if kind == "AVIF":  # which does not join equal images
        content = _encode(_draw_photograph(), kind, save_all=True)
    assert decode_photograph(content).size == (60, 60)


def test_a_damaged_statement_that_a_png_is_animated_counts_for_nothing() -> None:
    content = _insert_chunks(_encode(_draw_photograph(), "PNG"), struct.pack(">I4sIII", 8, b"acTL", 2, 0, 0))
    assert decode_photograph(content).size == (60, 60)


@pytest.mark.parametrize("primary", [0, 1])
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_of_several_images_in_a_file_the_primary_one_counts(kind: str, primary: int) -> None:
    images = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    if kind == "HEIF":
        file = pillow_heif.from_pillow(images[0])
        file.add_from_pillow(images[1])
        buffer = io.BytesIO()
        file.save(buffer, primary_index=primary)
        content = buffer.getvalue()
    else:
        content = _join_avif(images, primary)
    assert np.asarray(decode_photograph(content)).mean(axis=(0, 1))[2 * primary] > 240


def _join_avif(images: list[Image.Image], primary: int) -> bytes:
    """Return an AVIF file with two images of the same size."""

    def make_box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), kind) + body

    contents = [_encode(image, "AVIF", quality=90) for image in images]
    coded = [content[content.index(b"mdat") + 4 :] for content in contents]
    start = contents[0].index(b"ipco") - 4
    properties = contents[0][start : start + int.from_bytes(contents[0][start : start + 4])]
    start = contents[0].index(b"hdlr") - 4
    handler = contents[0][start : start + int.from_bytes(contents[0][start : start + 4])]
    start = contents[0].index(b"ipma") + 4
    ((count,), associated) = contents[0][start + 10 : start + 11], contents[0][start + 11 :]
    owners = [struct.pack(">HB", number, count) + associated[:count] for number in (1, 2)]
    entries = [make_box(b"infe", struct.pack(">IHH4sx", 2 << 24, number, 0, b"av01")) for number in (1, 2)]

    def make_file(offset: int) -> bytes:
        places = [(1, offset, len(coded[0])), (2, offset + len(coded[0]), len(coded[1]))]
        items = b"".join(struct.pack(">HHHII", number, 0, 1, at, size) for number, at, size in places)
        meta = [
            handler,
            make_box(b"pitm", struct.pack(">IH", 0, 1 + primary)),
            make_box(b"iloc", struct.pack(">IBBH", 0, 0x44, 0, 2) + items),
            make_box(b"iinf", struct.pack(">IH", 0, 2) + b"".join(entries)),
            make_box(b"iprp", properties + make_box(b"ipma", struct.pack(">II", 0, 2) + b"".join(owners))),
        ]
        head = contents[0][: int.from_bytes(contents[0][:4])] + make_box(b"meta", bytes(4) + b"".join(meta))
        return head + make_box(b"mdat", b"".join(coded))

    return make_file(make_file(0).index(b"mdat") + 4)


@pytest.mark.parametrize(("size", "kind"), [((60, 60), 1), ((60, 60), 4), ((30, 30), 0)])
def test_previews_and_masks_in_a_tiff_cost_no_photograph(size: tuple[int, int], kind: int) -> None:
    photograph, other = _draw_photograph(), _draw_photograph(*size)
    other.encoderinfo = {"tiffinfo": {254: kind}}  # as Pillow takes it for a page
    content = _encode(photograph, "TIFF", save_all=True, append_images=[other])
    assert Image.open(io.BytesIO(content)).n_frames == 2  # type: ignore[attr-defined] # of TIFF files
    assert decode_photograph(content).tobytes() == photograph.tobytes()


def test_a_strip_of_millions_of_pixels_is_refused() -> None:
    with pytest.raises(PhotographError, match="a side of more than 65535"):
        decode_photograph(_claim_png_size(1, 90_000_000))


def test_a_comment_does_not_decide_about_the_format() -> None:
    assert decode_photograph(_encode(_draw_photograph(), "JPEG", comment=b"made from <svg>")).size == (60, 60)


def test_a_tiff_cannot_ask_for_more_memory_than_there_is() -> None:
    # A tile of 4 GB for a picture of 64 pixels.
    tags = [(256, 3, 8), (257, 3, 8), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, 65520), (323, 4, 65520), (324, 4, 8), (325, 4, 8)]
    entries = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in tags)
    content = b"II*\0\x10\0\0\0" + zlib.compress(bytes(8)).ljust(8, b"\0")[:8] + struct.pack("<H", len(tags)) + entries
    with pytest.raises(PhotographError):
        decode_photograph(content + bytes(4))


@pytest.mark.parametrize(
    ("size", "tile", "decoded"),
    [
        ((64, 64), (23_168, 23_168), False),
        ((65_535, 16), (16, 65_536), False),
        ((64, 64), (1024, 1024), True),
        ((1200, 1100), (1200, 1104), True),
        ((1025, 1025), (1024, 1024), True),
    ],
)
def test_tiles_of_a_tiff_far_beyond_its_image_are_refused(
    size: tuple[int, int], tile: tuple[int, int], decoded: bool
) -> None:
    count = -(-size[0] // tile[0]) * -(-size[1] // tile[1])
    packed = zlib.compress(bytes(prod(tile)) if decoded else b"")
    pixels = packed.ljust(300 + len(packed) % 2, b"\0")
    tables = struct.pack(f"<{count}I", *[8] * count) + struct.pack(f"<{count}I", *[len(packed)] * count)
    places = (8 + len(pixels), 8 + len(pixels) + 4 * count) if count > 1 else (8, len(packed))
    tags = {256: size[0], 257: size[1], 258: 8, 259: 8, 262: 1, 277: 1, 322: tile[0], 323: tile[1]}
    entries = [struct.pack("<HHII", number, 4, 1, value) for number, value in tags.items()]
    entries += [struct.pack("<HHII", 324 + number, 4, count, place) for number, place in enumerate(places)]
    body = pixels + tables
    start = struct.pack("<I", 8 + len(body))
    content = b"II*\0" + start + body + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    if decoded:
        assert decode_photograph(content).size == size
        return
    with pytest.raises(PhotographError, match=f"tiles of {tile[0]}×{tile[1]} pixels .* {size[0]}×{size[1]}; save it"):
        decode_photograph(content)


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_tiff_with_too_few_strips_or_tiles_is_refused(missing: int, tiled: bool, compression: int) -> None:
    part = bytes([200, 150, 100]) * 32 * (32 if tiled else 16)
    part = zlib.compress(part) if compression == 8 else part

    def write(count: int, *, absent: int = 0) -> bytes:
        sides = {322: 32, 323: 32} if tiled else {278: 16}
        tags = {256: 32, 257: 32 * 4 if tiled else 16 * 4, 259: compression, 262: 2, 277: 3, **sides}
        places = 1000, 1000 + 4 * count
        start, length = (324, 325) if tiled else (273, 279)
        entries = [(tag, 4, 1, value) for tag, value in tags.items()] + [(258, 3, 3, 900)]
        entries += [(start, 4, count, places[0]), (length, 4, count, places[1])]
        head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
        head += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + bytes(4)
        starts = [3000] * (count - absent) + [0] * absent
        return (
            head.ljust(900, b"\0")
            + struct.pack("<3H", 8, 8, 8).ljust(100, b"\0")
            + struct.pack(f"<{2 * count}I", *starts, *[len(part)] * count).ljust(2000, b"\0")
            + part
        )

    assert decode_photograph(write(4)).getpixel((9, 60)) == (200, 150, 100)
    for content in (write(4 - missing), write(4, absent=missing)):
        with pytest.raises(PhotographError, match="truncated.*fewer pixels than it should"):
            decode_photograph(content)


def test_a_tiff_in_one_strip_of_any_claimed_height_is_read() -> None:
    rows = (278, 4, 1, struct.pack("<I", 2**32 - 1))
    assert decode_photograph(_make_tiff(rows)).getpixel((7, 7)) == (0, 0, 0)


def _make_tiff(*tags: tuple[int, int, int, bytes], pixels: bytes = bytes(192), compression: int = 1) -> bytes:
    """Return a TIFF file of 8 × 8 RGB pixels; a tag is its number, its type, its count, and its value or offset."""
    numbers = {256: 8, 257: 8, 259: compression, 262: 2, 273: 8, 277: 3, 278: 8, 279: len(pixels)}
    entries = [(number, 4, 1, struct.pack("<I", value)) for number, value in numbers.items()]
    bits = 8 + len(pixels)
    entries.append((258, 3, 3, struct.pack("<I", bits)))
    merged = {entry[0]: entry for entry in [*entries, *tags]}
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for _, entry in sorted(merged.items()))
    start = struct.pack("<I", bits + 6)
    return b"II*\0" + start + pixels + struct.pack("<3H", 8, 8, 8) + struct.pack("<H", len(merged)) + table + bytes(4)


def test_tags_that_share_the_bytes_of_a_tiff_do_not_multiply_its_memory() -> None:
    assert decode_photograph(_make_tiff()).getpixel((0, 0)) == (0, 0, 0)
    shared = [(40_000 + number, 3, 90, struct.pack("<I", 8)) for number in range(10)]
    with pytest.raises(PhotographError, match="18 tags|19 tags"):
        decode_photograph(_make_tiff(*shared))


def test_colors_of_a_tiff_that_pixels_share_are_not_misread() -> None:
    tone = (262, 3, 1, struct.pack("<I", 6))
    with pytest.raises(PhotographError, match="rare kind"):
        decode_photograph(_make_tiff(tone, pixels=bytes(192)))
    own = (530, 3, 2, struct.pack("<HH", 1, 1))
    gray = bytes([100, 128, 128]) * 64
    assert decode_photograph(_make_tiff(tone, own, pixels=gray)).getpixel((0, 0)) == (100, 100, 100)


@pytest.mark.parametrize("alpha", [1, 2])
def test_grays_and_their_transparency_in_separate_planes_are_refused(alpha: int) -> None:
    planes = [zlib.compress(bytes([value]) * 64) for value in (50, 128)]
    tags = [(277, 3, 1, struct.pack("<I", 2)), (262, 3, 1, struct.pack("<I", 1)), (284, 3, 1, struct.pack("<I", 2))]
    tags += [(258, 3, 2, struct.pack("<HH", 8, 8)), (338, 3, 1, struct.pack("<I", alpha))]
    tags.append((273, 3, 2, struct.pack("<HH", 8, 8 + len(planes[0]))))
    tags.append((279, 3, 2, struct.pack("<HH", *map(len, planes))))
    with pytest.raises(PhotographError, match="rare kind"):
        decode_photograph(_make_tiff(*tags, pixels=b"".join(planes), compression=8))


def test_grays_that_are_multiplied_by_their_transparency_are_read() -> None:
    half = bytes([50, 128]) * 64
    alpha = (338, 3, 1, struct.pack("<I", 1))
    tags = [(277, 3, 1, struct.pack("<I", 2)), (262, 3, 1, struct.pack("<I", 1)), alpha]
    tags.append((258, 3, 2, struct.pack("<HH", 8, 8)))
    pixels = np.asarray(decode_photograph(_make_tiff(*tags, pixels=half)), np.int64)
    assert np.abs(pixels - (50 + 127)).max() <= 2


@pytest.mark.parametrize("marker", [0xC9, 0xCA, 0xC3])
def test_jpeg_files_of_rare_kinds_are_refused(marker: int) -> None:
    content = bytearray(_encode(_draw_photograph(), "JPEG"))
    content[content.index(b"\xff\xc0") + 1] = marker
    with pytest.raises(PhotographError, match="rare kind; save it again"):
        decode_photograph(bytes(content))


def test_transparent_parts_become_white_and_16_bit_grays_keep_their_shades() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    for kind in ("PNG", "WEBP", "TIFF"):
        assert decode_photograph(_encode(clear, kind)).getpixel((0, 0)) == (255, 255, 255)
    gray = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    for kind in ("PNG", "TIFF"):
        assert decode_photograph(_encode(gray, kind)).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_gray_of_a_png_becomes_white_and_the_others_stay(bits: int) -> None:
    clear, shown = 1, 2**bits // 2 if bits > 1 else 0  # neither is white
    rows = b"".join(b"\0" + int(f"{gray:0{bits}b}" * 8, 2).to_bytes(bits) for gray in (clear, shown))
    png = _make_png(8, 2, bits, 0, rows)
    expected = (shown >> 8 if bits == 16 else shown * 255 // (2**bits - 1),) * 3
    image = decode_photograph(_insert_chunks(png, make_chunk(b"tRNS", struct.pack(">H", clear))))
    assert (image.getpixel((0, 0)), image.getpixel((0, 1))) == ((255,) * 3, expected)
    assert decode_photograph(_insert_chunks(png, make_chunk(b"tRNS", b"\0"))).getpixel((0, 1)) == expected
    if bits < 16:  # the higher bits count for nothing
        high = decode_photograph(_insert_chunks(png, make_chunk(b"tRNS", struct.pack(">H", clear | 2**15))))
        assert high.tobytes() == image.tobytes()


def test_the_transparent_color_of_16_bits_becomes_white() -> None:
    pixels = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC) * 2
    png = _make_png(2, 1, 16, 2, b"\0" + pixels)
    assert decode_photograph(png).getpixel((0, 0)) == (0x12, 0x56, 0x9A)
    assert decode_photograph(_insert_chunks(png, make_chunk(b"tRNS", pixels[:6]))).getpixel((0, 0)) == (255, 255, 255)


def test_a_bmp_whose_alpha_is_nowhere_set_is_opaque() -> None:
    header = struct.pack("<2sIII", b"BM", 0, 0, 122) + struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, 32, 3, 0, 0, 0, 0, 0)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    for alpha, expected in ((0, (30, 20, 10)), (255, (30, 20, 10))):
        pixels = bytes([10, 20, 30, alpha]) * 64
        with Image.open(io.BytesIO(header + masks + pixels)) as image:
            assert image.mode == "RGBA"
        assert decode_photograph(header + masks + pixels).getpixel((0, 0)) == expected
    half = bytes([10, 20, 30, 0]) * 32 + bytes([10, 20, 30, 255]) * 32
    assert decode_photograph(header + masks + half).getpixel((0, 7)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_colors_of_wide_gamuts_become_those_that_a_screen_shows(kind: str) -> None:
    red = Image.new("RGB", (16, 16), (200, 60, 40))
    plain = np.array(decode_photograph(_encode(red, kind, quality=100)).getpixel((8, 8)), np.int64)
    for primaries, expected in ((DISPLAY_P3, (219, 37, 13)), (ADOBE_RGB, (231, 57, 34))):
        content = _encode(red, kind, quality=100, icc_profile=make_rgb_profile(primaries))
        shown = np.array(decode_photograph(content).getpixel((8, 8)), np.int64)
        assert np.abs(shown - expected).max() <= 6
        assert np.abs(shown - plain).max() > 15


# BT.709 with its own and sRGB's curve, unspecified, and NTSC's: viewers show them alike.
_LIKE_SRGB = [(1, 13), (1, 1), (2, 2), (6, 6)]
_BY_CODES = [((12, 13), (217, 42, 23)), ((9, 13), (247, 0, 23)), ((1, 8), (228, 133, 110)), ((1, 16), (255, 39, 17))]


@pytest.mark.parametrize(("codes", "expected"), _BY_CODES)
@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "PNG"])
def test_colors_that_numbers_state_become_those_that_a_screen_shows(
    kind: str, codes: tuple[int, int], expected: tuple[int, int, int]
) -> None:
    content = _state_colors(_encode(Image.new("RGB", (16, 16), (200, 60, 40)), kind, quality=100), *codes)
    shown = np.array(decode_photograph(content).getpixel((8, 8)), np.int64)
    assert np.abs(shown - expected).max() <= 6


@pytest.mark.parametrize("codes", _LIKE_SRGB)
@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "PNG"])
def test_numbers_that_state_nothing_else_than_srgb_change_no_bit(kind: str, codes: tuple[int, int]) -> None:
    content = _encode(_draw_photograph(), kind)
    assert decode_photograph(_state_colors(content, *codes)).tobytes() == decode_photograph(content).tobytes()


def test_paper_is_white_in_photographs_of_a_high_dynamic_range() -> None:
    for transfer, paper in ((16, 148), (18, 191)):  # PQ and HLG
        content = _encode(Image.new("RGB", (16, 16), (paper, paper, paper)), "HEIF", quality=100)
        shown = np.asarray(decode_photograph(_state_colors(content, 9, transfer)))
        assert shown.min() >= 250
        darker = _encode(Image.new("RGB", (16, 16), (paper - 20,) * 3), "HEIF", quality=100)
        assert np.asarray(decode_photograph(_state_colors(darker, 9, transfer))).max() < 240


def _state_colors(content: bytes, primaries: int, transfer: int) -> bytes:
    """Return an AVIF, HEIF or PNG file with these numbers of ITU-T H.273."""
    if content.startswith(b"\x89PNG"):
        return _insert_chunks(content, make_chunk(b"cICP", bytes([primaries, transfer, 0, 1])))
    numbers = content.index(b"nclx") + 4
    return content[:numbers] + struct.pack(">HH", primaries, transfer) + content[numbers + 4 :]


def test_numbers_about_a_png_file_count_in_the_order_that_its_specification_gives() -> None:
    red = _encode(Image.new("RGB", (8, 8), (200, 60, 40)), "PNG")
    gray = _encode(Image.new("L", (8, 8), 100), "PNG")
    linear, usual = (make_chunk(b"gAMA", struct.pack(">I", exponent)) for exponent in (100_000, 45_455))
    wide = make_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
    none = make_chunk(b"cHRM", struct.pack(">8I", 31270, 0, 0, 0, 0, 0, 0, 0))
    same = make_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    p3, srgb = make_chunk(b"cICP", bytes([12, 13, 0, 1])), make_chunk(b"sRGB", b"\0")
    profile = make_chunk(b"iCCP", b"x\0\0" + zlib.compress(make_rgb_profile(ADOBE_RGB)))
    plain, in_p3, light = (200, 60, 40), (217, 42, 23), (228, 133, 110)
    cases = [
        ([linear], light),
        ([linear, same], light),
        ([usual, wide], in_p3),
        ([p3, linear, wide], in_p3),
        ([p3, profile], in_p3),
        ([linear, profile], (231, 57, 34)),
        ([linear, srgb], plain),
        ([usual, same], plain),
        ([wide], plain),
        ([usual, none], plain),
        ([linear[:-1] + b"x"], plain),
        ([make_chunk(b"gAMA", bytes(4))], plain),
        ([make_chunk(b"cICP", bytes([12, 13, 1, 1]))], plain),
    ]
    for chunks, expected in cases:
        shown = np.array(decode_photograph(_insert_chunks(red, *chunks)).getpixel((0, 0)), np.int64)
        assert np.abs(shown - expected).max() <= (0 if expected == plain else 6), chunks
    assert decode_photograph(_insert_chunks(gray, linear)).getpixel((0, 0)) == (168, 168, 168)
    assert decode_photograph(_state_colors(gray, 12, 8)).getpixel((0, 0)) == (168, 168, 168)
    assert decode_photograph(_insert_chunks(gray, wide, usual)).getpixel((0, 0)) == (100, 100, 100)


def test_colors_that_are_stated_in_other_ways_do_not_count_as_the_limits_say() -> None:
    color, profile = (200, 60, 40), make_rgb_profile(ADOBE_RGB)
    image = Image.new("RGB", (16, 16), color)
    plain, with_profile = (_encode(image, "JPEG", quality=100, icc_profile=each) for each in (None, profile))
    start = with_profile.index(b"ICC_PROFILE") - 4
    segment = with_profile[start : start + 2 + struct.unpack_from(">H", with_profile, start + 2)[0]]
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2  # Adobe RGB, as cameras write it
    # BITMAPV5HEADER, which ends with the place and the size of an embedded profile.
    header = struct.pack("<IiiHHIIiiII", 124, 16, 16, 1, 24, 0, 768, 2835, 2835, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<4I", 4, 124 + 768, len(profile), 0)
    bmp = (
        b"BM" + struct.pack("<IHHI", 138 + 768 + len(profile), 0, 0, 138) + header + bytes(color[::-1]) * 256 + profile
    )
    for content in (
        plain,
        plain[:-2] + segment + plain[-2:],
        _encode(image, "JPEG", quality=100, exif=exif.tobytes()),
        bmp,
    ):
        shown = np.array(decode_photograph(content).getpixel((0, 0)), np.int64)
        assert np.abs(shown - color).max() <= 1
    changed = np.array(decode_photograph(with_profile).getpixel((0, 0)), np.int64)
    assert np.abs(changed - color).max() > 20


def test_profiles_of_grays_and_inks_are_applied() -> None:
    gray = _encode(Image.new("L", (8, 8), 100), "PNG", icc_profile=make_gray_profile(1.0))
    assert decode_photograph(gray).getpixel((0, 0)) == (168, 168, 168), "linear light"
    profile = make_chunk(b"iCCP", b"x\0\0" + zlib.compress(make_gray_profile(1.0)))
    transparent = _insert_chunks(gray, make_chunk(b"tRNS", b"\0\1"))
    opaque = _insert_chunks(_make_png(1, 1, 16, 4, b"\0" + struct.pack(">HH", 0x6464, 0xFFFF)), profile)
    for content in (transparent, opaque):
        assert decode_photograph(content).getpixel((0, 0)) == (168, 168, 168)
    inks = Image.new("CMYK", (8, 8), (128, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        assert decode_photograph(_encode(inks, kind)).getpixel((0, 0)) == (127, 255, 255)
        content = _encode(inks, kind, icc_profile=make_cmyk_profile())
        assert decode_photograph(content).getpixel((0, 0)) == (163, 163, 163)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_profile_of_colors_says_how_bright_grays_are(mode: str) -> None:
    gray = Image.new("L", (8, 8), 100).convert(mode)
    linear = _encode(gray, "PNG", icc_profile=make_rgb_profile(DISPLAY_P3, 1.0))
    assert decode_photograph(linear).getpixel((0, 0)) == (168, 168, 168)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode_photograph(_encode(gray, "PNG", icc_profile=srgb)).getpixel((0, 0)) == (100, 100, 100)


def test_a_profile_that_all_but_equals_srgb_changes_no_bit() -> None:
    photograph = _draw_photograph()
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entry = profile.index(b"rXYZ")
    x = int.from_bytes(profile[entry + 4 : entry + 8]) + 8
    profile[x : x + 4] = struct.pack(">i", struct.unpack_from(">i", profile, x)[0] + 40)
    near = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(photograph, near, ImageCms.createProfile("sRGB"))
    assert converted is not None and converted.tobytes() != photograph.tobytes(), "applied, it would change some"
    content = _encode(photograph, "PNG", icc_profile=bytes(profile))
    assert decode_photograph(content).tobytes() == photograph.tobytes()


def test_srgb_broken_and_foreign_profiles_change_no_bit() -> None:
    photograph = _draw_photograph()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"junk" * 100, make_cmyk_profile(), make_gray_profile(1.0), srgb[:200]):
        assert decode_photograph(_encode(photograph, "PNG", icc_profile=profile)).tobytes() == photograph.tobytes()


_EXIF = Image.Exif()
_EXIF[0x0112] = 6
# A file of each format, with EXIF and a color profile where it can have them.
SEEDS = [
    *(_encode(_draw_photograph(24, 16), kind, exif=_EXIF, icc_profile=make_rgb_profile(DISPLAY_P3)) for kind in KINDS),
    _encode(_draw_photograph(24, 16), "JPEG", progressive=True),
    _encode(_draw_photograph(24, 16).convert("P"), "PNG"),
    _encode(_draw_photograph(24, 16), "MPO", save_all=True, append_images=[_draw_photograph(8, 8)]),
    _encode(_draw_photograph(24, 16), "TIFF", compression="tiff_lzw"),
    _encode(_draw_photograph(24, 16), "WEBP", lossless=True),
]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_of_any_format_raise_another_error(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, len(content) - 1))
        changed = data.draw(st.binary(min_size=0, max_size=6))
        content[position : position + data.draw(st.integers(0, 6))] = changed
        content = content or bytearray(b"x")
    try:
        assert decode_photograph(bytes(content), max_seconds=5).mode == "RGB"
    except PhotographError as error:
        assert str(error)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 100, 101])
@pytest.mark.parametrize(
    "prefix", ["", "data:image/png;base64,", "\nDATA:image/jpeg;name=a.jpg;BASE64,", "data:;base64,"]
)
def test_base64_is_decoded_however_it_is_written(prefix: str, length: int) -> None:
    content = random.Random(length).randbytes(length)
    standard = base64.b64encode(content).decode()
    lines = base64.encodebytes(content).decode()
    for text in (
        standard,
        lines,
        lines.replace("\n", "\r\n"),
        f"  {standard}\t",
        base64.urlsafe_b64encode(content).decode(),
    ):
        assert decode_base64(prefix + text) == content
        assert decode_base64(prefix + text.replace("=", "")) == content


@pytest.mark.parametrize(
    "text",
    [
        "/data/abc.png",
        "https://example.com/a.jpg",
        "file:///etc/passwd",
        "/etc/passwd",
        "etc/passwd/",
        "Björn",
        "data:image/png,abcd",  # not in base64
        "data:image/png;base64,%41bcd",
        "data:image/png;base64,data:image/png;base64,abcd",
        "abcde",
        "YQ===",
        "YQ==YQ==",
        "====",
        "YR",  # not a whole number of bytes
    ],
)
def test_text_that_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(PhotographError, match="not in base64"):
        decode_base64(text)


def test_an_encoded_jpeg_shows_the_image() -> None:
    image = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    decoded = np.asarray(decode_photograph(encode_jpeg(image)), np.int64)
    assert decoded.shape == (16, 24, 3)
    assert np.abs(decoded - image).max() <= 4


def test_a_photograph_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.jpg")
    with pytest.raises(CelebflowError, match=r"1\.jpg is not a regular file.*`dvc repro`"):
        load_photograph(tmp_path / "1.jpg")
