"""Photographs → features, each computed once: the cache per photograph, and the sparse store that training reads."""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import lmdb
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from celebflow.backbone import FEATURE_COUNT, Backbone, BackboneSource
from celebflow.data import Photo
from celebflow.errors import CelebflowError
from celebflow.images import Transform, decode_photograph

# LMDB reserves address space, not disk: room for six million photographs.
_CACHE_SIZE_BYTES = 64 * 2**30
_CHECKSUM_BYTES = 16
_DECODERS = 2
_DECODED_AHEAD = 8


@dataclass(frozen=True)
class SparseRow:
    """One photograph's features without the zeros that ReLU leaves: (K,) positions, ascending, and (K,) values."""

    indices: NDArray[np.uint16]
    values: NDArray[np.float32]

    @classmethod
    def from_dense(cls, features: NDArray[np.float32]) -> "SparseRow":
        """Keep what is not zero of a (FEATURE_COUNT,) vector."""
        indices = np.flatnonzero(features)
        return cls(indices.astype(np.uint16), features[indices])

    def to_bytes(self) -> bytes:
        """Return a checksum, the positions and the values, little-endian."""
        content = self.indices.astype("<u2").tobytes() + self.values.astype("<f4").tobytes()
        return _checksum(content) + content

    @classmethod
    def from_bytes(cls, stored: bytes) -> "SparseRow | None":
        """Restore what to_bytes returned; None when it is damaged."""
        checksum, content = stored[:_CHECKSUM_BYTES], stored[_CHECKSUM_BYTES:]
        if _checksum(content) != checksum:
            return None
        count = len(content) // 6
        return cls(np.frombuffer(content, "<u2", count), np.frombuffer(content, "<f4", count, 2 * count))


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()


class FeatureCache:
    """Every photograph's features that were ever computed here, below DVC: the store survives killed runs, other
    splits and other branches, and several pipelines may use it at once.

    A key is the SHA-256 of the file's bytes, the transform and the backbone's fingerprint taken together.
    """

    def __init__(self, environment: lmdb.Environment, transform: Transform, fingerprint: str) -> None:
        self._environment = environment
        self._recipe = json.dumps([transform.to_dict(), fingerprint], sort_keys=True)

    def _key(self, photo: Photo) -> bytes:
        return hashlib.sha256(f"{photo.sha256} {self._recipe}".encode()).digest()

    def get(self, photo: Photo) -> SparseRow | None:
        """Return a photograph's features; None when they are not there or damaged."""
        with self._environment.begin() as transaction:
            stored = transaction.get(self._key(photo))
        return None if stored is None else SparseRow.from_bytes(stored)

    def put(self, photo: Photo, row: SparseRow) -> None:
        """Store a photograph's features, at once and for good."""
        try:
            with self._environment.begin(write=True) as transaction:
                transaction.put(self._key(photo), row.to_bytes())
        except lmdb.MapFullError:
            raise CelebflowError(
                f"The feature cache {self._environment.path()} is full ({_CACHE_SIZE_BYTES / 2**30:.0f} GiB). "
                "Remove the folder: what is needed is computed again."
            ) from None


