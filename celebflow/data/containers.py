"""The parts of an image file around its pixels: what decoding may cost is bounded before it starts."""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from celebflow.data.formats import PhotographError

# Segments, chunks: each costs a decoder a step, however small it is.
_MAX_PARTS = 100_000
_MAX_ANCILLARY = 100  # chunks that may each have to be unpacked; photographs have a few
_MAX_PROFILE_BYTES = 2**20  # unpacked, as Pillow accepts it
_MAX_TEXT_BYTES = 2**16
_MAX_RUNS_BYTES, _MAX_RUNS_PIXELS = 2**22, 16_000_000  # of run-length encoding, which Pillow decodes in Python
_MAX_FILL_BYTES = 2**16  # before segments, which Pillow skips one by one
# A marker of a segment, after any number of fill bytes: no escaped FF, no restart of a scan, no start of an image, and
# none of the reserved markers below C0, which a decoder skips alone: it would find scans where a segment seems to be.
# Looking behind makes it linear in time, whatever the file contains; beginning with a byte, it skips others fast.
_MARKER = re.compile(rb"\xff(?<!\xff\xff)\xff*+([^\x00-\xbf\xd0-\xd8\xff]|\Z)")
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"
_FILLED = bytes(64)  # what a download or a disk leaves of the rest of a file; scans hold no such run of zeros
# Frames that are lossless, hierarchical or in arithmetic coding; the last costs time for scans of no bytes.
_RARE_FRAMES = [bytes([marker]) for marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)]
_ORIENTATION = 0x0112
_NUMBERS = {1: "B", 3: "H", 4: "I"}  # of EXIF
_MAX_TAGS = 2**16
_SUBFILE, _WIDTH, _LENGTH = 254, 256, 257  # tags of TIFF
_REDUCED, _MASK = 1, 4  # pages that are a smaller copy, or say what is transparent
_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 13: 4}  # 8 for others
_EXIF = b"Exif\0\0"
# How segments of EXIF and of the index of a multi-picture file begin, with their marker.
_EXIF_SEGMENT, _INDEX = b"\xe1" + _EXIF, b"\xe2MPF\0"
# The entry of EXIF in the list of an AVIF file's items: version and flags, number, protection, type.
_AVIF_EXIF = re.compile(rb"(infe(?:\x02.{5}|\x03.{7})..)Exif", re.DOTALL)
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED = (b"XML:com.adobe.xmp", b"Raw profile type exif")  # texts that can hold the orientation
_PNG_SIGNATURE_BYTES = 8
_PNG_BITS = 24  # where the bits per channel stand, and behind them the color type
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_PNG_TRANSPARENCIES = {0: 1, 2: 3}  # the numbers of a transparent color, by color type
# The first column and row of each pass of an interlaced PNG file, and its steps to the next.
_PNG_PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
_PNG_COLORS = {b"cICP": 4, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}  # chunks that state colors by numbers, and their bytes
_PNG_ANIMATION = b"acTL"
_UNPACKED_BYTES = 2**20  # in memory at once
# What decides about the pixels. Other texts, of any size, are left aside.
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", *_PNG_TEXTS, b"IDAT", b"IEND")


class Jpeg(NamedTuple):
    """The first image of a JPEG file, without EXIF and an index of further images; its first EXIF data; its scans.

    `scan_bytes` are those from its first scan to its last.
    """

    content: bytes
    exif: bytes
    scans: int
    scan_bytes: int


def strip_jpeg(content: bytes) -> Jpeg:
    """Take a JPEG file apart.

    Pillow would read all of EXIF, in any number of segments, however large or damaged. What follows the end of the
    first image does not count, and neither does what a segment contains.

    Raises PhotographError for a file of very many segments, of a kind that decoders need far longer for, or whose end
    was replaced by zeros, which decoders take for gray.
    """
    kept, position, exif = [], 0, b""
    scan_starts = []
    for marker, start, end in _list_segments(content):
        if marker in _RARE_FRAMES:
            raise PhotographError("is a JPEG file of a rare kind; save it again as an ordinary JPEG or PNG")
        if marker == _START_OF_SCAN:
            scan_starts.append(start)
        beginning = marker + content[start + 4 : start + 10]
        if beginning.startswith((_EXIF_SEGMENT, _INDEX)):
            kept.append(content[position:start])
            position = end
        if beginning == _EXIF_SEGMENT:
            exif = exif or content[start + 4 : end]
    scan_bytes = scan_starts[-1] - scan_starts[0] if scan_starts else 0
    return Jpeg(b"".join([*kept, content[position:]]), exif, len(scan_starts), scan_bytes)


