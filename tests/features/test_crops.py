"""The square around a face is cropped to the pixel, or aligned to the template."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebflow.features import crops
from celebflow.features.crops import crop_center, crop_square, fit_similarity
from celebflow.features.faces import Face, Point
from tests.features.conftest import make_face

# Eyes, nose and corners of the mouth of a face that looks straight ahead, in units of the distance between the eyes.
STRAIGHT = np.array([-0.5 - 0.5j, 0.5 - 0.5j, 0.07j, -0.42 + 0.5j, 0.42 + 0.5j])


def _to_points(landmarks: NDArray[np.complex128]) -> tuple[Point, Point, Point, Point, Point]:
    one, two, nose, three, four = ((float(point.real), float(point.imag)) for point in landmarks)
    return one, two, nose, three, four


def _draw_places(width: int, height: int) -> Image.Image:
    """Return an image whose pixels have their own places as colors: x in red, y in green."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 7)], axis=-1).astype(np.uint8))


def test_the_square_has_the_longer_side_of_the_box_plus_margins() -> None:
    # The box is 40 high: the side is 40 · (1 + 2 · 0.25) = 60, around (80, 70).
    crop = crop_square(_draw_places(200, 150), make_face(70, 50, 90, 90), 0.25, align=False)
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(_draw_places(200, 150))[40:100, 50:110])


def test_a_negative_margin_makes_the_square_smaller_than_the_box() -> None:
    assert crop_square(_draw_places(200, 150), make_face(50, 50, 90, 90), -0.25, align=False).size == (20, 20)


@pytest.mark.parametrize(
    ("face", "rows", "columns"),
    [
        (make_face(-10, -5, 20, 25), range(-20, 40), range(-25, 35)),
        (make_face(180, 130, 210, 160), range(115, 175), range(165, 225)),
        (make_face(-500, 20, -470, 50), range(5, 65), range(-515, -455)),  # far outside of the photograph
    ],
)
def test_outside_of_the_photograph_its_edge_is_repeated(face: Face, rows: range, columns: range) -> None:
    crop = np.asarray(crop_square(_draw_places(200, 150), face, 0.5, align=False))
    assert crop.shape == (60, 60, 3)
    np.testing.assert_array_equal(crop[:, 0, 1], np.clip(rows, 0, 149))
    np.testing.assert_array_equal(crop[0, :, 0], np.clip(columns, 0, 199))
    np.testing.assert_array_equal(crop[..., 2], 7)


@pytest.mark.parametrize("align", [False, True])
def test_a_very_large_square_is_cropped_from_a_reduced_photograph(monkeypatch: pytest.MonkeyPatch, align: bool) -> None:
    photograph = _draw_places(200, 150).resize((800, 600))
    face = Face(280, 200, 360, 360, 1.0, _to_points(320 + 280j + STRAIGHT * 56))
    whole = crop_square(photograph, face, 0.25, align)
    assert whole.width > 150
    monkeypatch.setattr(crops, "_MAX_SIDE_PX", 100)
    reduced = crop_square(photograph, face, 0.25, align)
    assert reduced.width == pytest.approx(whole.width / 3, abs=1)
    difference = np.asarray(whole.resize(reduced.size), np.int64) - np.asarray(reduced, np.int64)
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("degrees", [-35, -10, 0, 20, 60])
@pytest.mark.parametrize("eye_distance", [12.0, 30.0])
def test_alignment_brings_the_landmarks_to_their_places(degrees: float, eye_distance: float) -> None:
    placed = 100 + 90j + STRAIGHT * eye_distance * np.exp(1j * math.radians(degrees))
    y, x = np.mgrid[:180, :200] + 0.5
    eyes = [255 * np.exp(-((x - point.real) ** 2 + (y - point.imag) ** 2) / 18) for point in placed[:2]]
    photograph = Image.fromarray(np.stack([*eyes, np.zeros_like(x)], axis=-1).round().astype(np.uint8))
    crop = np.asarray(crop_square(photograph, Face(0, 0, 9, 9, 1.0, _to_points(placed)), 0.0, align=True), np.float64)
    side = crop.shape[0]
    assert side == crop.shape[1] == pytest.approx(2.85 * eye_distance, abs=0.6)
    y, x = np.mgrid[:side, :side] + 0.5
    for channel, place in ((0, -0.5), (1, 0.5)):
        weight = crop[..., channel] / crop[..., channel].sum()
        assert (weight * x).sum() == pytest.approx(side / 2 + place * eye_distance, abs=0.4)
        assert (weight * y).sum() == pytest.approx(side / 2 - 0.5 * eye_distance, abs=0.4)


def test_the_similarity_of_transformed_landmarks_is_recovered() -> None:
    scale_and_rotation, translation = fit_similarity(_to_points(STRAIGHT * (20 - 7j) + 100 + 90j))
    assert scale_and_rotation == pytest.approx(20 - 7j)
    assert translation == pytest.approx(100 + 90j)


def test_the_similarity_has_the_least_squared_distance() -> None:
    random = np.random.default_rng(0)
    landmarks = STRAIGHT * (20 - 7j) + random.normal(size=5) + 1j * random.normal(size=5)
    design = np.stack([STRAIGHT, np.ones(5)], axis=1)
    expected, *_ = np.linalg.lstsq(design, landmarks, rcond=None)
    np.testing.assert_allclose(fit_similarity(_to_points(landmarks)), expected)


def test_landmarks_in_one_place_give_a_square_of_one_pixel() -> None:
    assert crop_square(_draw_places(200, 150), make_face(50, 50, 90, 90), 0.0, align=True).size == (1, 1)


def test_an_aligned_square_at_the_edge_shows_no_black() -> None:
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
def test_the_center_square_has_a_fraction_of_the_shorter_side(
    size: tuple[int, int], fraction: float, box: tuple[int, int, int, int]
) -> None:
    photograph = _draw_places(*size)
    assert crop_center(photograph, fraction).tobytes() == photograph.crop(box).tobytes()
