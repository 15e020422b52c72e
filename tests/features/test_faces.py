"""The subject's face is found wherever it is, and cut out to the pixel."""

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
from celebflow.features.crops import crop_center, crop_square
from celebflow.features.faces import Face, detect_faces, rank_faces


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    """Return the US Navy's portrait of Grace Hopper, 512×600, in the public domain; Matplotlib brings it along."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        return image.convert("RGB")


def _place(canvas: tuple[int, int], *placed: tuple[Image.Image, int, tuple[int, int]]) -> Image.Image:
    """Put portraits of these widths, whose left upper corners come to lie there, on a gray ground."""
    image = Image.new("RGB", canvas, (120, 120, 120))
    for portrait, width, corner in placed:
        image.paste(portrait.resize((width, round(width * portrait.height / portrait.width))), corner)
    return image


def _check_place(face: Face, width: int, corner: tuple[int, int]) -> None:
    """Check that a box lies about her face: 180×210 pixels around (266, 229) in the portrait's 512 pixels of width."""
    scale = width / 512
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    assert math.hypot(x - corner[0] - 266 * scale, y - corner[1] - 229 * scale) < 25 * scale
    assert 150 * scale < face.right - face.left < 200 * scale
    assert 185 * scale < face.bottom - face.top < 235 * scale


# From a face of two thirds of the photograph's side to one of a thirteenth.
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


def test_the_face_is_found_in_grey_in_the_dark_and_tilted(portrait: Image.Image) -> None:
    dark = portrait.point(lambda value: value * 0.25)
    for photograph in (portrait.convert("L").convert("RGB"), dark):
        (face,) = detect_faces(photograph)
        _check_place(face, 512, (0, 0))
    assert len(detect_faces(portrait.rotate(15))) == 1


def test_two_faces_are_both_found_the_larger_first(portrait: Image.Image) -> None:
    small, large = (portrait, 200, (20, 100)), (portrait, 260, (320, 100))
    first, second = detect_faces(_place((600, 500), small, large))
    _check_place(first, *large[1:])
    _check_place(second, *small[1:])


def test_of_two_alike_the_central_one_comes_first(portrait: Image.Image) -> None:
    aside, central = (portrait, 200, (0, 100)), (portrait, 200, (220, 100))
    faces = detect_faces(_place((600, 400), aside, central))
    assert len(faces) == 2
    _check_place(faces[0], *central[1:])


def test_the_subject_is_large_and_central_whatever_its_score() -> None:
    def face(x: float, y: float, side: float, score: float = 1.0) -> Face:
        return _make_face(x - side / 2, y - side / 2, x + side / 2, y + side / 2, score)

    central, corner = face(50, 50, 30), face(85, 50, 32)
    assert rank_faces([corner, central], (100, 100)) == [central, corner]
    larger = face(70, 50, 45, score=0.1)
    assert rank_faces([central, corner, larger], (100, 100)) == [larger, central, corner]
    doubtful, sure = face(40, 50, 30, score=0.2), face(60, 50, 30, score=0.9)
    assert rank_faces([doubtful, sure], (100, 100)) == [sure, doubtful]
    assert rank_faces([], (100, 100)) == []


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (1, 700), (700, 2), (600, 400), (9000, 8000)])
def test_where_there_is_no_face_none_is_found(size: tuple[int, int]) -> None:
    assert detect_faces(Image.new("RGB", size, (200, 160, 140))) == []


def test_noise_is_no_face() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    assert detect_faces(Image.fromarray(noise)) == []


def test_threads_find_the_same(portrait: Image.Image) -> None:
    photographs = [_place((400, 300), (portrait, 150 + 20 * (number % 6), (30 * number, 0))) for number in range(8)] * 4
    alone = [detect_faces(photograph) for photograph in photographs]
    assert all(alone)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(detect_faces, photographs)) == alone


def test_a_missing_detector_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    faces_module._load_network.cache_clear()
    monkeypatch.setattr(faces_module, "find_spec", lambda name: None)
    with pytest.raises(CelebflowError, match=r"pip install 'celebflow\[faces\]'.*extract.face.crop"):
        detect_faces(Image.new("RGB", (32, 32)))


def test_importing_loads_no_detector() -> None:
    program = "import sys, celebflow.features.faces; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def _make_face(left: float, top: float, right: float, bottom: float, score: float = 1.0) -> Face:
    """Return a face with all its landmarks in the middle."""
    middle = (left + right) / 2, (top + bottom) / 2
    return Face(left, top, right, bottom, score, (middle,) * 5)


