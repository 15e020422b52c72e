"""Faces are detected wherever they are, and the photograph's subject comes first."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

from celebflow.errors import CelebflowError
from celebflow.features import faces as faces_module
from celebflow.features.faces import Face, detect_faces, iou, rank_faces
from tests.features.conftest import make_face


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    """Return the US Navy's portrait of Grace Hopper, 512×600, in the public domain, which ships with Matplotlib."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        return image.convert("RGB")


def _place(canvas: tuple[int, int], *placed: tuple[Image.Image, int, tuple[int, int]]) -> Image.Image:
    """Place portraits of these widths on a gray canvas, with their top left corners at these places."""
    image = Image.new("RGB", canvas, (120, 120, 120))
    for portrait, width, corner in placed:
        image.paste(portrait.resize((width, round(width * portrait.height / portrait.width))), corner)
    return image


def _check_place(face: Face, width: int, corner: tuple[int, int]) -> None:
    """Check that a box is around her face: 180×210 pixels around (266, 229) where the portrait is 512 pixels wide."""
    scale = width / 512
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    assert math.hypot(x - corner[0] - 266 * scale, y - corner[1] - 229 * scale) < 25 * scale
    assert 150 * scale < face.right - face.left < 200 * scale
    assert 185 * scale < face.bottom - face.top < 235 * scale


# The face takes from two thirds to a thirteenth of the photograph's side.
@pytest.mark.parametrize(
    ("canvas", "width", "corner"),
    [
        ((512, 600), 512, (0, 0)),
        ((300, 300), 512, (-120, -90)),
        ((600, 600), 150, (400, 30)),
        ((900, 400), 300, (20, 20)),
        ((1000, 1000), 256, (500, 600)),
        ((64, 64), 60, (2, 0)),
        ((32, 32), 36, (-2, 0)),
        ((5000, 6000), 3000, (1000, 2000)),
    ],
)
def test_the_face_is_found_at_its_place(
    portrait: Image.Image, canvas: tuple[int, int], width: int, corner: tuple[int, int]
) -> None:
    faces = detect_faces(_place(canvas, (portrait, width, corner)))
    assert len(faces) == 1
    _check_place(faces[0], width, corner)


def test_the_face_is_found_in_gray_in_the_dark_and_tilted(portrait: Image.Image) -> None:
    dark = portrait.point(lambda value: value * 0.25)
    for photograph in (portrait.convert("L").convert("RGB"), dark):
        (face,) = detect_faces(photograph)
        _check_place(face, 512, (0, 0))
    assert len(detect_faces(portrait.rotate(15))) == 1


def test_of_two_faces_the_larger_comes_first(portrait: Image.Image) -> None:
    small, large = (portrait, 200, (20, 100)), (portrait, 260, (320, 100))
    first, second = detect_faces(_place((600, 500), small, large))
    _check_place(first, *large[1:])
    _check_place(second, *small[1:])


def test_of_two_equal_faces_the_central_one_comes_first(portrait: Image.Image) -> None:
    aside, central = (portrait, 200, (0, 100)), (portrait, 200, (220, 100))
    faces = detect_faces(_place((600, 400), aside, central))
    assert len(faces) == 2
    _check_place(faces[0], *central[1:])


def test_the_subject_is_large_and_central_whatever_its_score() -> None:
    def face(x: float, y: float, side: float, score: float = 1.0) -> Face:
        return make_face(x - side / 2, y - side / 2, x + side / 2, y + side / 2, score)

    central, corner = face(50, 50, 30), face(85, 50, 32)
    assert rank_faces([corner, central], (100, 100)) == [central, corner]
    larger = face(70, 50, 45, score=0.1)
    assert rank_faces([central, corner, larger], (100, 100)) == [larger, central, corner]
    low_score, high_score = face(40, 50, 30, score=0.2), face(60, 50, 30, score=0.9)
    assert rank_faces([low_score, high_score], (100, 100)) == [high_score, low_score]
    assert rank_faces([], (100, 100)) == []


def test_iou_is_intersection_over_union() -> None:
    face = make_face(0, 0, 4, 4)
    assert iou(face, face) == 1
    assert iou(face, make_face(2, 2, 6, 6)) == pytest.approx(4 / 28)
    assert iou(face, make_face(5, 0, 6, 1)) == 0


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (1, 700), (700, 2), (600, 400), (9000, 8000)])
def test_photographs_without_a_face_give_none(size: tuple[int, int]) -> None:
    assert detect_faces(Image.new("RGB", size, (200, 160, 140))) == []


def test_no_face_is_found_in_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    assert detect_faces(Image.fromarray(noise)) == []


def test_threads_find_the_same_faces(portrait: Image.Image) -> None:
    photographs = [_place((400, 300), (portrait, 150 + 20 * number, (30 * number, 0))) for number in range(5)]
    alone = [detect_faces(photograph) for photograph in photographs]
    assert all(alone)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(detect_faces, photographs * 2)) == alone * 2


def test_a_missing_detector_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    faces_module._load_network.cache_clear()
    monkeypatch.setattr(faces_module, "find_spec", lambda name: None)
    with pytest.raises(CelebflowError, match=r"pip install 'celebflow\[faces\]'.*extract.face.crop"):
        detect_faces(Image.new("RGB", (32, 32)))


def test_importing_the_module_does_not_load_the_detector() -> None:
    program = "import sys, celebflow.features.faces; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
