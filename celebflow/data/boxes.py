"""The boxes of a HEIF or AVIF file: where the coded images are, and the numbers that state their colors."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from celebflow.data.formats import PhotographError

_FULL_HEADER_BYTES = 4  # version and flags
_MAX_PARTS = 100_000
_MAX_READINGS = 4  # of the bytes of a file
_FILLED = bytes(64)  # what a download or a disk leaves of a part of a file
_HEVC, _AV1 = (b"hvc1", b"hev1"), (b"av01",)


class _Item(NamedTuple):
    """An item of a file: its kind, and where its bytes start and end, in one part or several."""

    kind: bytes
    parts: list[tuple[int, int]]


class ColorCodes(NamedTuple):
    """Primaries and transfer function as ITU-T H.273 numbers them."""

    primaries: int
    transfer: int


class _Reader:
    """Numbers of any size that follow one another; raises struct.error behind the end."""

    def __init__(self, content: bytes, start: int, end: int) -> None:
        self._content, self._position, self._end = content, start, end

    def read(self, size: int) -> int:
        return int.from_bytes(self.read_bytes(size))

    def read_bytes(self, size: int) -> bytes:
        start, self._position = self._position, self._position + size
        if self._position > self._end:
            raise struct.error
        return self._content[start : self._position]


def check_items(content: bytes) -> None:
    """Raise PhotographError for a file in which zeros stand for a part of an image: decoders show something there.

    HEVC escapes every run of three zeros, and AV1 does not end in zeros. What cannot be read is left to decoders.
    """
    unread = _MAX_READINGS * len(content)
    for kind, parts in _read_items(content).values():
        for start, end in parts:
            unread -= end - start
            if unread < 0:  # many items share the same bytes, as no camera writes them
                return
            coded = content[start:end]
            if (kind in _HEVC and _FILLED in coded) or (kind in _AV1 and coded.endswith(_FILLED)):
                raise PhotographError("is truncated: zeros stand for a part of it; copy it again from where it came")


def find_color_codes(content: bytes) -> ColorCodes | None:
    """Return the numbers that state the colors of the photograph in a file; None when there are none."""
    boxes = _read_meta(content)
    try:
        start, end = boxes[b"pitm"]
        reader = _Reader(content, start, end)
        version = reader.read(_FULL_HEADER_BYTES) >> 24
        primary = reader.read(2 if version == 0 else 4)
        properties = dict(_find_boxes(content, *boxes[b"iprp"]))
        listed = list(_list_boxes(content, *properties[b"ipco"]))
        for number in _list_properties(content, primary, *properties[b"ipma"]):
            if number == 0:  # no property
                continue
            kind, start, end = listed[number - 1]
            reader = _Reader(content, start, end)
            if kind == b"colr" and reader.read_bytes(4) == b"nclx":
                return ColorCodes(reader.read(2), reader.read(2))
    except (struct.error, KeyError, IndexError):
        return None
    return None


def _list_properties(content: bytes, item: int, start: int, end: int) -> Iterator[int]:
    """Yield the numbers of an item's properties, from 1 on."""
    reader = _Reader(content, start, end)
    header = reader.read(_FULL_HEADER_BYTES)
    for _ in range(reader.read(4)):
        owner = reader.read(2 if header >> 24 == 0 else 4)
        for _ in range(reader.read(1)):
            number = reader.read(2) & 0x7FFF if header & 1 else reader.read(1) & 0x7F
            if owner == item:
                yield number


def _read_items(content: bytes) -> dict[int, _Item]:
    """Return the items of a file by their numbers, as far as they lie in the file itself."""
    boxes = _read_meta(content)
    items: dict[int, _Item] = {}
    try:
        kinds = dict(_list_kinds(content, *boxes[b"iinf"]))
        for number, parts in _list_places(content, *boxes[b"iloc"]):
            items[number] = _Item(kinds.get(number, b""), parts)
    except (struct.error, KeyError):
        return items
    return items


def _list_kinds(content: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(content, start, end)
    count_bytes = 2 if reader.read(_FULL_HEADER_BYTES) >> 24 == 0 else 4
    reader.read(count_bytes)
    for kind, first, last in _list_boxes(content, start + _FULL_HEADER_BYTES + count_bytes, end):
        entry = _Reader(content, first, last)
        version = entry.read(_FULL_HEADER_BYTES) >> 24
        if kind == b"infe" and version in (2, 3):
            number = entry.read(2 if version == 2 else 4)
            entry.read(2)  # protection
            yield number, entry.read_bytes(4)


def _list_places(content: bytes, start: int, end: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    reader = _Reader(content, start, end)
    version = reader.read(_FULL_HEADER_BYTES) >> 24
    sizes = reader.read(2)
    total = 0
    offset_bytes, length_bytes, base_bytes, index_bytes = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(reader.read(2 if version < 2 else 4)):
        number = reader.read(2 if version < 2 else 4)
        method = reader.read(2) & 15 if version in (1, 2) else 0
        reader.read(2)  # in which file
        base = reader.read(base_bytes)
        parts: list[tuple[int, int]] = []
        count = reader.read(2)
        total += count
        if total > _MAX_PARTS:
            raise struct.error
        for _ in range(count):
            reader.read(index_bytes if version in (1, 2) else 0)
            first = base + reader.read(offset_bytes)
            length = reader.read(length_bytes)
            if method == 0:  # otherwise it is in another box or item
                parts.append((first, first + length if length else max(first, len(content))))
        yield number, parts


def _read_meta(content: bytes) -> dict[bytes, tuple[int, int]]:
    """Return where the boxes in the box of metadata start and end; nothing when there is none."""
    for kind, start, end in _list_boxes(content, 0, len(content)):
        if kind == b"meta":
            return dict(_find_boxes(content, start + _FULL_HEADER_BYTES, end))
    return {}


def _find_boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    for kind, first, last in _list_boxes(content, start, end):
        yield kind, (first, last)


def _list_boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box, and where what it holds starts and ends, as far as they are sound."""
    while start + 8 <= end:
        size, kind = int.from_bytes(content[start : start + 4]), content[start + 4 : start + 8]
        header = 8
        if size == 1:
            size, header = int.from_bytes(content[start + 8 : start + 16]), 16
        last = end if size == 0 else start + size
        if last > end or last < start + header:
            return
        yield kind, start + header, last
        start = last
