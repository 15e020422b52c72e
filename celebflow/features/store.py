"""The sparse feature store, which extract writes and train, evaluate and plot read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebflow import paths
from celebflow.data.photos import Photo, load_photos
from celebflow.errors import CelebflowError
from celebflow.features.cache import FeatureCache
from celebflow.features.face_table import load_subjects
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin, origin_file
from celebflow.features.sparse import SparseBatch, SparseRow


@dataclass(frozen=True)
class Features:
    """The features of all views of all photographs, in the order of photos.csv, as rows of a sparse matrix (CSR).

    The V views of a photograph are consecutive rows, in the order of the transform's views. `offsets` (N · V + 1),
    `indices` and `values` are memory-mapped. `subjects` contains, by path, the face of each photograph's subject where
    one was detected.
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.uint16]
    values: NDArray[np.float32]
    photos: list[Photo]
    origin: FeatureOrigin
    subjects: dict[str, Face]

    @property
    def view_count(self) -> int:
        """Return V."""
        return len(self.origin.transform.views)

    def gather(self, rows: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> SparseBatch:
        """Return the features of B photographs, in the view of this number: one for all, or (B,) numbers."""
        places = rows * self.view_count + views
        parts = [slice(self.offsets[place], self.offsets[place + 1]) for place in places]
        found = [SparseRow(self.indices[part], self.values[part]) for part in parts]
        return SparseBatch.from_rows(found, self.origin.feature_count)


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
        for file, number_type in ((indices, "<u2"), (values, "<f4")):
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
    cache.origin.save(origin_file(folder))


def load_features(folder: Path, photos_file: Path) -> Features:
    """Open what save_features and save_faces wrote about the photographs in `photos_file`.

    Raises CelebflowError when an earlier version of celebflow wrote it, or for another number of photographs.
    """
    photos = load_photos(photos_file)
    origin = FeatureOrigin.load(origin_file(folder))
    offsets, indices, values = (_map(folder / f"{name}.npy") for name in ("offsets", "indices", "values"))
    subjects = load_subjects(folder / paths.FACES.name)
    features = Features(offsets, indices, values, photos, origin, subjects)
    if len(photos) * features.view_count != len(offsets) - 1:
        raise CelebflowError(f"{folder} does not match the photographs in {photos_file}. Run `dvc repro`.")
    return features


def _map(file: Path) -> Any:
    try:
        return np.load(file, "r")
    except (EOFError, ValueError) as error:
        raise CelebflowError(f"{file} is damaged ({error}). Run `dvc repro` to make it again.") from None


@dataclass(frozen=True)
class LabeledFeatures:
    """The photographs of one split: (N,) rows of the features, and (N,) labels, which are indices of class names."""

    features: Features
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def view_count(self) -> int:
        """Return the number of views of each photograph."""
        return self.features.view_count

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> tuple[SparseBatch, Tensor]:
        """Return the features of B photographs, as Features.gather does, and their (B,) labels."""
        return self.features.gather(self.rows[positions], views), torch.from_numpy(self.labels[positions])


def select_split(features: Features, class_names: Sequence[str], split: str) -> LabeledFeatures:
    """Select the photographs of one split, and label each with the position of its person in `class_names`."""
    position_of = {name: position for position, name in enumerate(class_names)}
    rows = [row for row, photo in enumerate(features.photos) if photo.split == split]
    labels = [position_of[features.photos[row].person] for row in rows]
    return LabeledFeatures(features, np.array(rows, np.int64), np.array(labels, np.int64))
