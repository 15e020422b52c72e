"""The sparse feature store: what extract writes and train, evaluate and plot read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from celebflow.params import View


@dataclass(frozen=True)
class Features:
    """The features of all views of all photographs, in the order of photos.csv, as rows of a sparse matrix (CSR).

    The V views of a photograph stand together, in the order of the transform's. `offsets` (N · V + 1), `indices` and
    `values` lie in files and come to memory as they are used. `subjects` holds the face that each photograph's
    features are of, by the photograph's path, where one was detected.
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.uint16]
    values: NDArray[np.float32]
    photos: list[Photo]
    origin: FeatureOrigin
    subjects: dict[str, Face]

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def view_count(self) -> int:
        """Return V."""
        return len(self.origin.transform.views)

    def gather(self, rows: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> SparseBatch:
        """Return the features of some photographs, of each its view by number: the same for all, or one for each."""
        places = rows * self.view_count + views
        parts = [slice(self.offsets[place], self.offsets[place + 1]) for place in places]
        return SparseBatch.from_rows(
            [SparseRow(self.indices[part], self.values[part]) for part in parts], self.origin.feature_count
        )


def save_features(photos: Sequence[Photo], cache: FeatureCache, folder: Path) -> None:
    """Write the cached features of `photos` to `folder`, in their order, a photograph at a time.

    Raises CelebflowError when the cache has lost one since it was computed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = [(photo, view) for photo in photos for view in cache.origin.transform.views]
    offsets = np.zeros(len(shown) + 1, np.int64)
    np.cumsum([cache.count(photo, view) for photo, view in shown], out=offsets[1:])
    with (folder / "indices.npy").open("wb") as indices, (folder / "values.npy").open("wb") as values:
        for file, number_type in ((indices, "<u2"), (values, "<f4")):
            header = {"descr": number_type, "fortran_order": False, "shape": (int(offsets[-1]),)}
            np.lib.format.write_array_header_1_0(file, header)
        for photo, view in shown:
            row = _require(cache, photo, view)
            indices.write(row.indices.data)
            values.write(row.values.data)
    np.save(folder / "offsets.npy", offsets)
    cache.origin.save(origin_file(folder))


def _require(cache: FeatureCache, photo: Photo, view: View) -> SparseRow:
    row = cache.get(photo, view)
    if row is None:
        raise CelebflowError(f"The features of {photo.path} went missing from the cache. Run `dvc repro` again.")
    return row


def load_features(folder: Path, photos_file: Path) -> Features:
    """Open what save_features wrote of the photographs that `photos_file` lists.

    Raises CelebflowError when they are not as many.
    """
    photos = load_photos(photos_file)
    offsets, indices, values = (np.load(folder / f"{name}.npy", "r") for name in ("offsets", "indices", "values"))
    subjects = load_subjects(folder / paths.FACES.name)
    features = Features(offsets, indices, values, photos, FeatureOrigin.load(origin_file(folder)), subjects)
    if len(photos) * features.view_count != len(offsets) - 1:
        raise CelebflowError(f"{folder} is not of the photographs in {photos_file}. Run `dvc repro`.")
    return features


@dataclass(frozen=True)
class LabeledFeatures:
    """The photographs of one split: which rows of the features, and whom each shows as an index of the class names."""

    features: Features
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def view_count(self) -> int:
        """Return how many views there are of each photograph."""
        return self.features.view_count

    def gather(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> tuple[SparseBatch, Tensor]:
        """Return the features of B photographs, of each its view by number, and (B,) labels."""
        return self.features.gather(self.rows[positions], views), torch.from_numpy(self.labels[positions])


def select_split(features: Features, class_names: Sequence[str], split: str) -> LabeledFeatures:
    """Pick one split's photographs and label each by its person's place in `class_names`."""
    rows = np.array([row for row, photo in enumerate(features.photos) if photo.split == split], np.int64)
    index = {name: position for position, name in enumerate(class_names)}
    return LabeledFeatures(features, rows, np.array([index[features.photos[row].person] for row in rows], np.int64))
