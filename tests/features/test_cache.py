"""The cache survives damage, killed prunes and full disks, and keeps what is needed."""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from filelock import FileLock, Timeout

from celebflow.backbone.source import BackboneSource
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.features import cache as cache_module
from celebflow.features.cache import empty_cache, is_shared, measure_cache, open_cache, prune_cache
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
        cache.put(photos[0], {SMALL: row}, [])
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
    with pytest.raises(CelebflowError, match=r"cannot be written.*CELEBFLOW_CACHE.*`celebflow cache prune --all`"):
        extract(photos, SMALL)


def test_the_lock_file_has_its_disk_space_before_it_is_mapped(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", ORIGIN):  # a hole in it would end the process on a full disk (SIGBUS)
        lock = (tmp_path / "cache" / "lock.mdb").stat()
    assert lock.st_blocks * 512 >= lock.st_size > 0


def test_a_disk_without_space_for_the_lock_file_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with (
        pytest.raises(CelebflowError, match=r"lock\.mdb cannot be written.*Free some space.*CELEBFLOW_CACHE"),
        open_cache(tmp_path / "cache", ORIGIN),
    ):
        pass


def test_a_limit_of_address_space_is_no_reason_to_remove_the_cache(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**35, before[1]))  # less than LMDB reserves
    try:
        with pytest.raises(CelebflowError, match="ulimit -v") as caught, open_cache(tmp_path / "cache", ORIGIN):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert str(tmp_path / "cache") in str(caught.value)
    assert "emove" not in str(caught.value)


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
        missing = origin.transform.only("mirrored")
        assert [cache.find_missing(photo) for photo in photos[:3]] == [[missing]] * 3


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


def test_emptying_leaves_nothing_that_comes_back(tmp_path: Path, photos: list[Photo], extract: Extract) -> None:
    extract(photos, SMALL)
    for leftover in ("cache.dropped", "cache.kept"):  # of a prune that was killed
        shutil.copytree(tmp_path / "cache", tmp_path / leftover)
    empty_cache(tmp_path / "cache")
    assert not list(tmp_path.glob("cache*/"))
    with open_cache(tmp_path / "cache", ORIGIN) as cache:
        assert cache.get(photos[0], "original") is None


@pytest.mark.parametrize("everything", [False, True])
def test_a_folder_with_other_files_is_not_removed(
    tmp_path: Path, photos: list[Photo], extract: Extract, everything: bool
) -> None:
    extract(photos, SMALL)
    (tmp_path / "cache" / "thesis.txt").touch()
    with pytest.raises(CelebflowError, match=r"cache also holds thesis\.txt.*CELEBFLOW_CACHE"):
        if everything:
            empty_cache(tmp_path / "cache")
        else:
            prune_cache(tmp_path / "cache", photos[:3], ORIGIN)
    assert (tmp_path / "cache" / "thesis.txt").exists()
    assert measure_cache(tmp_path / "cache").entries == 8


def test_a_linked_cache_is_pruned_where_it_is(tmp_path: Path, photos: list[Photo], extract: Extract) -> None:
    extract(photos, SMALL)
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").rename(tmp_path / "disk" / "cache")
    (tmp_path / "cache").symlink_to(tmp_path / "disk" / "cache")
    prune_cache(tmp_path / "cache", photos[:3], ORIGIN)
    assert (tmp_path / "cache").is_symlink()
    assert measure_cache(tmp_path / "disk" / "cache").entries == 3
    empty_cache(tmp_path / "cache")
    assert not (tmp_path / "disk" / "cache").exists()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path, photos: list[Photo]) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    with (
        pytest.raises(CelebflowError, match=r"file/cache cannot be used \(.*CELEBFLOW_CACHE"),
        open_cache(folder, ORIGIN),
    ):
        pass
    with pytest.raises(CelebflowError, match="CELEBFLOW_CACHE"):
        prune_cache(folder, photos, ORIGIN)
    with pytest.raises(CelebflowError, match="CELEBFLOW_CACHE"):
        empty_cache(folder)


def test_a_cache_that_may_only_be_read_is_not_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise lmdb.ReadonlyError("Permission denied")

    monkeypatch.setattr(lmdb, "open", refuse)  # nothing is read-only to root
    with pytest.raises(CelebflowError, match="Permission denied") as raised, open_cache(tmp_path / "cache", ORIGIN):
        pass
    assert "CELEBFLOW_CACHE" in str(raised.value) and "Remove" not in str(raised.value)


def test_a_cache_is_shared_when_another_project_has_opened_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "owner" / ".celebflow" / "features"
    other = tmp_path / "other"
    for folder in (own.parent, other):
        folder.mkdir(parents=True)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path / "owner")
    with open_cache(own, ORIGIN):
        pass
    assert not is_shared(own)
    monkeypatch.chdir(other)
    assert is_shared(own)
    with open_cache(own, ORIGIN):
        pass
    monkeypatch.chdir(tmp_path / "owner")
    assert is_shared(own)
    assert is_shared(Path("..") / "elsewhere")


def test_projects_that_share_a_cache_open_measure_and_prune_it_one_after_the_other(
    tmp_path: Path, photos: list[Photo], extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(photos, SMALL)
    folder = tmp_path / "cache"
    locked = []

    def watch(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with pytest.raises(Timeout), FileLock(tmp_path / "cache.lock", timeout=0):
                pass
            locked.append(function)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(lmdb, "open", watch(lmdb.open))
    monkeypatch.setattr(shutil, "rmtree", watch(shutil.rmtree))
    with open_cache(folder, ORIGIN):
        assert len(locked) == 1
    measure_cache(folder)
    assert len(locked) == 2
    prune_cache(folder, photos[:3], ORIGIN)
    assert len(locked) == 5, "opened both, and removed one"
    empty_cache(folder)
    assert len(locked) == 6
