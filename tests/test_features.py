"""Each photograph's features are computed once, stored sparse, and come back as they were."""

from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest

from celebflow.backbone import Backbone
from celebflow.data import Photo, list_persons, prepare_photographs
from celebflow.errors import CelebflowError
from celebflow.features import (
    SparseRow,
    extract_missing,
    load_features,
    open_cache,
    save_features,
    select_split,
)
from celebflow.images import Transform, decode_photograph
from celebflow.params import Params

SMALL = Transform(32)


@pytest.fixture
def data(draw_people: Callable[..., Path]) -> Path:
    """Draw two persons."""
    return draw_people("Ann", "Bo", count=4)


@pytest.fixture
def photos(data: Path, params: Params) -> list[Photo]:
    """Prepare them."""
    return prepare_photographs(data, params.prepare)[0]


def test_stored_features_equal_the_direct_forward_pass(
    tmp_path: Path, data: Path, photos: list[Photo], backbone: Backbone
) -> None:
    with open_cache(tmp_path / "cache", SMALL, backbone.source.fingerprint) as cache:
        assert extract_missing(photos, data, backbone, SMALL, cache) == 8
        save_features(photos, cache, backbone.source, SMALL, tmp_path / "features")
    features = load_features(tmp_path / "features")
    assert (len(features), features.source, features.transform) == (8, backbone.source, SMALL)
    for row, photo in enumerate(photos):
        direct = backbone.extract(SMALL.apply(decode_photograph((data / photo.path).read_bytes())))
        np.testing.assert_array_equal(features.dense(np.array([row]))[0].numpy(), direct)


def test_nothing_is_computed_twice_and_another_recipe_is_computed_anew(
    tmp_path: Path, data: Path, photos: list[Photo], backbone: Backbone
) -> None:
    fingerprint = backbone.source.fingerprint
    with open_cache(tmp_path / "cache", SMALL, fingerprint) as cache:
        assert extract_missing(photos[:5], data, backbone, SMALL, cache) == 5
    with open_cache(tmp_path / "cache", SMALL, fingerprint) as cache:
        assert extract_missing(photos, data, backbone, SMALL, cache) == 3
        assert extract_missing(photos[::-1], data, backbone, SMALL, cache) == 0
    with open_cache(tmp_path / "cache", Transform(64), fingerprint) as cache:
        assert cache.get(photos[0]) is None
    with open_cache(tmp_path / "cache", SMALL, "another") as cache:
        assert cache.get(photos[0]) is None


def test_a_damaged_entry_is_noticed_and_computed_again(
    tmp_path: Path, data: Path, photos: list[Photo], backbone: Backbone
) -> None:
    with open_cache(tmp_path / "cache", SMALL, backbone.source.fingerprint) as cache:
        extract_missing(photos, data, backbone, SMALL, cache)
        before = cache.get(photos[0])
    with lmdb.open(str(tmp_path / "cache"), map_size=2**30) as environment, environment.begin(write=True) as edit:
        for key, value in list(edit.cursor()):
            edit.put(key, value[:-1] + bytes([value[-1] ^ 1]))
    with open_cache(tmp_path / "cache", SMALL, backbone.source.fingerprint) as cache:
        assert cache.get(photos[0]) is None
        assert extract_missing(photos, data, backbone, SMALL, cache) == 8
        after = cache.get(photos[0])
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.values, after.values)


def test_a_photograph_that_changed_or_went_is_an_error(
    tmp_path: Path, data: Path, photos: list[Photo], backbone: Backbone
) -> None:
    (data / photos[0].path).write_bytes((data / photos[1].path).read_bytes())
    (data / photos[7].path).unlink()
    with open_cache(tmp_path / "cache", SMALL, backbone.source.fingerprint) as cache:
        with pytest.raises(CelebflowError, match="has changed since it was checked"):
            extract_missing(photos, data, backbone, SMALL, cache)
        with pytest.raises(CelebflowError, match="cannot be read"):
            extract_missing(photos[7:], data, backbone, SMALL, cache)
        with pytest.raises(CelebflowError, match="went missing from the cache"):
            save_features(photos, cache, backbone.source, SMALL, tmp_path / "features")


def test_a_file_that_is_no_cache_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(CelebflowError, match="cannot be opened"), open_cache(tmp_path, SMALL, ""):
        pass


def test_sparse_rows_round_trip() -> None:
    dense = np.zeros(25088, np.float32)
    dense[[0, 7, 25087]] = [1.5, 1e-30, 3]
    row = SparseRow.from_bytes(SparseRow.from_dense(dense).to_bytes())
    assert row is not None
    assert row.indices.tolist() == [0, 7, 25087]
    assert row.values.tolist() == dense[[0, 7, 25087]].tolist()
    empty = SparseRow.from_bytes(SparseRow.from_dense(np.zeros(25088, np.float32)).to_bytes())
    assert empty is not None and len(empty.values) == 0


def test_labels_follow_the_sorted_persons(tmp_path: Path, data: Path, photos: list[Photo], backbone: Backbone) -> None:
    with open_cache(tmp_path / "cache", SMALL, backbone.source.fingerprint) as cache:
        extract_missing(photos, data, backbone, SMALL, cache)
        save_features(photos, cache, backbone.source, SMALL, tmp_path / "features")
    train = select_split(load_features(tmp_path / "features"), photos, list_persons(photos), "train")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert [photos[row].split for row in train.rows] == ["train"] * 4
    inputs, labels = train.batch(np.array([3, 0]))
    assert (inputs.shape, labels.tolist()) == ((2, 25088), [1, 0])
