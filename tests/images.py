"""Image files that tests put together, or hash."""

import hashlib
import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from celebflow.data.photos import Photo


def make_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def repeat_last_scan(jpeg: bytes, count: int) -> bytes:
    """Return a JPEG file with the last scan of its first image so many times."""
    first, end, rest = jpeg.partition(b"\xff\xd9")
    last = first.rindex(b"\xff\xda")
    return first[:last] + first[last:] * count + end + rest


def hash_photos(photos: Iterable[Photo], folder: Path) -> list[Photo]:
    """Return photographs in a folder with the SHA-256 of their files, as prepare finds them."""
    return [replace(photo, sha256=hashlib.sha256((folder / photo.path).read_bytes()).hexdigest()) for photo in photos]
