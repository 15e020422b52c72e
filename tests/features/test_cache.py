"""The cache survives damage, killed prunes and full disks, and keeps what is needed."""

import os
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest

from celebflow.backbone.vgg19 import BackboneSource
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.features import cache as cache_module
from celebflow.features.cache import measure_cache, open_cache, prune_cache
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin
from celebflow.features.sparse import SparseRow
from celebflow.features.transform import Transform
from celebflow.params import FaceParams
from tests.features.conftest import SOURCE

Extract = Callable[[list[Photo], Transform], int]
SMALL = Transform(32)
ORIGIN = FeatureOrigin(SOURCE, SMALL, "ncnn")
DETECTING = Transform(32, FaceParams(crop="detect", margin=0.1, align=False))


def test_features_are_restored_and_other_origins_have_none(
    tmp_path: Path, photos: list[Photo], extract: Extract
) -> None:
    row = SparseRow(np.array([0, 7, 25087], np.uint16), np.array([1.5, 1e-30, 3], np.float32))
    with open_cache(tmp_path / "cache", ORIGIN) as cache:
        cache.put(photos[0], {"original": row}, [])
        restored = cache.get(photos[0], "original")
        assert restored is not None
        np.testing.assert_array_equal(restored.indices, row.indices)
        np.testing.assert_array_equal(restored.values, row.values)
        assert cache.count(photos[0], "original") == 3
        assert cache.get(photos[1], "original") is None
        assert cache.count(photos[1], "original") == 0
    others = (
        FeatureOrigin(SOURCE, Transform(64), "ncnn"),
        FeatureOrigin(BackboneSource("another", False, "another"), SMALL, "ncnn"),
        FeatureOrigin(SOURCE, SMALL, "torch"),
    )
    for other in others:
        with open_cache(tmp_path / "cache", other) as cache:
            assert cache.get(photos[0], "original") is None


def test_damaged_features_are_computed_again(tmp_path: Path, photos: list[Photo], extract: Extract) -> None:
    extract(photos, SMALL)
    with open_cache(tmp_path / "cache", ORIGIN) as cache:
        before = cache.get(photos[0], "original")
    with lmdb.open(str(tmp_path / "cache"), map_size=2**30) as store, store.begin(write=True) as transaction:
        for key, value in list(transaction.cursor()):
            transaction.put(key, value[:-1] + bytes([value[-1] ^ 1]))
    with open_cache(tmp_path / "cache", ORIGIN) as cache:
        assert cache.get(photos[0], "original") is None
    assert extract(photos, SMALL) == 8
    with open_cache(tmp_path / "cache", ORIGIN) as cache:
        after = cache.get(photos[0], "original")
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.values, after.values)


def test_a_file_that_is_not_a_cache_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(CelebflowError, match=r"cannot be opened.*Remove the folder"), open_cache(tmp_path, ORIGIN):
        pass


def test_a_truncated_cache_is_a_clear_error(tmp_path: Path, photos: list[Photo], extract: Extract) -> None:
    extract(photos, SMALL)
    os.truncate(tmp_path / "cache" / "data.mdb", 3 * 4096)
    with pytest.raises(CelebflowError, match="truncated"), open_cache(tmp_path / "cache", ORIGIN):
        pass


def test_a_full_disk_is_a_clear_error(photos: list[Photo], extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_CACHE_SIZE_BYTES", 2**16)
    with pytest.raises(CelebflowError, match=r"cannot be written.*`celebflow cache prune --all`"):
        extract(photos, SMALL)


def test_a_prune_that_was_killed_between_its_steps_loses_nothing(
    tmp_path: Path, photos: list[Photo], extract: Extract
) -> None:
    extract(photos, SMALL)
    (tmp_path / "cache").rename(tmp_path / "cache.dropped")
    with open_cache(tmp_path / "cache", ORIGIN) as cache:
        assert all(cache.get(photo, "original") is not None for photo in photos)


def test_a_prune_keeps_all_views_of_the_photographs_that_are_needed(
    tmp_path: Path, photos: list[Photo], extract: Extract
) -> None:
    origin = FeatureOrigin(SOURCE, Transform(32, views=("original", "mirrored", "closer")), "ncnn")
    fewer = FeatureOrigin(SOURCE, Transform(32, views=("original", "closer")), "ncnn")
    extract(photos, origin.transform)
    prune_cache(tmp_path / "cache", photos[:3], origin)
    assert measure_cache(tmp_path / "cache").entries == 9
    with open_cache(tmp_path / "cache", origin) as cache:
        assert [cache.is_complete(photo) for photo in photos] == [True] * 3 + [False] * 5
    prune_cache(tmp_path / "cache", photos[:3], fewer)
    assert measure_cache(tmp_path / "cache").entries == 6
    with open_cache(tmp_path / "cache", origin) as cache:
        assert [cache.missing_views(photo) for photo in photos[:3]] == [["mirrored"]] * 3


def test_a_prune_keeps_the_faces_of_the_photographs_that_are_needed(
    tmp_path: Path, photos: list[Photo], extract: Extract, faces: dict[str, list[Face]]
) -> None:
    origin = FeatureOrigin(SOURCE, DETECTING, "ncnn")
    extract(photos, DETECTING)
    prune_cache(tmp_path / "cache", photos[:3], origin)
    assert measure_cache(tmp_path / "cache").entries == 6
    with open_cache(tmp_path / "cache", origin) as cache:
        assert [cache.get_faces(photo) for photo in photos[:3]] == [faces[photo.path] for photo in photos[:3]]
        assert [cache.get_faces(photo) for photo in photos[3:]] == [None] * 5


def test_no_cache_has_no_size_and_is_not_pruned(tmp_path: Path, photos: list[Photo]) -> None:
    prune_cache(tmp_path / "cache", photos, ORIGIN)
    size = measure_cache(tmp_path / "cache")
    assert (size.entries, size.disk_bytes) == (0, 0)
    assert not (tmp_path / "cache").exists()
