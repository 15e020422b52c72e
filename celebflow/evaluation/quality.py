"""Measure how well photographs show a face: brightness, sharpness, size and turn."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from celebflow.features.faces import Face
from celebflow.features.transform import Transform

_SIDE_PX = 112  # at which sharpness is compared, so that large photographs do not look sharper


@dataclass(frozen=True)
class Quality:
    """How well a photograph shows what the network sees of it.

    `brightness` is the mean luma from 0 to 1, and `sharpness` the standard deviation of the Laplacian of the luma at a
    fixed size. `size_px` is the longer side of the face's box, or the shorter side of the photograph where faces are
    not detected. `turn` is how far the nose is from the middle between the eyes, in distances of the eyes: about 0 from
    the front, 0.5 in a half profile; None without landmarks.
    """

    brightness: float
    sharpness: float
    size_px: float
    turn: float | None


def measure_quality(photograph: Image.Image, face: Face | None, transform: Transform) -> Quality:
    """Measure an RGB photograph of which extract chose this face, or none."""
    crop = transform.regions[0].crop(photograph, face).convert("L")
    brightness = float(np.asarray(crop, np.float64).mean() / 255)
    luma = np.asarray(crop.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR), np.float64) / 255
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    size = min(photograph.size) if face is None else max(face.right - face.left, face.bottom - face.top)
    return Quality(brightness, float(laplacian.std()), float(size), None if face is None else _measure_turn(face))


def _measure_turn(face: Face) -> float | None:
    left_eye, right_eye, nose = (np.array(point) for point in face.landmarks[:3])
    across = right_eye - left_eye
    distance = float(np.linalg.norm(across))
    if not distance:
        return None
    return abs(float((nose - (left_eye + right_eye) / 2) @ across)) / distance**2