@contextmanager
def open_cache(folder: Path, transform: Transform, fingerprint: str) -> Iterator[FeatureCache]:
    """Open the cache in `folder`, which is made if need be, for one transform and one backbone.

    Raises CelebflowError when the folder holds no cache that can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Without metasync a power cut may cost the last photograph, but never the store.
        environment = lmdb.open(str(folder), map_size=_CACHE_SIZE_BYTES, metasync=False)
    except lmdb.Error as error:
        raise CelebflowError(
            f"The feature cache {folder} cannot be opened ({error}). Remove the folder: it is computed again."
        ) from None
    with environment:
        yield FeatureCache(environment, transform, fingerprint)


def extract_missing(
    photos: Sequence[Photo],
    folder: Path,
    backbone: Backbone,
    transform: Transform,
    cache: FeatureCache,
) -> int:
    """Compute the features of every photograph that the cache lacks, and return how many they were.

    Photographs are read and transformed in other threads while the convolutions run.

    Raises CelebflowError when a file is not the one that prepare saw.
    """
    missing = list({photo.sha256: photo for photo in photos if cache.get(photo) is None}.values())
    with ThreadPoolExecutor(_DECODERS) as pool:
        ahead: deque[Future[NDArray[np.float32]]] = deque()
        waiting = iter(missing)
        for photo in tqdm(missing, "extracting", unit="photograph", disable=None):
            while len(ahead) < _DECODED_AHEAD and (following := next(waiting, None)) is not None:
                ahead.append(pool.submit(_load_image, folder / following.path, following.sha256, transform))
            cache.put(photo, SparseRow.from_dense(backbone.extract(ahead.popleft().result())))
    return len(missing)


def _load_image(path: Path, sha256: str, transform: Transform) -> NDArray[np.float32]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CelebflowError(f"{path} cannot be read ({error.strerror}). Run `dvc repro` to prepare again.") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CelebflowError(f"{path} has changed since it was checked. Run `dvc repro` to prepare again.")
    return transform.apply(decode_photograph(content))


@dataclass(frozen=True)
class Features:
    """The features of all photographs, in the order of photos.csv, as rows of a sparse matrix (CSR).

    `offsets` (N + 1), `indices` and `values` lie in files and come to memory as they are used.
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.uint16]
    values: NDArray[np.float32]
    source: BackboneSource
    transform: Transform

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def dense(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the (len(rows), FEATURE_COUNT) dense features of some photographs."""
        dense = np.zeros((len(rows), FEATURE_COUNT), np.float32)
        for position, row in enumerate(rows):
            part = slice(self.offsets[row], self.offsets[row + 1])
            dense[position, self.indices[part]] = self.values[part]
        return torch.from_numpy(dense)


def save_features(
    photos: Sequence[Photo], cache: FeatureCache, source: BackboneSource, transform: Transform, folder: Path
) -> None:
    """Write the cached features of `photos` to `folder`, in their order, a photograph at a time.

    Raises CelebflowError when the cache has lost one since it was computed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    offsets = np.zeros(len(photos) + 1, np.int64)
    for position, photo in enumerate(photos):
        offsets[position + 1] = offsets[position] + len(_require(cache, photo).indices)
    total = (int(offsets[-1]),)
    indices = np.lib.format.open_memmap(folder / "indices.npy", "w+", np.uint16, total)
    values = np.lib.format.open_memmap(folder / "values.npy", "w+", np.float32, total)
    for position, photo in enumerate(photos):
        row, part = _require(cache, photo), slice(offsets[position], offsets[position + 1])
        indices[part], values[part] = row.indices, row.values
    indices.flush()
    values.flush()
    np.save(folder / "offsets.npy", offsets)
    origin = {"backbone": asdict(source), "transform": transform.to_dict()}
    (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")


def _require(cache: FeatureCache, photo: Photo) -> SparseRow:
    row = cache.get(photo)
    if row is None:
        raise CelebflowError(f"The features of {photo.path} went missing from the cache. Run `dvc repro` again.")
    return row


def load_features(folder: Path) -> Features:
    """Open what save_features wrote."""
    origin = json.loads((folder / "origin.json").read_text(encoding="utf-8"))
    offsets, indices, values = (np.load(folder / f"{name}.npy", "r") for name in ("offsets", "indices", "values"))
    source = BackboneSource(**origin["backbone"])
    return Features(offsets, indices, values, source, Transform.from_dict(origin["transform"]))


@dataclass(frozen=True)
class LabelledFeatures:
    """The photographs of one split: which rows of the features, and whom each shows as an index of the class names."""

    features: Features
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return (B, FEATURE_COUNT) features and (B,) labels."""
        return self.features.dense(self.rows[positions]), torch.from_numpy(self.labels[positions])


def select_split(
    features: Features, photos: Sequence[Photo], class_names: Sequence[str], split: str
) -> LabelledFeatures:
    """Pick one split's photographs and label each by its person's place in `class_names`."""
    rows = np.array([row for row, photo in enumerate(photos) if photo.split == split], np.int64)
    index = {name: position for position, name in enumerate(class_names)}
    return LabelledFeatures(features, rows, np.array([index[photos[row].person] for row in rows], np.int64))
