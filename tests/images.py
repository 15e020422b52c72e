"""Parts of image files that tests put together."""

import struct
import zlib


def make_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def repeat_last_scan(jpeg: bytes, count: int) -> bytes:
    """Return a JPEG file with the last scan of its first image so many times."""
    first, end, rest = jpeg.partition(b"\xff\xd9")
    last = first.rindex(b"\xff\xda")
    return first[:last] + first[last:] * count + end + rest