def _numbered(width: int, height: int) -> Image.Image:
    """Return a picture whose pixels tell their own place: x in red, y in green."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 7)], axis=-1).astype(np.uint8))


def test_the_square_is_the_boxs_longer_side_and_its_margins() -> None:
    # 40 high: 40 · (1 + 2 · 0.25) = 60 around (80, 70)
    crop = crop_square(_numbered(200, 150), _make_face(70, 50, 90, 90), 0.25, align=False)
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(_numbered(200, 150))[40:100, 50:110])


def test_a_negative_margin_cuts_into_the_box() -> None:
    assert crop_square(_numbered(200, 150), _make_face(50, 50, 90, 90), -0.25, align=False).size == (20, 20)


@pytest.mark.parametrize(
    ("face", "rows", "columns"),
    [
        (_make_face(-10, -5, 20, 25), range(-20, 40), range(-25, 35)),
        (_make_face(180, 130, 210, 160), range(115, 175), range(165, 225)),
        (_make_face(-500, 20, -470, 50), range(5, 65), range(-515, -455)),  # nowhere near the photograph
    ],
)
def test_outside_the_photograph_its_edge_is_repeated(face: Face, rows: range, columns: range) -> None:
    crop = np.asarray(crop_square(_numbered(200, 150), face, 0.5, align=False))
    assert crop.shape == (60, 60, 3)
    np.testing.assert_array_equal(crop[:, 0, 1], np.clip(rows, 0, 149))
    np.testing.assert_array_equal(crop[0, :, 0], np.clip(columns, 0, 199))
    np.testing.assert_array_equal(crop[..., 2], 7)


@pytest.mark.parametrize("degrees", [-35, -10, 0, 20, 60])
@pytest.mark.parametrize("eye_distance", [12.0, 30.0])
def test_alignment_brings_the_landmarks_to_their_places(degrees: float, eye_distance: float) -> None:
    # Eyes, nose and mouth of a face straight ahead, turned about its middle.
    straight = np.array([-0.5 - 0.5j, 0.5 - 0.5j, 0.07j, -0.42 + 0.5j, 0.42 + 0.5j])
    placed = 100 + 90j + straight * eye_distance * np.exp(1j * math.radians(degrees))
    y, x = np.mgrid[:180, :200] + 0.5
    eyes = [255 * np.exp(-((x - point.real) ** 2 + (y - point.imag) ** 2) / 18) for point in placed[:2]]
    photograph = Image.fromarray(np.stack([*eyes, np.zeros_like(x)], axis=-1).round().astype(np.uint8))
    points = tuple((float(point.real), float(point.imag)) for point in placed)
    crop = np.asarray(crop_square(photograph, Face(0, 0, 9, 9, 1.0, points), 0.0, align=True), float)
    side = crop.shape[0]
    assert side == crop.shape[1] == pytest.approx(2.85 * eye_distance, abs=0.6)
    y, x = np.mgrid[:side, :side] + 0.5
    left, right = crop[..., 0] / crop[..., 0].sum(), crop[..., 1] / crop[..., 1].sum()
    for share, place in ((left, -0.5), (right, 0.5)):
        assert (share * x).sum() == pytest.approx(side / 2 + place * eye_distance, abs=0.4)
        assert (share * y).sum() == pytest.approx(side / 2 - 0.5 * eye_distance, abs=0.4)


def test_landmarks_in_one_place_give_a_square_all_the_same() -> None:
    assert crop_square(_numbered(200, 150), _make_face(50, 50, 90, 90), 0.0, align=True).size == (1, 1)


def test_an_aligned_square_at_the_border_shows_no_black() -> None:
    white = Image.new("RGB", (100, 80), "white")
    face = Face(-10, 40, 40, 90, 1.0, ((5.0, 55.0), (25.0, 65.0), (12.0, 68.0), (2.0, 72.0), (18.0, 80.0)))
    assert np.asarray(crop_square(white, face, 0.4, align=True)).min() == 255


@pytest.mark.parametrize(
    ("size", "fraction", "box"),
    [
        ((150, 150), 0.64, (27, 27, 123, 123)),
        ((200, 100), 0.5, (75, 25, 125, 75)),
        ((90, 120), 1.0, (0, 15, 90, 105)),
        ((3, 3), 0.01, (1, 1, 2, 2)),
    ],
)
def test_the_center_is_a_square_of_the_shorter_side(
    size: tuple[int, int], fraction: float, box: tuple[int, int, int, int]
) -> None:
    photograph = _numbered(*size)
    assert crop_center(photograph, fraction).tobytes() == photograph.crop(box).tobytes()
