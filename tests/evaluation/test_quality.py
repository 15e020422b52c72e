"""The quality of a photograph says how dark, blurred, small or turned the face in it is."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from celebflow.evaluation.quality import Quality, measure_quality
from celebflow.features.faces import Face
from celebflow.features.transform import Transform
from celebflow.params import FaceParams

DETECTING = Transform(224, FaceParams(crop="detect", margin=0.0))
WHOLE = Transform(224)


def _face(nose_x: float = 50, tilt: float = 0.0, side: float = 60) -> Face:
    points = np.array([[40, 40], [60, 40], [nose_x, 50], [42, 62], [58, 62]], np.float64)
    turned = (points - 50) @ np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]) + 50
    return Face(20, 20, 20 + side, 20 + side, 0.9, tuple((float(x), float(y)) for x, y in turned))


def _measure(photograph: Image.Image, face: Face | None = None, transform: Transform = WHOLE) -> Quality:
    return measure_quality(photograph, face, transform)


def _noise(side: int = 100) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    return Image.fromarray(values)


def test_brightness_is_that_of_what_the_network_sees() -> None:
    photograph = Image.new("RGB", (100, 100), "white")
    photograph.paste((0, 0, 0), (20, 20, 80, 80))
    assert _measure(photograph).brightness == pytest.approx(0.64)
    assert _measure(photograph, _face(), DETECTING).brightness == pytest.approx(0, abs=0.01)


def test_a_blurred_photograph_is_less_sharp_at_any_size() -> None:
    sharp, blurred = _noise(), _noise().filter(ImageFilter.GaussianBlur(2))
    assert _measure(sharp).sharpness > 3 * _measure(blurred).sharpness
    larger = _noise(112).resize((448, 448), Image.Resampling.BILINEAR)
    assert _measure(larger).sharpness < 1.1 * _measure(_noise(112)).sharpness, "of large photographs, not more"


def test_the_size_is_that_of_the_face_or_of_the_photograph() -> None:
    assert _measure(_noise(), _face(side=30), DETECTING).size_px == 30
    assert _measure(_noise().resize((200, 80))).size_px == 80


def test_a_turn_is_how_far_the_nose_is_from_the_middle_whatever_the_tilt() -> None:
    for tilt in (0.0, 0.4):
        assert _measure(_noise(), _face(50, tilt), DETECTING).turn == pytest.approx(0)
        assert _measure(_noise(), _face(60, tilt), DETECTING).turn == pytest.approx(0.5)
        assert _measure(_noise(), _face(40, tilt), DETECTING).turn == pytest.approx(0.5)
    assert _measure(_noise()).turn is None
    eyes_in_one_place = Face(0, 0, 9, 9, 0.9, ((5, 5),) * 5)
    assert _measure(_noise(), eyes_in_one_place, DETECTING).turn is None
