"""Crop the square around a face, or the center square, alike for training and inference."""

import math

import numpy as np
from PIL import Image

from celebflow.features.faces import Face

# Where eyes, nose and the corners of the mouth are in a face that looks straight ahead, in units of the distance of
# the eyes, from the middle between eyes and mouth.
_TEMPLATE = np.array([-0.5 - 0.5j, 0.5 - 0.5j, 0.07j, -0.42 + 0.5j, 0.42 + 0.5j])
# The longer side of a box in these units: the median over the faces of LFW.
_BOX_UNITS = 2.85


def crop_square(photograph: Image.Image, face: Face, margin: float, align: bool) -> Image.Image:
    """Cut the square around a face out of an RGB photograph, in the photograph's own resolution.

    Its side is the longer one of the face's box, and `margin` times that more on each side; its center is the box's.
    With `align` it is instead turned, sized and placed so that eyes, nose and mouth come as near as they can (least
    squares) to where they are in every other such square (bicubic). Outside of the photograph its edge pixels are
    repeated: a reflection would show parts of the face a second time.
    """
    if not align:
        side = max(1, round(max(face.right - face.left, face.bottom - face.top) * (1 + 2 * margin)))
        x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
        return _cut(photograph, round(x - side / 2), round(y - side / 2), side)
    # In complex numbers, the similarity template → photograph is z·turn + center.
    landmarks = np.array([complex(*point) for point in face.landmarks])
    template = _TEMPLATE - _TEMPLATE.mean()
    turn = complex(np.vdot(template, landmarks - landmarks.mean()) / np.vdot(template, template))
    center = complex(landmarks.mean()) - turn * complex(_TEMPLATE.mean())
    exact_side = abs(turn) * _BOX_UNITS * (1 + 2 * margin)
    side = max(1, round(exact_side))
    # The square's corners, turned, and the pixels that bicubic interpolation reaches for.
    reach = math.ceil(exact_side * math.sqrt(0.5)) + 2
    left, top = round(center.real) - reach, round(center.imag) - reach
    window = _cut(photograph, left, top, 2 * reach)
    step = turn / abs(turn) * exact_side / side if turn else 1 + 0j  # from one pixel of the square to the next
    start = center - complex(left, top) - step * complex(side, side) / 2
    matrix = (step.real, -step.imag, start.real, step.imag, step.real, start.imag)
    return window.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def crop_center(photograph: Image.Image, fraction: float) -> Image.Image:
    """Cut out the center square whose side is this fraction, above 0 and up to 1, of the shorter side."""
    side = max(1, round(min(photograph.size) * fraction))
    return _cut(photograph, (photograph.width - side) // 2, (photograph.height - side) // 2, side)


def _cut(photograph: Image.Image, left: int, top: int, side: int) -> Image.Image:
    """Cut out a square; where it leaves the photograph, repeat the photograph's edge."""
    columns = np.clip(np.arange(left, left + side), 0, photograph.width - 1)
    rows = np.clip(np.arange(top, top + side), 0, photograph.height - 1)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    inside = photograph.crop(box)
    if inside.size == (side, side):
        return inside
    pixels = np.asarray(inside)[(rows - box[1])[:, None], columns - box[0]]
    return Image.fromarray(pixels)