def _list_segments(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the marker of each segment of the first image in a JPEG file, and where it starts and ends."""
    position = count = fill = 0
    scanning = False
    # A slice of the file, so that what stands before it is not looked at.
    while (marker := _MARKER.search(memoryview(content)[position:])) and marker[1]:
        if marker[1] == _END_OF_IMAGE and scanning:
            return
        fill += 0 if scanning else marker.end() - 2
        if fill > _MAX_FILL_BYTES:
            raise PhotographError("has too many bytes between its segments")
        position += marker.end()
        if marker[1] == _END_OF_IMAGE:  # of tables alone: decoders go on to an image behind it
            continue
        end = position + int.from_bytes(content[position : position + 2])
        yield bytes(marker[1]), position - 2, end
        position = end
        scanning = scanning or marker[1] == _START_OF_SCAN
        count += 1
        if count > _MAX_PARTS:
            raise PhotographError(f"has more than {_MAX_PARTS} segments")
    if scanning and content.endswith(_FILLED):
        raise PhotographError("is truncated: zeros stand for its end; copy it again from where it came")
    if not scanning and fill + len(content) - position > _MAX_FILL_BYTES:
        raise PhotographError("has too many bytes between its segments")


def strip_png(content: bytes) -> bytes:
    """Return a PNG file with only its pixels, orientation and color profile, and these only where they are sound.

    Pillow refuses files with damage around the pixels, and those whose texts or profile unpack to much.

    Raises PhotographError for a file of very many chunks.
    """
    kept, ancillary = [content[:_PNG_SIGNATURE_BYTES]], 0
    bits, color_type = content[_PNG_BITS : _PNG_BITS + 2].ljust(2, b"\0")
    for count, (kind, start, end) in enumerate(_list_chunks(content)):
        if count == _MAX_PARTS:
            raise PhotographError(f"has more than {_MAX_PARTS} chunks")
        if kind not in _PNG_CHUNKS or (kind == b"IHDR" and count > 0):  # a second one would give another size
            continue
        chunk = content[start:end]
        if kind[:1].islower():
            ancillary += 1
            if ancillary > _MAX_ANCILLARY or not _is_kept(kind, chunk):
                continue
        kept.append(_scale_transparency(chunk, bits, color_type) if kind == b"tRNS" else chunk)
    return b"".join(kept)


def _scale_transparency(chunk: bytes, bits: int, color_type: int) -> bytes:
    """Return the chunk that names the transparent color of a PNG file, in the numbers that Pillow gives its pixels.

    These have 8 bits, and only grays of 1 or 16 bits keep theirs. A chunk that is too short counts for nothing.
    """
    channels = _PNG_TRANSPARENCIES.get(color_type, 0)
    if len(chunk) - 12 < 2 * channels:
        return b""
    if not channels or bits == 0 or (bits == 16 and channels == 1):
        return chunk
    largest = 2**bits - 1
    scaled = []
    for value in struct.unpack_from(f">{channels}H", chunk, 8):
        value &= largest  # higher bits do not count
        if bits in (2, 4):
            value = value * 255 // largest
        scaled.append(value >> 8 if bits == 16 else value)
    body = b"tRNS" + struct.pack(f">{channels}H", *scaled)
    return struct.pack(">I", 2 * channels) + body + struct.pack(">I", zlib.crc32(body))


def _is_kept(kind: bytes, chunk: bytes) -> bool:
    if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
        return False  # damaged, and the pixels do not need it
    keyword, _, content = chunk[8:-4].partition(b"\0")
    if kind == b"iCCP":
        return content[:1] == b"\0" and _unpacks(content[1:], _MAX_PROFILE_BYTES)
    if kind not in _PNG_TEXTS:
        return True
    if keyword not in _ORIENTED or len(chunk) > _MAX_TEXT_BYTES or (kind == b"iTXt" and content[:1] != b"\0"):
        return False
    return kind != b"zTXt" or _unpacks(content[1:], _MAX_TEXT_BYTES)


def _list_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk of a PNG file, and where it starts and ends, until the end of the image."""
    start = _PNG_SIGNATURE_BYTES
    while start < len(content):
        kind = content[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(content[start : start + 4])
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end


def check_png(content: bytes, width: int, height: int) -> None:
    """Raise PhotographError for a PNG file whose pixels end properly, but too early: Pillow shows the others black."""
    bits, color_type, _, _, interlaced = content[_PNG_BITS : _PNG_BITS + 5]
    channels = _PNG_CHANNELS.get(color_type, 0)
    missing = 0
    for left, top, across, down in _PNG_PASSES if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0:
            missing += max(rows, 0) * (1 + (columns * bits * channels + 7) // 8)
    decompressor = zlib.decompressobj()
    for kind, start, end in _list_chunks(content):
        packed = content[start + 8 : end - 4] if kind == b"IDAT" else b""
        while packed and missing > 0 and not decompressor.eof:
            missing -= len(decompressor.decompress(packed, _UNPACKED_BYTES))
            packed = decompressor.unconsumed_tail
    if decompressor.eof and missing > 0:
        raise PhotographError("is truncated: it holds fewer pixels than it should; save it again as JPEG or PNG")


def count_png_images(content: bytes) -> int:
    """Return how many images an animated PNG file shows, 1 for any other one; damaged chunks count for nothing."""
    for kind, start, end in _list_chunks(content):
        if kind == b"IDAT":
            break
        chunk = content[start:end]
        if kind == _PNG_ANIMATION and len(chunk) == 20 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]):
            return int.from_bytes(chunk[8:12])
    return 1


def check_animation(image_count: int) -> None:
    """Raise PhotographError for a file that shows several images one after the other: it is rather a film."""
    if image_count > 1:
        raise PhotographError(
            f"is an animation of {image_count} images, of which only the first would count; save each photograph in it "
            "as a file of its own"
        )


class PngColors(NamedTuple):
    """What states the colors of a PNG file by numbers, instead of a color profile.

    `codes` are those of ITU-T H.273, `exponent` is that of the encoding, and `chromaticities` are the x and y of white,
    red, green and blue. `is_srgb` says that a chunk states sRGB.
    """

    codes: tuple[int, int] | None
    exponent: float | None
    chromaticities: tuple[float, ...] | None
    is_srgb: bool


def find_png_colors(content: bytes) -> PngColors:
    """Return the numbers that state the colors of a PNG file; damaged chunks count for nothing."""
    chunks: dict[bytes, bytes] = {}
    for kind, start, end in _list_chunks(content):
        if kind == b"IDAT":
            break
        if end - start != _PNG_COLORS.get(kind, 0) + 12:
            continue
        chunk = content[start:end]
        if len(chunk) == end - start and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]):
            chunks.setdefault(kind, chunk[8:-4])
    codes = chunks.get(b"cICP", b"")
    numbers = {kind: struct.unpack(f">{len(chunk) // 4}I", chunk) for kind, chunk in chunks.items() if len(chunk) > 3}
    exponent, places = numbers.get(b"gAMA"), numbers.get(b"cHRM")
    return PngColors(
        (codes[0], codes[1]) if codes[2:] == b"\0\1" else None,  # RGB, of which all values count
        exponent[0] / 1e5 if exponent else None,
        tuple(place / 1e5 for place in places) if places else None,
        b"sRGB" in chunks,
    )


