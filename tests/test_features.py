"""Each photograph's features are computed once, stored sparse, and come back as they were."""

import os
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest

from celebflow.backbone import Backbone, BackboneSource
from celebflow.data import Photo, list_persons, prepare_photographs, save_photos
from celebflow.errors import CelebflowError
from celebflow.features import (
    FeatureOrigin,
    Features,
    determine_origin,
    extract_missing,
    load_features,
    open_cache,
    save_features,
    select_split,
)
from celebflow.images import Transform, decode_photograph
from celebflow.params import ComputeParams, ExtractParams, Params
from celebflow.runtimes import RuntimeName, build_runtime

SMALL = Transform(32)
CPU = ComputeParams(device="cpu")


@pytest.fixture
def data(draw_people: Callable[..., Path]) -> Path:
    """Draw two persons."""
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
    direct = build_runtime(runtime, backbone)
    for row, photo in enumerate(photos):
        expected = direct.extract(SMALL.apply(decode_photograph((data / photo.path).read_bytes())))
        np.testing.assert_array_equal(features.batch(np.array([row])).to_dense()[0], expected)


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
            assert cache.get(photos[0]) is None


def test_a_damaged_entry_is_noticed_and_computed_again(
    tmp_path: Path, data: Path, photos: list[Photo], backbone_file: Path, origin: FeatureOrigin
) -> None:
    with open_cache(tmp_path / "cache", origin) as cache:
        extract_missing(photos, data, backbone_file, CPU, cache)
        before = cache.get(photos[0])
    with lmdb.open(str(tmp_path / "cache"), map_size=2**30) as environment, environment.begin(write=True) as edit:
        for key, value in list(edit.cursor()):
            edit.put(key, value[:-1] + bytes([value[-1] ^ 1]))
    with open_cache(tmp_path / "cache", origin) as cache:
        assert cache.get(photos[0]) is None
        assert extract_missing(photos, data, backbone_file, CPU, cache) == 8
        after = cache.get(photos[0])
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
        assert all(cache.get(photo) is not None for photo in photos)


def test_features_of_other_photographs_are_refused(tmp_path: Path, features: Features) -> None:
    save_photos(features.photos[:-1], tmp_path / "fewer.csv")
    with pytest.raises(CelebflowError, match=r"is not of the photographs in .*fewer\.csv"):
        load_features(tmp_path / "features", tmp_path / "fewer.csv")


def test_origin_follows_the_params(backbone: Backbone, backbone_file: Path) -> None:
    extract = ExtractParams(image_size_px=64, runtime="torch")
    assert determine_origin(backbone_file, extract, CPU) == FeatureOrigin(backbone.source, Transform(64), "torch")


def test_labels_follow_the_sorted_persons(features: Features) -> None:
    train = select_split(features, list_persons(features.photos), "train")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert [features.photos[row].split for row in train.rows] == ["train"] * 4
    inputs, labels = train.batch(np.array([3, 0]))
    assert (inputs.to_dense().shape, labels.tolist()) == ((2, 25088), [1, 0])
    np.testing.assert_array_equal(inputs.to_dense()[0], features.batch(train.rows[3:]).to_dense()[0])
