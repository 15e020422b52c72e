"""Features are computed once, of the subject's face where faces are detected, and as inference computes them."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebflow.backbone import weights
from celebflow.backbone.source import BASE_LAYERS
from celebflow.backbone.vgg19 import Backbone
from celebflow.data.decoding import decode_photograph
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.features import extraction
from celebflow.features import transform as transform_module
from celebflow.features.cache import measure_cache, open_cache
from celebflow.features.crops import crop_center, crop_square
from celebflow.features.extracted import extract_views
from celebflow.features.extraction import collect_faces, extract_missing, report
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin, RuntimeName
from celebflow.features.runtimes import build_runtime
from celebflow.features.transform import Transform
from celebflow.inference import extractor
from celebflow.params import FaceParams, View
from tests.features.conftest import CPU, SOURCE, CountingRuntime

Extract = Callable[[list[Photo], Transform], int]
SMALL = Transform(32)
DETECTING = Transform(32, FaceParams(crop="detect", center_fraction=0.5, margin=0.1, align=False))


@pytest.mark.slow
@pytest.mark.parametrize("runtime_name", ["ncnn", "torch", "torch-bfloat16"])
def test_cached_features_equal_those_of_the_runtime(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    decoded: list[Image.Image],
    backbone: Backbone,
    backbone_file: Path,
    runtime_name: RuntimeName,
) -> None:
    with open_cache(tmp_path / "cache", FeatureOrigin(backbone.source, SMALL, runtime_name)) as cache:
        assert extract_missing(photos, data, backbone_file, CPU, cache) == 8
        rows = [cache.get(photo, "original") for photo in photos]
    direct = build_runtime(runtime_name, backbone, BASE_LAYERS)
    for row, photograph in zip(rows, decoded, strict=True):
        assert row is not None
        features = direct.extract(SMALL.make_inputs(photograph, None)[0])
        np.testing.assert_array_equal(row.indices, np.flatnonzero(features))
        np.testing.assert_array_equal(row.values, features[features != 0])


def test_nothing_is_computed_twice(
    photos: list[Photo], extract: Extract, runtime: CountingRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract(photos[:5], SMALL) == 5
    assert extract(photos, SMALL) == 3
    assert len(runtime.images) == 8
    monkeypatch.setattr(weights, "load_backbone", lambda *_: pytest.fail("the backbone is loaded"))
    assert extract(photos[::-1], SMALL) == 0


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_what_was_computed_before_an_interruption_is_stored(
    photos: list[Photo], extract: Extract, runtime: CountingRuntime, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(extraction, "_STORE_SECONDS", seconds)
    compute = runtime.extract

    def interrupt(image: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(runtime.images) == 5:
            raise KeyboardInterrupt
        return compute(image)

    monkeypatch.setattr(runtime, "extract", interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, SMALL)
    monkeypatch.setattr(runtime, "extract", compute)
    assert extract(photos, SMALL) == 3


def test_equal_files_are_computed_once(photos: list[Photo], extract: Extract, runtime: CountingRuntime) -> None:
    assert extract([photos[0], photos[1], photos[0]], SMALL) == 2
    assert len(runtime.images) == 2


def test_a_photograph_that_is_missing_or_has_changed_is_an_error(
    data: Path, photos: list[Photo], extract: Extract
) -> None:
    (data / photos[0].path).write_bytes((data / photos[1].path).read_bytes())
    (data / photos[7].path).unlink()
    with pytest.raises(CelebflowError, match=f"{photos[0].path} has changed.*`dvc repro`"):
        extract(photos, SMALL)
    with pytest.raises(CelebflowError, match=f"{photos[7].path} cannot be read.*`dvc repro`"):
        extract(photos[7:], SMALL)
    content = b"decoded elsewhere"
    (data / photos[6].path).write_bytes(content)
    undecodable = replace(photos[6], sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(CelebflowError, match=f"{photos[6].path} is not a JPEG.*`dvc repro --force prepare`"):
        extract([undecodable], SMALL)


def test_only_the_views_that_are_missing_are_computed(
    photos: list[Photo], decoded: list[Image.Image], extract: Extract, runtime: CountingRuntime
) -> None:
    steps: tuple[tuple[tuple[View, ...], tuple[View, ...]], ...] = (
        (("original", "mirrored"), ("original", "mirrored")),
        (("original", "closer", "mirrored"), ("closer",)),
        (("original",), ()),
        (("original", "mirrored", "closer", "closer_mirrored"), ("closer_mirrored",)),
        (("original", "closer_mirrored", "closer", "mirrored"), ()),
    )
    for views, computed in steps:
        runtime.images.clear()
        assert extract(photos, Transform(32, views=views)) == (len(photos) if computed else 0)
        expected = []
        for photograph in decoded:
            expected += Transform(32, views=computed).make_inputs(photograph, None)
        assert len(runtime.images) == len(expected)
        assert all(np.array_equal(*images) for images in zip(runtime.images, expected, strict=True))


def test_only_the_regions_that_are_missing_are_computed(
    tmp_path: Path, photos: list[Photo], decoded: list[Image.Image], extract: Extract, runtime: CountingRuntime
) -> None:
    views: tuple[View, ...] = ("original", "mirrored")
    both = Transform(32, DETECTING.face.model_copy(update={"context": "photograph"}), views)
    assert extract(photos, DETECTING) == len(photos)
    assert extract(photos, Transform(32, views=("original",))) == len(photos)
    runtime.images.clear()
    assert extract(photos, both) == len(photos)
    expected = []
    for photograph in decoded:
        of_crop, of_context = both.regions
        subject = both.find_subject(photograph)
        expected += of_crop.only("mirrored").make_inputs(photograph, subject)
        expected += of_context.only("mirrored").make_inputs(photograph, subject)
    assert len(runtime.images) == len(expected) == 2 * len(photos)
    assert all(np.array_equal(*images) for images in zip(runtime.images, expected, strict=True))
    with open_cache(tmp_path / "cache", FeatureOrigin(SOURCE, both, "ncnn")) as cache:
        for photo, photograph in zip(photos, decoded, strict=True):
            rows = extract_views(photograph, both.find_subject(photograph), both, runtime)
            for view, row in zip(views, rows, strict=True):
                cached = cache.get(photo, view)
                assert cached is not None
                assert cache.count(photo, view) == len(cached.indices)
                np.testing.assert_array_equal(cached.indices, row.indices)
                np.testing.assert_array_equal(cached.values, row.values)


def test_each_crop_and_each_layer_is_computed_anew(
    photos: list[Photo], extract: Extract, faces: dict[str, list[Face]]
) -> None:
    crop = DETECTING.face
    transforms = [
        Transform(32),
        Transform(32, layers=("pool4",)),
        Transform(32, layers=("pool4", "pool5")),
        Transform(32, layers=("pool5", "pool4")),
        Transform(32, crop.model_copy(update={"crop": "center", "margin": 0.0})),
        Transform(32, crop),
        Transform(32, crop.model_copy(update={"margin": 0.2})),
        Transform(32, crop.model_copy(update={"context": "margin", "context_margin": 0.3})),
        Transform(32, crop.model_copy(update={"align": True})),
        Transform(32, crop.model_copy(update={"center_fraction": 0.6})),
    ]
    for transform in transforms:
        assert extract(photos, transform) == 8


def test_features_are_of_the_subjects_face_and_without_one_of_the_center(
    photos: list[Photo],
    decoded: list[Image.Image],
    extract: Extract,
    runtime: CountingRuntime,
    faces: dict[str, list[Face]],
) -> None:
    extract(photos, DETECTING)
    assert {len(found) for found in faces.values()} == {0, 1, 2}
    for image, photo, photograph in zip(runtime.images, photos, decoded, strict=True):
        found = faces[photo.path]
        part = crop_square(photograph, found[0], 0.1, align=False) if found else crop_center(photograph, 0.5)
        np.testing.assert_array_equal(image, SMALL.make_inputs(part, None)[0])


def test_all_faces_are_collected(
    tmp_path: Path, photos: list[Photo], extract: Extract, faces: dict[str, list[Face]]
) -> None:
    extract(photos, DETECTING)
    with open_cache(tmp_path / "cache", FeatureOrigin(SOURCE, DETECTING, "ncnn")) as cache:
        assert collect_faces(photos, cache) == faces


@pytest.mark.parametrize("damage", ["removed", "flipped"])
def test_missing_or_damaged_faces_are_detected_again_without_computing_features(
    tmp_path: Path,
    photos: list[Photo],
    extract: Extract,
    runtime: CountingRuntime,
    faces: dict[str, list[Face]],
    damage: str,
) -> None:
    extract(photos, DETECTING)
    runtime.images.clear()
    origin = FeatureOrigin(SOURCE, DETECTING, "ncnn")
    with open_cache(tmp_path / "cache", origin) as cache:
        face_keys = {cache.keys(photo)[-1] for photo in photos}
    with lmdb.open(str(tmp_path / "cache"), map_size=2**30) as store, store.begin(write=True) as transaction:
        for key in face_keys:
            entry = transaction.pop(key)
            assert entry is not None
            if damage == "flipped":
                transaction.put(key, entry[:-1] + bytes([entry[-1] ^ 1]))
    with open_cache(tmp_path / "cache", origin) as cache:
        assert [cache.get_faces(photo) for photo in photos] == [None] * 8
        with pytest.raises(CelebflowError, match=f"{photos[0].path}.*`dvc repro`"):
            collect_faces(photos, cache)
    assert extract(photos, DETECTING) == 8
    with open_cache(tmp_path / "cache", origin) as cache:
        assert collect_faces(photos, cache) == faces
    assert runtime.images == []


@pytest.mark.parametrize("crop", ["none", "center"])
def test_other_crops_detect_no_faces(
    tmp_path: Path, photos: list[Photo], extract: Extract, crop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transform_module, "detect_faces", lambda _: pytest.fail("faces are detected"))
    transform = Transform(32, DETECTING.face.model_copy(update={"crop": crop}))
    extract(photos, transform)
    with open_cache(tmp_path / "cache", FeatureOrigin(SOURCE, transform, "ncnn")) as cache:
        assert collect_faces(photos, cache) == {}
    assert measure_cache(tmp_path / "cache").entries == 8


def test_extraction_and_inference_share_the_function_that_computes_features(
    data: Path, photos: list[Photo], runtime: CountingRuntime
) -> None:
    assert vars(extractor)["extract_views"] is extract_views
    transform = Transform(32, DETECTING.face, ("original", "mirrored"))
    photograph = decode_photograph((data / photos[1].path).read_bytes())
    face = Face(3, 4, 11, 12, 0.9, ((4.0, 5.0), (8.0, 5.0), (6.0, 7.0), (5.0, 9.0), (8.0, 9.0)))
    for subject in (None, face):
        rows = extract_views(photograph, subject, transform, runtime)
        inputs = transform.make_inputs(photograph, subject)
        assert len(rows) == len(inputs) == 2
        for row, image in zip(rows, inputs, strict=True):
            np.testing.assert_array_equal(row.values, image[image != 0])


@pytest.mark.parametrize(("count", "more"), [(0, ""), (2, ""), (7, " and 2 more")])
def test_photographs_without_a_face_are_told(
    photos: list[Photo], capsys: pytest.CaptureFixture[str], count: int, more: str
) -> None:
    face = Face(0, 0, 9, 9, 0.9, ((1, 1),) * 5)
    faces = {photo.path: [] if row < count else [face] for row, photo in enumerate(photos)}
    report(3, photos, FeatureOrigin(SOURCE, DETECTING, "torch"), faces)
    output = capsys.readouterr().out
    assert "3 photographs extracted with torch" in output
    names = ", ".join(photo.path for photo in photos[: min(count, 5)])
    assert (f"In {count} photographs, no face was found" in output) == (count > 0)
    assert not count or f"instead: {names}{more}. Remove" in output


def test_photographs_with_another_large_face_are_told(photos: list[Photo], capsys: pytest.CaptureFixture[str]) -> None:
    subject, large, small = (Face(0, 0, side, side, 0.9, ((1, 1),) * 5) for side in (10, 8, 7))
    others = [[small], [small, large], [], [large]]
    faces = {photo.path: [subject, *each] for photo, each in zip(photos, others, strict=False)}
    report(3, photos, FeatureOrigin(SOURCE, DETECTING, "torch"), faces)
    output = capsys.readouterr().out
    told = [photo.path for photo, each in zip(photos, others, strict=False) if large in each]
    assert f"In {len(told)} photographs, another face is at least half as large as the one that counts" in output
    assert f": {', '.join(told)}. Crop" in output