def _unpacks(packed: bytes, max_bytes: int) -> bool:
    """Tell whether data are sound, and unpack to at most so many bytes."""
    decompressor = zlib.decompressobj()
    try:
        decompressor.decompress(packed, max_bytes)
    except zlib.error:
        return False
    return decompressor.eof


def check_bmp(content: bytes) -> None:
    """Raise PhotographError for a BMP file with much run-length encoding, by its bytes or its pixels."""
    width, height = (abs(int.from_bytes(content[start : start + 4], "little", signed=True)) for start in (18, 22))
    compression = int.from_bytes(content[30:34], "little")
    if compression in (1, 2) and (len(content) > _MAX_RUNS_BYTES or width * height > _MAX_RUNS_PIXELS):
        size = f"{len(content) / 1e6:.1f} MB and {width}×{height} pixels"
        raise PhotographError(f"has {size} of run-length encoding, which is too much; save it as PNG")


class _Tag(NamedTuple):
    """A tag of a TIFF file: its number, type and length, and its value, or where that is."""

    number: int
    kind: int
    length: int
    value: int


def check_tiff(content: bytes) -> None:
    """Raise PhotographError for a TIFF file whose tags need more memory than the file, or that holds other photographs.

    Many tags can share the same bytes. Of several pages, decoders would show the first alone.
    """
    pages = _list_tiff_pages(content)
    tags = next(pages, None)
    if tags is None:
        return  # truncated, which decoding will say
    tag_bytes = sum(tag.length * _TIFF_TYPE_BYTES.get(tag.kind, 8) for tag in tags)
    if tag_bytes > len(content) or len(tags) > _MAX_TAGS:
        size = f"{len(tags)} tags of {tag_bytes / 1e6:.1f} MB"
        raise PhotographError(f"has {size}, more than the file; save it again as JPEG")
    width, height = _find_tiff_size(tags)
    # A much smaller page is likely a preview that is not marked as one.
    others = [size for size in map(_find_tiff_size, pages) if 2 * size[0] > width > 0 and 2 * size[1] > height > 0]
    if others:
        raise PhotographError(
            f"holds {len(others) + 1} pages, of which only the first would count; save each as a file of its own"
        )


