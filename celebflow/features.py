"""Photographs → features, each computed once: the cache per photograph, and the sparse store that training reads."""

import hashlib
import json
import shutil
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import lmdb
import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from celebflow.backbone import FEATURE_COUNT, BackboneSource, load_backbone, load_backbone_source
from celebflow.data import Photo, load_photos
from celebflow.errors import CelebflowError
from celebflow.images import Transform, decode_photograph
from celebflow.params import ComputeParams, ExtractParams
from celebflow.runtimes import RuntimeName, build_runtime, choose_runtime
from celebflow.sparse import SparseBatch, SparseRow

# LMDB reserves address space, not disk: room for six million photographs.
_CACHE_SIZE_BYTES = 64 * 2**30
# Count up whenever a change of the code gives the same photograph other features, or stores them otherwise.
_CODE_VERSION = 2
_CHECKSUM_BYTES = 4
_BYTES_A_FEATURE = 2 + 4


@dataclass(frozen=True)
class FeatureOrigin:
    """What, beside the photographs, determines features; stored with them."""

    backbone: BackboneSource
    transform: Transform
    runtime: RuntimeName

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "FeatureOrigin":
        """Read what `save` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        backbone, transform = BackboneSource(**values["backbone"]), Transform.from_dict(values["transform"])
        return cls(backbone, transform, values["runtime"])


class FeatureCache:
    """Every photograph's features that were ever computed here, below DVC: the store survives killed runs, other
    splits and other branches, and several pipelines may use it at once.

    A key is the SHA-256 of the file's bytes, the transform, the backbone's fingerprint and the runtime together.
    """

    def __init__(self, environment: lmdb.Environment, origin: FeatureOrigin) -> None:
        self.origin = origin
        self._environment = environment
        recipe = [_CODE_VERSION, origin.transform.to_dict(), origin.backbone.fingerprint, origin.runtime]
        self._recipe = json.dumps(recipe, sort_keys=True)

    def key(self, photo: Photo) -> bytes:
        """Return what a photograph's features are stored under."""
        return hashlib.sha256(f"{photo.sha256} {self._recipe}".encode()).digest()

    def get(self, photo: Photo) -> SparseRow | None:
        """Return a photograph's features; None when they are not there or damaged."""
        with self._environment.begin() as transaction:
            stored = transaction.get(self.key(photo))
        return None if stored is None else _unpack(stored)

    def count(self, photo: Photo) -> int:
        """Return how many of a photograph's features are not zero, by the size of the entry alone."""
        with self._environment.begin(buffers=True) as transaction:
            stored = transaction.get(self.key(photo))
            return 0 if stored is None else (len(stored) - _CHECKSUM_BYTES) // _BYTES_A_FEATURE

    def put(self, photo: Photo, row: SparseRow) -> None:
        """Store a photograph's features, at once and for good."""
        try:
            with self._environment.begin(write=True) as transaction:
                transaction.put(self.key(photo), _pack(row))
        except lmdb.Error as error:
            raise CelebflowError(
                f"The feature cache {self._environment.path()} cannot be written ({error}). Is the disk full? "
                "`celebflow cache prune --all` makes room: what is needed is computed again."
            ) from None


def _pack(row: SparseRow) -> bytes:
    """Return a checksum, the positions and the values, little-endian."""
    content = row.indices.astype("<u2").tobytes() + row.values.astype("<f4").tobytes()
    return _checksum(content) + content


def _unpack(stored: bytes) -> SparseRow | None:
    """Restore what _pack returned; None when it is damaged."""
    checksum, content = stored[:_CHECKSUM_BYTES], stored[_CHECKSUM_BYTES:]
    if _checksum(content) != checksum:
        return None
    count = len(content) // _BYTES_A_FEATURE
    return SparseRow(np.frombuffer(content, "<u2", count), np.frombuffer(content, "<f4", count, 2 * count))


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")


