"""Thumbnails show the center of a photograph, or what the network sees of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.errors import CelebflowError
from celebflow.features.transform import Transform
from celebflow.params import FaceParams
from celebflow.report.thumbnails import load_crop, load_thumbnail
from tests.models import make_face


def test_thumbnail_is_the_center_square(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200, 100, 50
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    thumbnail = load_thumbnail(tmp_path / "wide.png", None)
    assert thumbnail.shape == (160, 160, 3)
    assert thumbnail.dtype == np.uint8
    assert np.abs(thumbnail[:, 20:-20].astype(int) - (200, 100, 50)).max() < 5


def test_a_photograph_that_cannot_be_shown_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    whole = FaceParams(crop="none", center_fraction=0.5, margin=0.0, align=False)
    for name, reason in (("damaged.jpg", "truncated or damaged"), ("gone.jpg", "No such file")):
        with pytest.raises(CelebflowError, match=f"{tmp_path / name} .*{reason}.*`dvc repro"):
            load_thumbnail(tmp_path / name, None)
        with pytest.raises(CelebflowError, match=f"{tmp_path / name} .*{reason}.*`dvc repro"):
            load_crop(tmp_path / name, None, Transform(224, whole), None)


def test_crop_shows_the_center_that_the_network_sees(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[5:15, 5:15] = 200, 100, 50
    Image.fromarray(pixels).save(tmp_path / "square.png")
    center = FaceParams(crop="center", center_fraction=0.5, margin=0.0, align=False)
    thumbnail = load_crop(tmp_path / "square.png", None, Transform(224, center), None)
    assert (thumbnail == (200, 100, 50)).all()


def test_crop_shows_the_face_that_was_detected(tmp_path: Path) -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[50:80, 50:80] = 200, 100, 50
    Image.fromarray(pixels).save(tmp_path / "face.png")
    detect = FaceParams(crop="detect", center_fraction=0.5, margin=0.0, align=False)
    thumbnail = load_crop(tmp_path / "face.png", None, Transform(224, detect), make_face(50, 50, 80, 80))
    assert (thumbnail[4:-4, 4:-4] == (200, 100, 50)).all()
