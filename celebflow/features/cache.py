"""Photographs → features, each computed once: the cache per photograph, and the sparse store that training reads."""

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import lmdb
import numpy as np
from filelock import FileLock

from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.features.faces import DETECTOR, Face
from celebflow.features.origin import FeatureOrigin
from celebflow.features.sparse import SparseRow
from celebflow.features.transform import Transform
from celebflow.params import View

# LMDB reserves address space, not disk: room for six million photographs.
_CACHE_SIZE_BYTES = 64 * 2**30
# Count up whenever a change of the code gives the same photograph other features, or stores them otherwise.
_CODE_VERSION = 2
_CHECKSUM_BYTES = 4
_BYTES_PER_FEATURE = 2 + 4


class FeatureCache:
    """Every photograph's features that were ever computed here, below DVC: the store survives killed runs, other
    splits and other branches, and several pipelines may use it at once.

    A key is the SHA-256 of the file's bytes, the transform with one view, the backbone's fingerprint and the runtime
    together. Beside the features stand the faces that were found in a photograph, where faces are detected.
    """

    def __init__(self, environment: lmdb.Environment, origin: FeatureOrigin) -> None:
        self.origin = origin
        self._environment = environment
        self._recipes = {
            view: json.dumps(
                [
                    _CODE_VERSION,
                    origin.transform.only(view).to_dict(),
                    origin.backbone.fingerprint,
                    origin.runtime,
                    *_name_detector(origin.transform),
                ],
                sort_keys=True,
            )
            for view in origin.transform.views
        }

    def key(self, photo: Photo, view: View) -> bytes:
        """Return what the features of a photograph's view are stored under."""
        return hashlib.sha256(f"{photo.sha256} {self._recipes[view]}".encode()).digest()

    def _faces_key(self, photo: Photo) -> bytes:
        return hashlib.sha256(f"{photo.sha256} boxes {DETECTOR}".encode()).digest()

    def keys(self, photo: Photo) -> list[bytes]:
        """Return what all that is known of a photograph is stored under."""
        return [*(self.key(photo, view) for view in self._recipes), self._faces_key(photo)]

    def get(self, photo: Photo, view: View) -> SparseRow | None:
        """Return the features of a photograph's view; None when they are not there or damaged."""
        with self._environment.begin() as transaction:
            stored = transaction.get(self.key(photo, view))
        return None if stored is None else _unpack(stored)

    def count(self, photo: Photo, view: View) -> int:
        """Return how many features of a photograph's view are not zero, by the size of the entry alone."""
        with self._environment.begin(buffers=True) as transaction:
            stored = transaction.get(self.key(photo, view))
            return 0 if stored is None else (len(stored) - _CHECKSUM_BYTES) // _BYTES_PER_FEATURE

    def get_faces(self, photo: Photo) -> list[Face] | None:
        """Return the faces that were found in a photograph; None when they are not there or damaged."""
        with self._environment.begin() as transaction:
            stored = transaction.get(self._faces_key(photo), b"")
        checksum, content = stored[:_CHECKSUM_BYTES], stored[_CHECKSUM_BYTES:]
        if not content or _checksum(content) != checksum:
            return None
        return [Face.from_dict(values) for values in json.loads(content)]

    def is_complete(self, photo: Photo) -> bool:
        """Tell whether all is there that the transform asks for, undamaged."""
        has_faces = not self.origin.transform.detects_faces or self.get_faces(photo) is not None
        return has_faces and not self.missing_views(photo)

    def missing_views(self, photo: Photo) -> list[View]:
        """Return the views of a photograph whose features are not there or damaged."""
        return [view for view in self._recipes if self.get(photo, view) is None]

    def put(self, photo: Photo, rows: Mapping[View, SparseRow], faces: Sequence[Face]) -> None:
        """Store the features of a photograph's views and the faces that were found in it, in one transaction."""
        try:
            with self._environment.begin(write=True) as transaction:
                for view, row in rows.items():
                    transaction.put(self.key(photo, view), _pack(row))
                if self.origin.transform.detects_faces:
                    content = json.dumps([asdict(face) for face in faces]).encode()
                    transaction.put(self._faces_key(photo), _checksum(content) + content)
        except lmdb.Error as error:
            raise CelebflowError(
                f"The feature cache {self._environment.path()} cannot be written ({error}). Is the disk full? "
                "`celebflow cache prune --all` makes room: what is needed is computed again."
            ) from None


def _name_detector(transform: Transform) -> list[str]:
    return [DETECTOR] if transform.detects_faces else []


def _pack(row: SparseRow) -> bytes:
    """Return a checksum, the positions and the values, little-endian."""
    content = row.indices.astype("<u2").tobytes() + row.values.astype("<f4").tobytes()
    return _checksum(content) + content


def _unpack(stored: bytes) -> SparseRow | None:
    """Restore what _pack returned; None when it is damaged."""
    checksum, content = stored[:_CHECKSUM_BYTES], stored[_CHECKSUM_BYTES:]
    if _checksum(content) != checksum:
        return None
    count = len(content) // _BYTES_PER_FEATURE
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
            for key in {key for photo in photos for key in cache.keys(photo)}:
                if (stored := reading.get(key)) is not None:
                    writing.put(key, stored)
    folder.rename(dropped)
    kept.rename(folder)
    shutil.rmtree(dropped)