@contextmanager
def open_cache(folder: Path, origin: FeatureOrigin) -> Iterator[FeatureCache]:
    """Open the cache in `folder`, which is made if need be, for features of one origin.

    Raises CelebflowError when the folder holds no cache that can be read.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # no prune takes it away meanwhile
        if not folder.exists() and (dropped := folder.with_name(f"{folder.name}.dropped")).exists():
            dropped.rename(folder)  # a prune was killed between two steps
        folder.mkdir(exist_ok=True)
        environment = _open_store(folder)
    with environment:
        yield FeatureCache(environment, origin)


def _open_store(folder: Path) -> lmdb.Environment:
    try:
        # Without metasync a power cut may cost the last photograph, but never the store.
        environment = lmdb.open(str(folder), map_size=_CACHE_SIZE_BYTES, metasync=False)
        needed_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if (folder / "data.mdb").stat().st_size < needed_bytes:  # reading beyond its end would kill the process
            environment.close()
            raise lmdb.CorruptedError("it is cut off")
    except lmdb.Error as error:
        raise CelebflowError(
            f"The feature cache {folder} cannot be opened ({error}). Remove the folder: it is computed again."
        ) from None
    return environment


@dataclass(frozen=True)
class CacheSize:
    """How much a feature cache holds."""

    entries: int
    disk_bytes: int


def measure_cache(folder: Path) -> CacheSize:
    """Return the size of the cache in `folder`, zero where there is none.

    Raises CelebflowError when it cannot be read.
    """
    if not (folder / "data.mdb").exists():
        return CacheSize(0, 0)
    with _open_store(folder) as environment:
        return CacheSize(environment.stat()["entries"], (folder / "data.mdb").stat().st_blocks * 512)


def prune_cache(folder: Path, photos: Sequence[Photo], origin: FeatureOrigin) -> None:
    """Drop from the cache in `folder` all but the features of `photos` that came from `origin`.

    What is kept is copied, and takes the cache's place when it is whole. A pipeline that is running meanwhile goes on
    with the cache that it has opened; what it still computes is not kept.
    """
    if not (folder / "data.mdb").exists():
        return
    with FileLock(folder.with_suffix(".lock")):
        _swap_for_needed(folder, photos, origin)


def _swap_for_needed(folder: Path, photos: Sequence[Photo], origin: FeatureOrigin) -> None:
    kept, dropped = (folder.with_name(f"{folder.name}.{suffix}") for suffix in ("kept", "dropped"))
    for leftover in (kept, dropped):
        shutil.rmtree(leftover, ignore_errors=True)
    kept.mkdir()
    with _open_store(folder) as source, _open_store(kept) as target:
        cache = FeatureCache(source, origin)
        with source.begin(buffers=True) as reading, target.begin(write=True) as writing:
            for key in {cache.key(photo) for photo in photos}:
                if (stored := reading.get(key)) is not None:
                    writing.put(key, stored)
    folder.rename(dropped)
    kept.rename(folder)
    shutil.rmtree(dropped)


def determine_origin(backbone_file: Path, extract: ExtractParams, compute: ComputeParams) -> FeatureOrigin:
    """Return what features will come from; raise CelebflowError when the runtime asked for cannot be had."""
    runtime = choose_runtime(extract.runtime, compute.device)
    return FeatureOrigin(load_backbone_source(backbone_file), Transform(extract.image_size_px), runtime)


def extract_missing(
    photos: Sequence[Photo], folder: Path, backbone_file: Path, compute: ComputeParams, cache: FeatureCache
) -> int:
    """Compute the features of every photograph that the cache lacks, and return how many they were.

    The backbone is loaded from `backbone_file` only if there are any. Each of the runtime's workers reads, transforms
    and computes a photograph of its own.

    Raises CelebflowError when a file is not the one that prepare saw.
    """
    missing = list({photo.sha256: photo for photo in photos if cache.get(photo) is None}.values())
    if not missing:
        return 0
    transform = cache.origin.transform
    backbone = load_backbone(backbone_file, compute.device)
    runtime = build_runtime(cache.origin.runtime, backbone)

    def extract(photo: Photo) -> SparseRow:
        image = _load_image(folder / photo.path, photo.sha256, transform)
        return SparseRow.from_dense(runtime.extract(image))

    description = f"extracting with {cache.origin.runtime}"
    with ThreadPoolExecutor(runtime.workers) as workers:
        ahead: deque[Future[SparseRow]] = deque()
        waiting = iter(missing)
        for photo in tqdm(missing, description, unit="photograph", disable=None):
            while len(ahead) < 2 * runtime.workers and (following := next(waiting, None)) is not None:
                ahead.append(workers.submit(extract, following))
            cache.put(photo, ahead.popleft().result())
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
    photos: list[Photo]
    origin: FeatureOrigin

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, rows: NDArray[np.int64]) -> SparseBatch:
        """Return the features of some photographs."""
        parts = [slice(self.offsets[row], self.offsets[row + 1]) for row in rows]
        return SparseBatch.from_rows(
            [SparseRow(self.indices[part], self.values[part]) for part in parts], FEATURE_COUNT
        )


def save_features(photos: Sequence[Photo], cache: FeatureCache, folder: Path) -> None:
    """Write the cached features of `photos` to `folder`, in their order, a photograph at a time.

    Raises CelebflowError when the cache has lost one since it was computed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    offsets = np.zeros(len(photos) + 1, np.int64)
    for position, photo in enumerate(photos):
        offsets[position + 1] = offsets[position] + cache.count(photo)
    with (folder / "indices.npy").open("wb") as indices, (folder / "values.npy").open("wb") as values:
        for file, number_type in ((indices, "<u2"), (values, "<f4")):
            header = {"descr": number_type, "fortran_order": False, "shape": (int(offsets[-1]),)}
            np.lib.format.write_array_header_1_0(file, header)
        for photo in photos:
            row = _require(cache, photo)
            indices.write(row.indices.data)
            values.write(row.values.data)
    np.save(folder / "offsets.npy", offsets)
    cache.origin.save(origin_file(folder))


