"""Numbers that state an image's colors → a color profile, where they differ from those of sRGB."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celebflow.data.boxes import ColorCodes

FloatArray = NDArray[np.floating[Any]]
Curve = Callable[[FloatArray], FloatArray]
# The x and y of red, green, blue and white.
_D65 = (0.3127, 0.3290)
_SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)
# Primaries by their numbers in ITU-T H.273. Those of television before HDTV differ little from sRGB's.
_PRIMARIES = {
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),  # BT.2020
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),  # DCI-P3
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),  # Display P3
}
_TOLERANCE = 0.005  # of a color's place
_WHITE_NITS = 203.0  # of paper in an HDR photograph (ITU-R BT.2408); what is brighter becomes white
_HLG_NITS = 1000.0
_CURVE_POINTS = 4096
_SRGB_GAMMAS = (2.1, 2.35)  # written for sRGB, whose curve is near a gamma of 2.2
_GAMMAS = (0.2, 5.0)
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def _decode_srgb(values: FloatArray) -> FloatArray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _decode_pq(values: FloatArray) -> FloatArray:
    """Return what SMPTE ST 2084 codes, where white paper is 1."""
    power = values ** (32 / 2523)
    fraction = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return np.asarray(fraction ** (16384 / 2610) * 1e4 / _WHITE_NITS)


def _decode_hlg(values: FloatArray) -> FloatArray:
    """Return what hybrid log-gamma codes on a screen of 1000 nits, where white paper is 1."""
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return np.asarray(scene**1.2 * _HLG_NITS / _WHITE_NITS)


def _decode_gamma(gamma: float) -> Curve:
    return lambda values: values**gamma


# Transfer functions by their numbers in ITU-T H.273. Viewers show those of television as they show sRGB's.
_CURVES: dict[int, Curve] = {4: _decode_gamma(2.2), 5: _decode_gamma(2.8), 8: _decode_gamma(1.0)}
_CURVES |= {16: _decode_pq, 18: _decode_hlg}


def make_profile(codes: ColorCodes, *, gray: bool) -> bytes | None:
    """Return a color profile for these codes, of grays or of colors; None when the image can count as one in sRGB."""
    primaries, curve = _PRIMARIES.get(codes.primaries), _CURVES.get(codes.transfer)
    return None if primaries is None and curve is None else _build(primaries or _SRGB, curve or _decode_srgb, gray)


def make_gamma_profile(exponent: float, chromaticities: Sequence[float] | None, *, gray: bool) -> bytes | None:
    """Return a color profile for the numbers of a PNG file; None when the image can count as one in sRGB.

    `exponent` is that of its encoding, such as 0.45; `chromaticities` are the x and y of red, green, blue and white.
    """
    if not 1 / _GAMMAS[1] <= exponent <= 1 / _GAMMAS[0]:
        return None
    like_srgb = _SRGB_GAMMAS[0] <= 1 / exponent <= _SRGB_GAMMAS[1]
    primaries = _SRGB if chromaticities is None else chromaticities
    same_primaries = gray or np.abs(np.subtract(primaries, _SRGB)).max() <= _TOLERANCE
    if like_srgb and same_primaries:
        return None
    return _build(
        _SRGB if same_primaries else primaries, _decode_srgb if like_srgb else _decode_gamma(1 / exponent), gray
    )


def _build(primaries: Sequence[float], curve: Curve, gray: bool) -> bytes | None:
    """Return an ICC profile (version 2); None when the primaries make no colors."""
    values = np.round(np.clip(curve(np.linspace(0, 1, _CURVE_POINTS)), 0, 1) * 65535).astype(">u2")
    table = struct.pack(">4sII", b"curv", 0, len(values)) + values.tobytes()
    tags = {b"wtpt": _write_place(_D50)}
    if gray:
        tags[b"kTRC"] = table
    else:
        try:
            places = _adapt(primaries)
        except (np.linalg.LinAlgError, ZeroDivisionError):
            return None
        if not np.isfinite(places).all() or np.abs(places).max() > 10:
            return None
        for channel, place in zip((b"r", b"g", b"b"), places.T, strict=True):
            tags |= {channel + b"XYZ": _write_place(place), channel + b"TRC": table}
    start = 128 + 4 + 12 * len(tags)
    entries, body = [struct.pack(">I", len(tags))], b""
    for name, content in tags.items():
        entries.append(name + struct.pack(">II", start + len(body), len(content)))
        body += content + bytes(-len(content) % 4)
    space = b"GRAY" if gray else b"RGB "
    header = struct.pack(">I4sI4s4s4s12s4s", start + len(body), b"", 0x02100000, b"mntr", space, b"XYZ ", b"", b"acsp")
    return header.ljust(68, b"\0") + _write_numbers(_D50) + bytes(48) + b"".join(entries) + body


def _adapt(primaries: Sequence[float]) -> FloatArray:
    """Return the (3, 3) XYZ of red, green and blue, as columns, where white is D50."""
    *corners, white = (
        np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    )
    columns = np.stack(corners, axis=1)
    columns = columns * np.linalg.solve(columns, white)
    scales = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ (scales[:, None] * (_BRADFORD @ columns)))


def _write_place(place: FloatArray) -> bytes:
    return struct.pack(">4sI", b"XYZ ", 0) + _write_numbers(place)


def _write_numbers(numbers: FloatArray) -> bytes:
    return np.round(numbers * 65536).astype(">i4").tobytes()
