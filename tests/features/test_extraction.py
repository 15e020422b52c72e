"""Each photograph's features are computed once, stored sparse, and come back as they were."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebflow.backbone.vgg19 import BASE_LAYERS, Backbone, BackboneSource
from celebflow.data.decoding import decode_photograph
from celebflow.data.photos import Photo, list_people, save_photos
from celebflow.data.preparation import prepare_photographs
from celebflow.errors import CelebflowError
from celebflow.features import cache as features_module
from celebflow.features import transform as transform_module
from celebflow.features.cache import measure_cache, open_cache, prune_cache
from celebflow.features.extraction import extract_missing, list_crops, save_crops
from celebflow.features.origin import FeatureOrigin, determine_origin
from celebflow.features.runtimes import RuntimeName, build_runtime
from celebflow.features.store import Features, load_features, save_features, select_split
from celebflow.features.transform import Transform
from celebflow.params import ComputeParams, FaceParams, Params, View

SMALL = Transform(32)
CPU = ComputeParams(device="cpu")


@pytest.fixture
def data(draw_people: Callable[..., Path]) -> Path:
    """Draw two people."""
    return draw_people("Ann", "Bo", count=4)


@pytest.fixture
def photos(data: Path, params: Params) -> list[Photo]:
    """Prepare them."""
    return prepare_photographs(data, params.prepare)[0]


@pytest.fixture
def origin(backbone: Backbone) -> FeatureOrigin:
    """Name the quickest way to some features."""
    return FeatureOrigin(backbone.source, SMALL, "ncnn")


@pytest.fixture
def features(tmp_path: Path, data: Path, photos: list[Photo], backbone_file: Path, origin: FeatureOrigin) -> Features:
    """Extract, save and load."""
    with open_cache(tmp_path / "cache", origin) as cache:
        assert extract_missing(photos, data, backbone_file, CPU, cache) == 8
        save_features(photos, cache, tmp_path / "features")
    save_photos(photos, tmp_path / "photos.csv")
    return load_features(tmp_path / "features", tmp_path / "photos.csv")


@pytest.mark.parametrize("runtime", ["ncnn", "torch"])
def test_stored_features_equal_those_of_the_runtime(
    tmp_path: Path, data: Path, photos: list[Photo], backbone: Backbone, backbone_file: Path, runtime: RuntimeName
) -> None:
    origin = FeatureOrigin(backbone.source, SMALL, runtime)
    with open_cache(tmp_path / "cache", origin) as cache:
        assert extract_missing(photos, data, backbone_file, CPU, cache) == 8
        save_features(photos, cache, tmp_path / "features")
    save_photos(photos, tmp_path / "photos.csv")
    features = load_features(tmp_path / "features", tmp_path / "photos.csv")
    assert (len(features), features.origin, features.photos) == (8, origin, photos)
    direct = build_runtime(runtime, backbone, BASE_LAYERS)
    for row, photo in enumerate(photos):
        expected = direct.extract(SMALL.apply(decode_photograph((data / photo.path).read_bytes()), None)[0])
        np.testing.assert_array_equal(features.gather(np.array([row])).to_dense()[0], expected)


def test_nothing_is_computed_twice_and_another_origin_is_computed_anew(
    tmp_path: Path, data: Path, photos: list[Photo], backbone: Backbone, backbone_file: Path, origin: FeatureOrigin
) -> None:
    with open_cache(tmp_path / "cache", origin) as cache:
        assert extract_missing(photos[:5], data, backbone_file, CPU, cache) == 5
    with open_cache(tmp_path / "cache", origin) as cache:
        assert extract_missing(photos, data, backbone_file, CPU, cache) == 3
        assert extract_missing(photos[::-1], data, tmp_path / "not needed", CPU, cache) == 0
    others = (
        FeatureOrigin(backbone.source, Transform(64), "ncnn"),
        FeatureOrigin(BackboneSource("another", False, "another"), SMALL, "ncnn"),
        FeatureOrigin(backbone.source, SMALL, "torch"),
    )
    for other in others:
        with open_cache(tmp_path / "cache", other) as cache:
            assert cache.get(photos[0], "original") is None


def test_a_damaged_entry_is_noticed_and_computed_again(
    tmp_path: Path, data: Path, photos: list[Photo], backbone_file: Path, origin: FeatureOrigin
) -> None:
    with open_cache(tmp_path / "cache", origin) as cache:
        extract_missing(photos, data, backbone_file, CPU, cache)
        before = cache.get(photos[0], "original")
    with lmdb.open(str(tmp_path / "cache"), map_size=2**30) as environment, environment.begin(write=True) as edit:
        for key, value in list(edit.cursor()):
            edit.put(key, value[:-1] + bytes([value[-1] ^ 1]))
    with open_cache(tmp_path / "cache", origin) as cache:
        assert cache.get(photos[0], "original") is None
        assert extract_missing(photos, data, backbone_file, CPU, cache) == 8
        after = cache.get(photos[0], "original")
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.values, after.values)


def test_a_photograph_that_changed_or_went_is_an_error(
    tmp_path: Path, data: Path, photos: list[Photo], backbone_file: Path, origin: FeatureOrigin
) -> None:
    (data / photos[0].path).write_bytes((data / photos[1].path).read_bytes())
    (data / photos[7].path).unlink()
    with open_cache(tmp_path / "cache", origin) as cache:
        with pytest.raises(CelebflowError, match="has changed since it was checked"):
            extract_missing(photos, data, backbone_file, CPU, cache)
        with pytest.raises(CelebflowError, match="cannot be read"):
            extract_missing(photos[7:], data, backbone_file, CPU, cache)
        with pytest.raises(CelebflowError, match="went missing from the cache"):
            save_features(photos, cache, tmp_path / "features")


def test_a_file_that_is_no_cache_is_a_clear_error(tmp_path: Path, origin: FeatureOrigin) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(CelebflowError, match="cannot be opened"), open_cache(tmp_path, origin):
        pass


def test_a_cache_that_is_cut_off_is_a_clear_error(
    tmp_path: Path, data: Path, photos: list[Photo], backbone_file: Path, origin: FeatureOrigin
) -> None:
    with open_cache(tmp_path / "cache", origin) as cache:
        extract_missing(photos, data, backbone_file, CPU, cache)
    os.truncate(tmp_path / "cache" / "data.mdb", 3 * 4096)
    with pytest.raises(CelebflowError, match="cut off"), open_cache(tmp_path / "cache", origin):
        pass


def test_a_prune_that_was_killed_between_its_steps_loses_nothing(
    tmp_path: Path, data: Path, photos: list[Photo], backbone_file: Path, origin: FeatureOrigin
) -> None:
    with open_cache(tmp_path / "cache", origin) as cache:
        extract_missing(photos, data, backbone_file, CPU, cache)
    (tmp_path / "cache").rename(tmp_path / "cache.dropped")
    with open_cache(tmp_path / "cache", origin) as cache:
        assert all(cache.get(photo, "original") is not None for photo in photos)


def test_features_of_other_photographs_are_refused(tmp_path: Path, features: Features) -> None:
    save_photos(features.photos[:-1], tmp_path / "fewer.csv")
    with pytest.raises(CelebflowError, match=r"is not of the photographs in .*fewer\.csv"):
        load_features(tmp_path / "features", tmp_path / "fewer.csv")


def test_origin_follows_the_params(params: Params, backbone: Backbone, backbone_file: Path) -> None:
    base = params.extract.model_copy(update={"image_size_px": 64, "runtime": "torch"})
    assert determine_origin(backbone_file, base, CPU) == FeatureOrigin(backbone.source, Transform(64), "torch")
    face = FaceParams(crop="center", center_fraction=0.5, margin=0.7, align=True)
    changed = base.model_copy(update={"face": face, "views": ("original", "mirrored"), "layers": ("pool4",)})
    # What the center makes no use of makes no difference to the cache.
    used = face.model_copy(update={"margin": 0.0, "align": False})
    expected = FeatureOrigin(backbone.source, Transform(64, used, ("original", "mirrored"), ("pool4",)), "torch")
    assert determine_origin(backbone_file, changed, CPU) == expected


def test_labels_follow_the_sorted_people(features: Features) -> None:
    train = select_split(features, list_people(features.photos), "train")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert [features.photos[row].split for row in train.rows] == ["train"] * 4
    inputs, labels = train.gather(np.array([3, 0]))
    assert (inputs.to_dense().shape, labels.tolist()) == ((2, 25088), [1, 0])
    np.testing.assert_array_equal(inputs.to_dense()[0], features.gather(train.rows[3:]).to_dense()[0])


class CountingRuntime:
    """A runtime that takes a photograph's first pixels for its features, and counts."""

    workers = 1

    def __init__(self) -> None:
        self.seen: list[NDArray[np.float32]] = []

    def extract(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features that there would be, mostly zeros."""
        self.seen.append(image)
        features = np.zeros(25088, np.float32)
        features[: image.size] = image.ravel()
        return features


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> CountingRuntime:
    """Put a runtime that counts in the place of VGG19."""
    counting = CountingRuntime()
    monkeypatch.setattr(features_module, "build_runtime", lambda *_: counting)
    return counting


def _show(views: tuple[View, ...], data: Path, photos: list[Photo]) -> list[NDArray[np.float32]]:
    """Return the views of all photographs, those of one together."""
    transform = Transform(32, views=views)
    decoded = [decode_photograph((data / photo.path).read_bytes()) for photo in photos]
    return [image for photograph in decoded for image in transform.make_inputs(photograph, None)]


def test_a_view_that_is_added_is_computed_alone(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone: Backbone,
    backbone_file: Path,
    runtime: CountingRuntime,
) -> None:
    every: tuple[View, ...] = ("original", "mirrored", "closer", "closer_mirrored")
    steps: tuple[tuple[tuple[View, ...], tuple[View, ...]], ...] = (
        (("original", "mirrored"), ("original", "mirrored")),
        (("original", "closer", "mirrored"), ("closer",)),
        (("original",), ()),
        (every, ("closer_mirrored",)),
        (("original", *every[:0:-1]), ()),
    )
    for views, computed in steps:
        runtime.seen.clear()
        with open_cache(
            tmp_path / "cache", FeatureOrigin(backbone.source, Transform(32, views=views), "ncnn")
        ) as cache:
            assert extract_missing(photos, data, backbone_file, CPU, cache) == (len(photos) if computed else 0)
        assert len(runtime.seen) == len(photos) * len(computed)
        if computed:
            np.testing.assert_array_equal(runtime.seen, _show(computed, data, photos))


def test_rows_stand_view_after_view_of_each_photograph(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone: Backbone,
    backbone_file: Path,
    runtime: CountingRuntime,
) -> None:
    views: tuple[View, ...] = ("original", "closer", "mirrored")
    with open_cache(tmp_path / "cache", FeatureOrigin(backbone.source, Transform(32, views=views), "ncnn")) as cache:
        extract_missing(photos, data, backbone_file, CPU, cache)
        save_features(photos, cache, tmp_path / "features")
    save_photos(photos, tmp_path / "photos.csv")
    features = load_features(tmp_path / "features", tmp_path / "photos.csv")
    assert (len(features), features.view_count, len(features.offsets)) == (8, 3, 25)
    expected = np.stack([runtime.extract(image) for image in _show(views, data, photos)]).reshape(8, 3, -1)
    stored = np.split(features.values, features.offsets[1:-1])
    for row, values in enumerate(stored):
        np.testing.assert_array_equal(values, expected.reshape(24, -1)[row][expected.reshape(24, -1)[row] != 0])
    rows = np.array([5, 0, 7])
    for view in range(3):
        np.testing.assert_array_equal(features.gather(rows, view).to_dense(), expected[rows, view])
    mixed = features.gather(rows, np.array([2, 0, 1])).to_dense()
    np.testing.assert_array_equal(mixed, expected[rows, [2, 0, 1]])
    train = select_split(features, list_people(photos), "train")
    assert (len(train), train.view_count) == (4, 3)
    inputs, _ = train.gather(np.array([1, 2]), np.array([0, 2]))
    np.testing.assert_array_equal(inputs.to_dense(), expected[train.rows[[1, 2]], [0, 2]])
    with pytest.raises(CelebflowError, match="is not of the photographs in"):
        save_photos(photos[:-1], tmp_path / "fewer.csv")
        load_features(tmp_path / "features", tmp_path / "fewer.csv")


def test_a_prune_keeps_all_views_of_the_photographs_that_are_needed(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone: Backbone,
    backbone_file: Path,
    runtime: CountingRuntime,
) -> None:
    origin = FeatureOrigin(backbone.source, Transform(32, views=("original", "mirrored", "closer")), "ncnn")
    fewer = FeatureOrigin(backbone.source, Transform(32, views=("original", "closer")), "ncnn")
    with open_cache(tmp_path / "cache", origin) as cache:
        extract_missing(photos, data, backbone_file, CPU, cache)
    prune_cache(tmp_path / "cache", photos[:3], origin)
    assert measure_cache(tmp_path / "cache").entries == 9
    with open_cache(tmp_path / "cache", origin) as cache:
        assert [cache.is_complete(photo) for photo in photos] == [True] * 3 + [False] * 5
    prune_cache(tmp_path / "cache", photos[:3], fewer)
    assert measure_cache(tmp_path / "cache").entries == 6
    with open_cache(tmp_path / "cache", origin) as cache:
        assert [cache.missing_views(photo) for photo in photos[:3]] == [["mirrored"]] * 3


def _detecting(image_size_px: int = 32, views: tuple[View, ...] = ("original",)) -> Transform:
    return Transform(image_size_px, FaceParams(crop="detect", center_fraction=0.5, margin=0.1, align=False), views)


@pytest.fixture
def face_counts(data: Path, photos: list[Photo], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have 0, 1, 2, 0, 1, 2, 0, 1 faces be found in the photographs, and return these counts."""
    counts = [number % 3 for number in range(len(photos))]
    decoded = [decode_photograph((data / photo.path).read_bytes()) for photo in photos]
    faces = {image.tobytes(): ["first", "second"][:count] for image, count in zip(decoded, counts, strict=True)}

    def find_faces(transform: Transform, photograph: Image.Image) -> list[Any]:
        return faces[photograph.tobytes()] if transform.face.crop == "detect" else []

    def crop_square(photograph: Image.Image, face: Any, *_: object) -> Image.Image:
        assert face == "first", "the photograph's subject"
        return photograph.crop((0, 0, 7, 7))

    monkeypatch.setattr(Transform, "find_faces", find_faces)
    monkeypatch.setattr(transform_module, "crop_square", crop_square)
    return counts


def test_how_many_faces_were_found_is_kept_and_told_where_it_is_not_one(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone: Backbone,
    backbone_file: Path,
    runtime: CountingRuntime,
    face_counts: list[int],
) -> None:
    origin = FeatureOrigin(backbone.source, _detecting(), "ncnn")
    with open_cache(tmp_path / "cache", origin) as cache:
        assert cache.get_face_count(photos[0]) is None
        assert extract_missing(photos, data, backbone_file, CPU, cache) == 8
    for image, photo, count in zip(runtime.seen, photos, face_counts, strict=True):
        photograph = decode_photograph((data / photo.path).read_bytes())
        part = photograph.crop((0, 0, 7, 7) if count else (10, 10, 30, 30))
        np.testing.assert_array_equal(image, Transform(32).apply(part, None)[0])
    prune_cache(tmp_path / "cache", photos, origin)
    with open_cache(tmp_path / "cache", origin) as cache:
        assert [cache.get_face_count(photo) for photo in photos] == face_counts
        assert extract_missing(photos, data, tmp_path / "not needed", CPU, cache) == 0
        crops = list_crops(photos, cache)
    save_crops(crops, tmp_path / "reports" / "faces.csv")
    header, *lines = (tmp_path / "reports" / "faces.csv").read_text(encoding="utf-8").splitlines()
    assert header == "path,faces,seen"
    told = [line.split(",") for line in lines]
    unusual = [(photo.path, str(count)) for photo, count in zip(photos, face_counts, strict=True) if count != 1]
    assert [(path, count) for path, count, _ in told] == unusual
    assert {seen for _, count, seen in told if count == "0"} == {"the center square"}
    assert all("face" in seen for _, count, seen in told if count == "2")


def test_a_count_of_faces_that_is_not_known_is_found_out_without_computing_features(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone: Backbone,
    backbone_file: Path,
    runtime: CountingRuntime,
    face_counts: list[int],
) -> None:
    origin = FeatureOrigin(backbone.source, _detecting(), "ncnn")
    with open_cache(tmp_path / "cache", origin) as cache:
        extract_missing(photos, data, backbone_file, CPU, cache)
    with lmdb.open(str(tmp_path / "cache"), map_size=2**30) as environment, environment.begin(write=True) as edit:
        for key, value in list(edit.cursor()):
            if len(value) < 100:
                edit.delete(key)
    runtime.seen.clear()
    with open_cache(tmp_path / "cache", origin) as cache:
        assert [cache.get_face_count(photo) for photo in photos] == [None] * 8
        assert extract_missing(photos, data, backbone_file, CPU, cache) == 8
        assert [cache.get_face_count(photo) for photo in photos] == face_counts
    assert runtime.seen == []


@pytest.mark.parametrize("crop", ["none", "center"])
def test_no_faces_are_told_unless_they_are_detected(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone: Backbone,
    backbone_file: Path,
    runtime: CountingRuntime,
    crop: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transform_module, "detect_faces", lambda _: pytest.fail("nobody asked for faces"))
    face = FaceParams.model_validate({"crop": crop, "center_fraction": 0.5, "margin": 0.0, "align": False})
    with open_cache(tmp_path / "cache", FeatureOrigin(backbone.source, Transform(32, face), "ncnn")) as cache:
        extract_missing(photos, data, backbone_file, CPU, cache)
        assert all(cache.get_face_count(photo) is None for photo in photos)
        save_crops(list_crops(photos, cache), tmp_path / "faces.csv")
    assert (tmp_path / "faces.csv").read_text(encoding="utf-8") == "path,faces,seen\n"
    assert measure_cache(tmp_path / "cache").entries == 8


def test_each_way_to_crop_and_each_layer_is_another_origin(
    tmp_path: Path,
    data: Path,
    photos: list[Photo],
    backbone: Backbone,
    backbone_file: Path,
    runtime: CountingRuntime,
    face_counts: list[int],
) -> None:
    def crop(**values: object) -> FaceParams:
        return FaceParams.model_validate(
            {"crop": "detect", "center_fraction": 0.5, "margin": 0.1, "align": False, **values}
        )

    transforms = [
        Transform(32),
        Transform(32, layers=("pool4",)),
        Transform(32, layers=("pool4", "pool5")),
        Transform(32, layers=("pool5", "pool4")),
        Transform(32, crop(crop="center", margin=0.0)),
        *(Transform(32, crop(**each)) for each in ({}, {"margin": 0.2}, {"align": True}, {"center_fraction": 0.6})),
    ]
    for transform in transforms:
        with open_cache(tmp_path / "cache", FeatureOrigin(backbone.source, transform, "ncnn")) as cache:
            assert extract_missing(photos, data, backbone_file, CPU, cache) == 8
