"""Photographs become the network's input as torchvision does it, cropped and in the views of the params."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision import transforms

from celebflow.data.photos import Photo
from celebflow.features.crops import crop_square
from celebflow.features.faces import Face
from celebflow.features.transform import WHOLE, Transform
from celebflow.params import FaceParams


def _draw_photograph(width: int = 60, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def _make_input(transform: Transform, photograph: Image.Image) -> NDArray[np.float32]:
    (image,) = transform.make_inputs(photograph, None)
    return image


def _crop(kind: str, fraction: float = 0.5) -> FaceParams:
    return FaceParams.model_validate({"crop": kind, "center_fraction": fraction, "margin": 0.3, "align": True})


def test_the_input_equals_torchvisions() -> None:
    reference = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    photograph = _draw_photograph(150, 150)
    image = torch.from_numpy(_make_input(Transform(224), photograph))
    torch.testing.assert_close(image, reference(photograph), rtol=1e-6, atol=1e-6)


def test_the_center_square_is_kept_of_a_photograph_that_is_not_square() -> None:
    photograph = Image.new("RGB", (300, 100), "red")
    photograph.paste("blue", (100, 0, 200, 100))
    blue = _make_input(Transform(64), Image.new("RGB", (64, 64), "blue"))
    np.testing.assert_array_equal(_make_input(Transform(64), photograph)[:, :, 8:-8], blue[:, :, 8:-8])


def test_by_default_a_transform_takes_the_whole_photograph_and_pool5() -> None:
    photograph = _draw_photograph(75, 50)
    fitted = ImageOps.fit(photograph, (96, 96), Image.Resampling.BILINEAR, centering=(0.5, 0.5))
    mean = np.array((0.485, 0.456, 0.406), np.float32)
    deviation = np.array((0.229, 0.224, 0.225), np.float32)
    pixels = np.asarray(fitted, np.float32) / np.float32(255)
    expected = ((pixels - mean) / deviation).transpose(2, 0, 1)
    np.testing.assert_array_equal(_make_input(Transform(96), photograph), expected)
    assert Transform(96).layers == ("pool5",)
    assert Transform(96).find_faces(photograph) == []


@pytest.mark.parametrize(
    ("width", "height", "fraction", "rows", "columns"),
    [
        (60, 40, 0.5, slice(10, 30), slice(20, 40)),
        (40, 60, 0.5, slice(20, 40), slice(10, 30)),
        (50, 50, 0.64, slice(9, 41), slice(9, 41)),
        (61, 40, 0.25, slice(15, 25), slice(25, 35)),
        (61, 40, 1.0, slice(0, 40), slice(10, 50)),
        (3, 3, 0.01, slice(1, 2), slice(1, 2)),
    ],
)
def test_the_center_crop_is_a_square_with_a_fraction_of_the_shorter_side(
    width: int, height: int, fraction: float, rows: slice, columns: slice
) -> None:
    photograph = _draw_photograph(width, height)
    transform = Transform(32, _crop("center", fraction))
    expected = np.asarray(photograph)[rows, columns]
    np.testing.assert_array_equal(np.asarray(transform.crop(photograph, None)), expected)
    np.testing.assert_array_equal(
        _make_input(transform, photograph), _make_input(Transform(32), Image.fromarray(expected))
    )


@pytest.mark.parametrize("size", [50, 44, 32])
def test_views_are_the_crop_its_mirror_image_and_closer_ones(size: int) -> None:
    photograph = _draw_photograph(70, 50)
    original = np.asarray(photograph)[:, 10:60]
    closer = original[3:47, 3:47]  # 88 % of each side
    expected = [original, original[:, ::-1], closer, closer[:, ::-1]]
    transform = Transform(size, _crop("center", 1.0), ("original", "mirrored", "closer", "closer_mirrored"))
    images = transform.make_inputs(photograph, None)
    for image, pixels in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image, _make_input(Transform(size), Image.fromarray(pixels)))
    assert len({image.tobytes() for image in images}) == 4


def test_views_are_in_the_order_of_the_transform_and_do_not_affect_each_other() -> None:
    photograph = _draw_photograph(70, 50)
    transform = Transform(32, _crop("center"), ("original", "closer_mirrored", "mirrored"))
    images = transform.make_inputs(photograph, None)
    for view, image in zip(transform.views, images, strict=True):
        np.testing.assert_array_equal(_make_input(transform.only(view), photograph), image)


@pytest.mark.parametrize("context", ["margin", "photograph"])
def test_the_context_follows_the_crop_in_each_view(context: str) -> None:
    photograph = _draw_photograph(90, 70)
    landmarks = ((34.0, 30.0), (44.0, 29.0), (40.0, 35.0), (36.0, 40.0), (43.0, 40.0))
    face = Face(30, 20, 50, 45, 0.9, landmarks)
    crop = FaceParams(crop="detect", margin=-0.1, align=True)
    both = Transform(32, crop.model_copy(update={"context": context, "context_margin": 0.4}), ("original", "mirrored"))
    wider = FaceParams(crop="detect", center_fraction=1.0, margin=0.4, align=True)
    alone = Transform(32, wider if context == "margin" else WHOLE, both.views)
    for found in (face, None):
        of_crop = Transform(32, crop, both.views).make_inputs(photograph, found)
        of_context = alone.make_inputs(photograph, found)
        expected = [of_crop[0], of_context[0], of_crop[1], of_context[1]]
        np.testing.assert_array_equal(both.make_inputs(photograph, found), expected)
        np.testing.assert_array_equal(both.shown.crop(photograph, found), alone.crop(photograph, found))
    assert both.feature_count == 2 * 25088


def test_a_transform_without_a_context_is_written_as_before_there_was_one() -> None:
    # Otherwise features that are cached would be computed again.
    assert set(Transform(32, _crop("detect")).to_dict()["face"]) == {"crop", "center_fraction", "margin", "align"}


def test_the_detected_face_is_cropped_and_without_one_the_center(
    photos: list[Photo], decoded: list[Image.Image], faces: dict[str, list[Face]]
) -> None:
    transform = Transform(32, _crop("detect"))
    for photo, photograph in zip(photos, decoded, strict=True):
        found = transform.find_faces(photograph)
        assert found == faces[photo.path]
        subject = transform.find_subject(photograph)
        assert subject == (found[0] if found else None)
        if subject is None:
            expected = Transform(32, _crop("center")).crop(photograph, None)
        else:
            expected = crop_square(photograph, subject, 0.3, align=True)
        assert transform.crop(photograph, subject).tobytes() == expected.tobytes()
        for kind in ("none", "center"):
            assert Transform(32, _crop(kind)).find_faces(photograph) == []


def test_a_transform_is_restored_from_json() -> None:
    whole = Transform(96)
    other = Transform(
        64,
        _crop("detect", 0.7),
        ("original", "closer"),
        ("pool5", "pool4"),
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
    )
    assert all(getattr(whole, field.name) != getattr(other, field.name) for field in fields(Transform))
    for transform in (whole, other):
        assert Transform.from_dict(json.loads(json.dumps(transform.to_dict()))) == transform
