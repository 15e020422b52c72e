"""The sparse feature store, which extract writes and train, evaluate and plot read."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from celebflow import paths
from celebflow.data.photos import Photo, load_photos
from celebflow.errors import CelebflowError
from celebflow.features.cache import FeatureCache
from celebflow.features.face_table import load_subjects
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin, origin_file
from celebflow.features.sparse import SparseBatch, SparseRow, choose_position_type

if TYPE_CHECKING:
    from torch import Tensor

_Number = TypeVar("_Number", bound=np.number)
_PHOTOGRAPHS = "photographs.sha256"  # of the paths and contents of the photographs whose features are in the folder


@dataclass(frozen=True)
class Features:
    """The features of all views of all photographs, in the order of photos.csv, as rows of a sparse matrix (CSR).

    The V views of a photograph are consecutive rows, in the order of the transform's views. `offsets` (N · V + 1),
    `indices` and `values` are memory-mapped. `subjects` contains, by path, the face of each photograph's subject where
    one was detected.
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.unsignedinteger]
    values: NDArray[np.float32]
    photos: list[Photo]
    origin: FeatureOrigin
    subjects: dict[str, Face]

    @property
    def view_count(self) -> int:
        """Return V."""
        return len(self.origin.transform.views)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Return the row of each photograph, by path."""
        return {photo.path: row for row, photo in enumerate(self.photos)}

    def find_rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of the photographs of a split, ascending."""
        return np.array([row for row, photo in enumerate(self.photos) if photo.split == split], np.int64)

    def locate(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of photographs, by their paths.

        Raises CelebflowError when one is not among them, as where a table is that of other photographs.
        """
        try:
            return np.array([self.row_of[name] for name in names], np.int64)
        except KeyError as error:
            raise CelebflowError(
                f"{error.args[0]} is not among the photographs of {paths.PHOTOS}, but another table has it. Run "
                "`dvc repro`."
            ) from None

    def find_sha256(self, name: str) -> str:
        """Return the SHA-256 of the photograph at a path, from which its features were made, as `locate` finds it."""
        (row,) = self.locate([name])
        return self.photos[int(row)].sha256

    def gather(self, rows: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> SparseBatch:
        """Return the features of B photographs, in the view of this number: one for all, or (B,) numbers.

        Raises CelebflowError when the files hold what no features can be.
        """
        places = rows * self.view_count + views
        return self.gather_between(self.offsets[places], self.offsets[places + 1])

    def gather_between(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> SparseBatch:
        """Return as B rows the features that are stored from (B,) positions to others, as `gather` does."""
        parts = [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]
        found = [SparseRow(self.indices[part], self.values[part]) for part in parts]
        batch = SparseBatch.from_rows(found, self.origin.feature_count)
        if batch.columns.max(initial=0) >= batch.column_count:
            raise _make_damage_error(paths.FEATURES / "indices.npy", "a position is beyond the last feature")
        if not np.isfinite(batch.values).all():
            raise _make_damage_error(paths.FEATURES / "values.npy", "a feature is not finite")
        return batch


def save_features(photos: Sequence[Photo], cache: FeatureCache, folder: Path) -> None:
    """Write the cached features of `photos` to `folder`, in their order.

    Raises CelebflowError when the cache lacks some of them, or holds some that are not finite.
    """
    views = [(photo, view) for photo in photos for view in cache.origin.transform.views]
    offsets = np.zeros(len(views) + 1, np.int64)
    np.cumsum([cache.count(photo, view) for photo, view in views], out=offsets[1:])
    with (
        paths.write_whole(folder / "indices.npy") as indices_file,
        paths.write_whole(folder / "values.npy") as values_file,
        indices_file.open("wb") as indices,
        values_file.open("wb") as values,
    ):
        position_type = choose_position_type(cache.origin.feature_count).newbyteorder("<")
        for file, number_type in ((indices, position_type.str), (values, "<f4")):
            header = {"descr": number_type, "fortran_order": False, "shape": (int(offsets[-1]),)}
            np.lib.format.write_array_header_1_0(file, header)
        for photo, view in views:
            if (row := cache.get(photo, view)) is None:
                raise CelebflowError(f"The features of {photo.path} are missing from the cache. Run `dvc repro` again.")
            if not np.isfinite(row.values).all():  # an older celebflow cached them
                raise CelebflowError(
                    f"The features of {photo.path} are not finite. Set backbone.weights to other weights, and run "
                    "`dvc repro`."
                )
            indices.write(row.indices.data)
            values.write(row.values.data)
    with paths.write_whole(folder / "offsets.npy") as offsets_file, offsets_file.open("wb") as file:
        np.save(file, offsets)
    save_identity(photos, folder)
    cache.origin.save(origin_file(folder))


def save_identity(photos: Sequence[Photo], folder: Path) -> None:
    """Write whose features are in `folder`, and in which order: load_features refuses those of other photographs."""
    with paths.write_whole(folder / _PHOTOGRAPHS) as part:
        part.write_text(_identify(photos), encoding="utf-8")


def _identify(photos: Sequence[Photo]) -> str:
    """Return what tells these photographs, in this order, from others."""
    return hashlib.sha256("".join(f"{photo.sha256} {photo.path}\n" for photo in photos).encode()).hexdigest()


def load_features(folder: Path, photos_file: Path) -> Features:
    """Open what save_features and save_faces wrote about the photographs in `photos_file`.

    Raises CelebflowError when an earlier version of celebflow wrote it, when it is damaged, or for other photographs.
    """
    photos = load_photos(photos_file)
    origin = FeatureOrigin.load(origin_file(folder))
    offsets = _map(folder / "offsets.npy", np.dtype(np.int64))
    indices = _map(folder / "indices.npy", choose_position_type(origin.feature_count))
    values = _map(folder / "values.npy", np.dtype(np.float32))
    subjects = load_subjects(folder / paths.FACES.name)
    features = Features(offsets, indices, values, photos, origin, subjects)
    identity = folder / _PHOTOGRAPHS
    is_same = identity.exists() and identity.read_bytes() == _identify(photos).encode()
    if not is_same or len(photos) * features.view_count != len(offsets) - 1:
        raise CelebflowError(f"{folder} does not match the photographs in {photos_file}. Run `dvc repro`.")
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or not offsets[-1] == len(indices) == len(values):
        raise _make_damage_error(folder / "offsets.npy", "it does not match indices.npy and values.npy")
    return features


class _FeaturesOnDisk(Features):
    """Features that a pickle takes along by the names of their files."""

    def __reduce__(self) -> tuple[object, ...]:
        return load_features, (paths.FEATURES.resolve(), paths.PHOTOS.resolve())


def share_features(features: Features, *, shared_disk: bool) -> Features:
    """Return the project's features as other machines take them, which map them from a disk that they share.

    Without one, their arrays go along; pickles take those without a copy.
    """
    if not shared_disk:
        return features
    return _FeaturesOnDisk(*(getattr(features, field.name) for field in fields(Features)))


def _map(file: Path, number_type: np.dtype[_Number]) -> NDArray[_Number]:
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except (
        ValueError,
        TypeError,
        OverflowError,
        SyntaxError,
        TokenError,
    ) as error:  # NumPy parses its header as Python
        raise _make_damage_error(file, str(error)) from None
    if array.dtype != number_type or array.ndim != 1:
        raise _make_damage_error(file, f"its values are {array.dtype}, its shape {array.shape}")
    return array.view(np.ndarray)  # mapped as before; np.memmap takes ten times as long to slice, and pickles copy it


def _make_damage_error(file: Path, reason: str) -> CelebflowError:
    # DVC does not look into a file of the same size and time, so that without --force it would do nothing.
    return CelebflowError(
        f"{file} is damaged ({reason}). Run `dvc repro --force --single-item extract` to make it again."
    )


@dataclass(frozen=True)
class LabeledFeatures:
    """The photographs of one split: (N,) rows of the features, and their labels.

    Labels are (N,) indices of class names, or (N, A) answers for attributes.
    """

    features: Features
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def view_count(self) -> int:
        """Return the number of views of each photograph."""
        return self.features.view_count

    def select(self, chosen: NDArray[np.bool_]) -> "LabeledFeatures":
        """Return the photographs that are true among the (N,)."""
        return LabeledFeatures(self.features, self.rows[chosen], self.labels[chosen])

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> tuple[SparseBatch, "Tensor"]:
        """Return the features of B photographs, as Features.gather does, and their labels."""
        import torch  # as in sparse.py

        return self.features.gather(self.rows[positions], views), torch.from_numpy(self.labels[positions])


def select_split(features: Features, class_names: Sequence[str], split: str) -> LabeledFeatures:
    """Select the photographs of one split, and label them as label_rows does."""
    return label_rows(features, class_names, features.find_rows(split))


def label_rows(features: Features, class_names: Sequence[str], rows: NDArray[np.int64]) -> LabeledFeatures:
    """Label the photographs in these rows, each with the position of its person in `class_names`."""
    position_of = {name: position for position, name in enumerate(class_names)}
    labels = [position_of[features.photos[row].person] for row in rows]
    return LabeledFeatures(features, rows, np.array(labels, np.int64))