def _require(cache: FeatureCache, photo: Photo) -> SparseRow:
    row = cache.get(photo)
    if row is None:
        raise CelebflowError(f"The features of {photo.path} went missing from the cache. Run `dvc repro` again.")
    return row


def origin_file(folder: Path) -> Path:
    """Return where save_features writes what the features in `folder` came from."""
    return folder / "origin.json"


def load_features(folder: Path, photos_file: Path) -> Features:
    """Open what save_features wrote of the photographs that `photos_file` lists.

    Raises CelebflowError when they are not as many.
    """
    photos = load_photos(photos_file)
    offsets, indices, values = (np.load(folder / f"{name}.npy", "r") for name in ("offsets", "indices", "values"))
    if len(photos) != len(offsets) - 1:
        raise CelebflowError(f"{folder} is not of the photographs in {photos_file}. Run `dvc repro`.")
    return Features(offsets, indices, values, photos, FeatureOrigin.load(origin_file(folder)))


@dataclass(frozen=True)
class LabelledFeatures:
    """The photographs of one split: which rows of the features, and whom each shows as an index of the class names."""

    features: Features
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: NDArray[np.int64]) -> tuple[SparseBatch, Tensor]:
        """Return the features of B photographs and (B,) labels."""
        return self.features.batch(self.rows[positions]), torch.from_numpy(self.labels[positions])


def select_split(features: Features, class_names: Sequence[str], split: str) -> LabelledFeatures:
    """Pick one split's photographs and label each by its person's place in `class_names`."""
    rows = np.array([row for row, photo in enumerate(features.photos) if photo.split == split], np.int64)
    index = {name: position for position, name in enumerate(class_names)}
    return LabelledFeatures(features, rows, np.array([index[features.photos[row].person] for row in rows], np.int64))
