"""Stored features come back row by row, view by view, with their photographs, faces and labels."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebflow import paths
from celebflow.data.photos import Photo, list_people, save_photos
from celebflow.errors import CelebflowError
from celebflow.features.cache import open_cache
from celebflow.features.extraction import collect_faces
from celebflow.features.face_table import save_faces
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin, origin_file
from celebflow.features.sparse import SparseRow
from celebflow.features.store import Features, load_features, save_features, select_split, share_features
from celebflow.features.transform import Transform
from celebflow.params import FaceParams
from tests.features.conftest import SOURCE, CountingRuntime

Extract = Callable[[list[Photo], Transform], int]
VIEWS = Transform(32, views=("original", "closer", "mirrored"))


@pytest.fixture
def store(tmp_path: Path, photos: list[Photo], extract: Extract) -> Callable[[Transform], Features]:
    """Return a function that extracts, saves and loads features in tmp_path/features."""

    def run(transform: Transform) -> Features:
        extract(photos, transform)
        with open_cache(tmp_path / "cache", FeatureOrigin(SOURCE, transform, "ncnn")) as cache:
            save_features(photos, cache, tmp_path / "features")
            save_faces(collect_faces(photos, cache), tmp_path / "features" / "faces.csv")
        save_photos(photos, tmp_path / "photos.csv")
        return load_features(tmp_path / "features", tmp_path / "photos.csv")

    return run


@pytest.fixture
def expected(decoded: list[Image.Image]) -> NDArray[np.float32]:
    """Return the (photographs, views, 25088) features of the counting runtime."""
    runtime = CountingRuntime()
    rows = []
    for photograph in decoded:
        rows.append([runtime.extract(image) for image in VIEWS.make_inputs(photograph, None)])
    return np.array(rows)


def test_views_of_a_photograph_are_consecutive_rows(
    photos: list[Photo], store: Callable[[Transform], Features], expected: NDArray[np.float32]
) -> None:
    features = store(VIEWS)
    assert (len(features.photos), features.view_count, len(features.offsets)) == (8, 3, 25)
    assert features.photos == photos
    assert features.origin == FeatureOrigin(SOURCE, VIEWS, "ncnn")
    stored = np.split(features.values, features.offsets[1:-1])
    for values, row in zip(stored, expected.reshape(24, -1), strict=True):
        np.testing.assert_array_equal(values, row[row != 0])


def test_rows_are_gathered_in_one_view_or_a_view_each(
    store: Callable[[Transform], Features], expected: NDArray[np.float32]
) -> None:
    features = store(VIEWS)
    rows = np.array([5, 0, 7])
    for view in range(3):
        np.testing.assert_array_equal(features.gather(rows, view).to_dense(), expected[rows, view])
    mixed = features.gather(rows, np.array([2, 0, 1])).to_dense()
    np.testing.assert_array_equal(mixed, expected[rows, [2, 0, 1]])


def test_photographs_are_located_by_their_paths_and_a_missing_one_is_named(
    photos: list[Photo], store: Callable[[Transform], Features]
) -> None:
    features = store(Transform(32))
    np.testing.assert_array_equal(features.locate(photos[row].path for row in (5, 0)), [5, 0])
    with pytest.raises(CelebflowError, match=r"Ann/nowhere\.jpg is not among.*dvc repro"):
        features.locate([photos[0].path, "Ann/nowhere.jpg"])


def test_a_split_has_its_photographs_and_labels_in_the_order_of_the_people(
    store: Callable[[Transform], Features], expected: NDArray[np.float32]
) -> None:
    features = store(VIEWS)
    train = select_split(features, list_people(features.photos), "train")
    assert (len(train), train.view_count) == (4, 3)
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert [features.photos[row].split for row in train.rows] == ["train"] * 4
    inputs, labels = train.gather(np.array([3, 0]), np.array([0, 2]))
    assert labels.tolist() == [1, 0]
    np.testing.assert_array_equal(inputs.to_dense(), expected[train.rows[[3, 0]], [0, 2]])


def test_subjects_are_loaded_where_faces_are_detected(
    store: Callable[[Transform], Features], faces: dict[str, list[Face]]
) -> None:
    assert store(Transform(32)).subjects == {}
    detecting = Transform(32, FaceParams(crop="detect", margin=0.1, align=False))
    assert store(detecting).subjects == {path: found[0] for path, found in faces.items() if found}


def test_features_that_the_cache_lacks_are_a_clear_error(tmp_path: Path, photos: list[Photo], extract: Extract) -> None:
    extract(photos[:-1], VIEWS)
    origin = FeatureOrigin(SOURCE, VIEWS, "ncnn")
    refusal = pytest.raises(CelebflowError, match=f"{photos[-1].path}.*`dvc repro`")
    with open_cache(tmp_path / "cache", origin) as cache, refusal:
        save_features(photos, cache, tmp_path / "features")


def test_features_that_are_not_finite_are_not_stored(tmp_path: Path, photos: list[Photo], extract: Extract) -> None:
    transform = Transform(32)
    extract(photos, transform)
    refusal = pytest.raises(CelebflowError, match=rf"{photos[3].path} are not finite.*backbone\.weights")
    with open_cache(tmp_path / "cache", FeatureOrigin(SOURCE, transform, "ncnn")) as cache:
        row = SparseRow.from_dense(np.array([0, np.nan], np.float32))
        cache.put(photos[3], {transform: row}, [])
        with refusal:
            save_features(photos, cache, tmp_path / "features")


def test_features_of_other_photographs_are_refused(
    tmp_path: Path, photos: list[Photo], store: Callable[[Transform], Features]
) -> None:
    store(VIEWS)
    save_photos(photos[:-1], tmp_path / "fewer.csv")
    with pytest.raises(CelebflowError, match=r"features .*fewer\.csv.*`dvc repro`"):
        load_features(tmp_path / "features", tmp_path / "fewer.csv")


@pytest.mark.parametrize(
    "change",
    [
        lambda first, second: [second, first],  # as after one of them was moved to another folder
        lambda first, second: [replace(first, sha256=second.sha256), second],
        lambda first, second: [replace(first, path="a.jpg", person="Zoe"), second],  # whose face is known by its path
    ],
)
def test_features_of_as_many_other_photographs_are_refused(
    tmp_path: Path,
    photos: list[Photo],
    store: Callable[[Transform], Features],
    change: Callable[[Photo, Photo], list[Photo]],
) -> None:
    store(VIEWS)
    save_photos([*change(*photos[:2]), *photos[2:]], tmp_path / "others.csv")
    with pytest.raises(CelebflowError, match=r"features .*others\.csv.*`dvc repro`"):
        load_features(tmp_path / "features", tmp_path / "others.csv")


def test_features_fit_a_new_split_of_their_photographs(
    tmp_path: Path, photos: list[Photo], store: Callable[[Transform], Features]
) -> None:
    store(VIEWS)
    save_photos([replace(photo, split="test") for photo in photos], tmp_path / "others.csv")
    assert len(load_features(tmp_path / "features", tmp_path / "others.csv").find_rows("test")) == len(photos)


def test_features_of_an_earlier_version_are_refused_with_the_remedy(
    tmp_path: Path, store: Callable[[Transform], Features]
) -> None:
    store(VIEWS)
    origin = origin_file(tmp_path / "features")
    origin.write_text(origin.read_text(encoding="utf-8").replace("center", "centre"), encoding="utf-8")
    (tmp_path / "features" / "faces.csv").unlink()  # which earlier versions did not write
    with pytest.raises(CelebflowError, match="older celebflow.*`dvc repro`"):
        load_features(tmp_path / "features", tmp_path / "photos.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("indices", np.uint16(60000)),
        ("values", np.float32(np.nan)),
        ("values", np.float32(np.inf)),
        ("offsets", np.int64(10**9)),
        ("offsets", np.int64(-1)),
    ],
)
def test_damaged_content_is_told_with_the_file_and_the_remedy(
    tmp_path: Path, store: Callable[[Transform], Features], name: str, content: np.generic
) -> None:
    features = store(VIEWS)
    file = tmp_path / "features" / f"{name}.npy"
    array = np.load(file)
    array[2] = content
    np.save(file, array)
    with pytest.raises(CelebflowError, match=rf"features/{name}\.npy is damaged.*`dvc repro --force"):
        load_features(tmp_path / "features", tmp_path / "photos.csv").gather(np.arange(len(features.photos)))


@pytest.mark.parametrize(
    ("old", "new"), [(b"{", b"("), (b"'", b"("), (b"}", b"("), (b"<f4", b"<i4"), (b",)", b",1"), (b"\x93", b"P")]
)
def test_a_damaged_header_is_told_with_the_file_and_the_remedy(
    tmp_path: Path, store: Callable[[Transform], Features], old: bytes, new: bytes
) -> None:
    store(VIEWS)
    file = tmp_path / "features" / "values.npy"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content.replace(old, new, 1))
    with pytest.raises(CelebflowError, match=r"features/values\.npy is damaged.*`dvc repro --force"):
        load_features(tmp_path / "features", tmp_path / "photos.csv")


@pytest.mark.parametrize("shared_disk", [False, True])
def test_features_go_to_other_machines_without_a_copy_of_their_arrays(
    tmp_path: Path, store: Callable[[Transform], Features], monkeypatch: pytest.MonkeyPatch, shared_disk: bool
) -> None:
    features = store(VIEWS)
    monkeypatch.setattr(paths, "FEATURES", tmp_path / "features")
    monkeypatch.setattr(paths, "PHOTOS", tmp_path / "photos.csv")
    buffers: list[pickle.PickleBuffer] = []
    pickled = cloudpickle.dumps(share_features(features, shared_disk=shared_disk), 5, buffer_callback=buffers.append)
    names = "offsets", "indices", "values"
    size = sum(getattr(features, name).nbytes for name in names)
    assert sum(buffer.raw().nbytes for buffer in buffers) == (0 if shared_disk else size)
    assert features.indices.nbytes > len(pickled)
    found: Features = cloudpickle.loads(pickled, buffers=buffers)
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), getattr(features, name))
    assert (found.photos, found.origin, found.subjects) == (features.photos, features.origin, features.subjects)