def _list_tiff_pages(content: bytes) -> Iterator[list[_Tag]]:
    """Yield the tags of each page of a TIFF file, as far as it is sound."""
    order = ">" if content[:2] == b"MM" else "<"
    big = content[2:4] in (b"+\0", b"\0+")
    place, count_format, entry = (
        (f"{order}Q", f"{order}Q", f"{order}HHQ8s") if big else (f"{order}I", f"{order}H", f"{order}HHI4s")
    )
    step = struct.calcsize(entry)
    total, seen = 0, {0}
    with suppress(struct.error, OverflowError):
        (start,) = struct.unpack_from(place, content, 8 if big else 4)
        while start not in seen and total <= _MAX_TAGS:
            seen.add(start)
            (count,) = struct.unpack_from(count_format, content, start)
            first = start + struct.calcsize(count_format)
            tags = []
            for at in range(first, first + step * min(count, _MAX_TAGS + 1), step):
                number, kind, length, value = struct.unpack_from(entry, content, at)
                size = _TIFF_TYPE_BYTES.get(kind, 8)
                tags.append(
                    _Tag(number, kind, length, int.from_bytes(value[:size], "big" if order == ">" else "little"))
                )
            yield tags
            total += max(count, 1)
            (start,) = struct.unpack_from(place, content, first + count * step)


def _find_tiff_size(tags: Iterable[_Tag]) -> tuple[int, int]:
    """Return the width and height of a page of a TIFF file, 0 for one that shows no photograph of its own."""
    value_of = {tag.number: tag.value for tag in tags}
    if value_of.get(_SUBFILE, 0) & (_REDUCED | _MASK):
        return 0, 0
    return value_of.get(_WIDTH, 0), value_of.get(_LENGTH, 0)


def strip_avif(content: bytes) -> bytes:
    """Return an AVIF file without EXIF: its orientation counts for nothing, and Pillow refuses files with damage in it.

    The item keeps its place, as one of a kind that no decoder knows.
    """
    return _AVIF_EXIF.sub(rb"\1none", content)


def find_orientation(exif: bytes) -> int | None:
    """Return the orientation in EXIF data; None when they have none, or are damaged before it."""
    data = exif.removeprefix(_EXIF)
    try:
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, entry)
            if tag == _ORIENTATION and kind in _NUMBERS:
                return int(struct.unpack_from(f"{order}{_NUMBERS[kind]}", data, entry + 8)[0])
    except (struct.error, KeyError):
        return None
    return None
