"""Color profiles of a few tags, built from bytes, for tests."""

import struct
from collections.abc import Mapping, Sequence

# Primaries of sRGB, Display P3 and Adobe RGB as XYZ under D50, and the gray axis's white.
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
_WHITE = (0.9642, 1.0, 0.8249)


def make_rgb_profile(primaries: Sequence[Sequence[float]], gamma: float = 2.2) -> bytes:
    """Return an RGB profile with these primaries and one gamma."""
    tags = {b"wtpt": _encode_xyz(_WHITE)}
    for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags |= {name + b"XYZ": _encode_xyz(primary), name + b"TRC": _encode_gamma(gamma)}
    return _make_profile(b"RGB ", b"XYZ ", b"mntr", tags)


def make_gray_profile(gamma: float) -> bytes:
    """Return a profile of grays."""
    return _make_profile(b"GRAY", b"XYZ ", b"mntr", {b"wtpt": _encode_xyz(_WHITE), b"kTRC": _encode_gamma(gamma)})


def make_cmyk_profile() -> bytes:
    """Return a CMYK profile in which any ink makes a middle gray, and none makes white."""
    # lut8: 4 inputs, 3 outputs, 2 steps; identity matrix; identity curves around a table of Lab values.
    head = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    curve = bytes(range(256))
    table = b"".join(bytes([255 if corner == 0 else 128, 128, 128]) for corner in range(16))
    return _make_profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": head + curve * 4 + table + curve * 3})


def _encode_xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in values))


def _encode_gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)


def _make_profile(space: bytes, connection: bytes, kind: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    named = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(79), **tags}
    offset = 132 + 12 * len(named)
    table, body = struct.pack(">I", len(named)), b""
    for name, content in named.items():
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(65536 * value) for value in _WHITE))
    return header.ljust(128, b"\0") + table + body
