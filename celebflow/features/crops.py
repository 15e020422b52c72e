"""Crop the square around a face, or the center square, alike for training and inference."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from celebflow.features.faces import Face, Point, scale_face

# Where the eyes, the nose and the corners of the mouth are in a face that looks straight ahead, in units of the
# distance between the eyes, relative to the middle between eyes and mouth.
_TEMPLATE = np.array([-0.5 - 0.5j, 0.5 - 0.5j, 0.07j, -0.42 + 0.5j, 0.42 + 0.5j])
# The longer side of a box in these units: the median over the faces of LFW.
_BOX_UNITS = 2.85
_MAX_SIDE_PX = 4096


def crop_square(photograph: Image.Image, face: Face, margin: float, align: bool) -> Image.Image:
    """Crop the square around a face in an RGB photograph, at the photograph's resolution.

    The square has the center of the face's box. Its side is the longer side of the box, plus `margin` times that on
    each side. With `align`, the square is instead rotated, scaled and moved to bring the landmarks as close as possible
    to their places in the template (least squares, bicubic). Outside of the photograph its edge pixels are repeated,
    because a reflection would show parts of the face twice. A square of very many pixels is cropped from a photograph
    that is reduced by a whole factor, since time and memory grow with its area.
    """
    exact_side = max(face.right - face.left, face.bottom - face.top) * (1 + 2 * margin)
    factor = int(exact_side // _MAX_SIDE_PX) + 1
    if factor > 1:
        photograph = photograph.reduce(factor)
        face = scale_face(face, 1 / factor, 1 / factor)
        exact_side /= factor
    if align:
        return _crop_aligned(photograph, face, margin)
    side = max(1, round(exact_side))
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    return _crop_repeating_edges(photograph, round(x - side / 2), round(y - side / 2), side)


def _crop_aligned(photograph: Image.Image, face: Face, margin: float) -> Image.Image:
    scale_and_rotation, center = fit_similarity(face.landmarks)
    exact_side = abs(scale_and_rotation) * _BOX_UNITS * (1 + 2 * margin)
    side = max(1, round(exact_side))
    # The window contains the corners of the rotated square, and the pixels that bicubic interpolation needs.
    reach = math.ceil(exact_side * math.sqrt(0.5)) + 2
    left, top = round(center.real) - reach, round(center.imag) - reach
    window = _crop_repeating_edges(photograph, left, top, 2 * reach)
    # From one pixel of the square to the next, in pixels of the window.
    step = scale_and_rotation / abs(scale_and_rotation) * exact_side / side if scale_and_rotation else 1 + 0j
    start = center - complex(left, top) - step * complex(side, side) / 2
    matrix = (step.real, -step.imag, start.real, step.imag, step.real, start.imag)
    return window.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def fit_similarity(landmarks: Sequence[Point]) -> tuple[complex, complex]:
    """Fit the similarity that maps the template to five landmarks, by least squares (Umeyama, 1991).

    Returns its scale and rotation, and its translation, as complex numbers: z → scale_and_rotation · z + translation.
    """
    target = np.array([complex(*point) for point in landmarks])
    template = _TEMPLATE - _TEMPLATE.mean()
    scale_and_rotation = complex(np.vdot(template, target - target.mean()) / np.vdot(template, template))
    return scale_and_rotation, complex(target.mean()) - scale_and_rotation * complex(_TEMPLATE.mean())


def crop_center(photograph: Image.Image, fraction: float) -> Image.Image:
    """Crop the center square whose side is `fraction` (above 0, up to 1) of the photograph's shorter side."""
    side = max(1, round(min(photograph.size) * fraction))
    return _crop_repeating_edges(photograph, (photograph.width - side) // 2, (photograph.height - side) // 2, side)


def _crop_repeating_edges(photograph: Image.Image, left: int, top: int, side: int) -> Image.Image:
    columns = np.clip(np.arange(left, left + side), 0, photograph.width - 1)
    rows = np.clip(np.arange(top, top + side), 0, photograph.height - 1)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    inside = photograph.crop(box)
    if inside.size == (side, side):
        return inside
    pixels = np.asarray(inside)[(rows - box[1])[:, None], columns - box[0]]
    return Image.fromarray(pixels)
