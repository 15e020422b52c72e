"""The feature cache: the features and faces of each photograph, computed once for all branches and splits."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import lmdb
import numpy as np
from filelock import FileLock

from celebflow import paths
from celebflow.data.photos import Photo
from celebflow.errors import NO_SPACE, CelebflowError, raise_shortage
from celebflow.features.faces import DETECTOR, Face
from celebflow.features.origin import FeatureOrigin
from celebflow.features.sparse import SparseRow
from celebflow.features.transform import Transform
from celebflow.params import View

# LMDB reserves this as address space, not on disk; it is enough for six million photographs.
_CACHE_SIZE_BYTES = 64 * 2**30
# Count up whenever a change of the code changes a photograph's features, or how they are stored.
_CODE_VERSION = 3
_CHECKSUM_BYTES = 4
_LOCK_FILE_BYTES = 8192  # as LMDB makes it
_BYTES_PER_FEATURE = 2 + 4
_REMEDY = "Let CELEBFLOW_CACHE name a folder in which you may write, below a folder in which you may write."


class FeatureCache:
    """All features that were ever computed in a repository, outside of DVC.

    The cache survives killed runs and changes of split or branch, and several pipelines may use it at once. A key is
    the SHA-256 of everything that determines an entry: the photograph's bytes, the transform with one region and one
    view, the backbone's fingerprint and the runtime. Where faces are detected, the cache also stores those of each
    photograph.
    """

    def __init__(self, environment: lmdb.Environment, origin: FeatureOrigin) -> None:
        self.origin = origin
        self._environment = environment
        # The transform in parts that the network computes one by one: for each view, the regions of that view.
        self._parts = {
            view: [region.only(view) for region in origin.transform.regions] for view in origin.transform.views
        }
        # For each part, what determines its features, apart from the photograph.
        common = [origin.backbone.fingerprint, origin.runtime]
        self._recipes = {}
        for part in (part for parts in self._parts.values() for part in parts):
            recipe = [_CODE_VERSION, part.to_dict(), *common, *([DETECTOR] if part.detects_faces else [])]
            self._recipes[part] = json.dumps(recipe, sort_keys=True, allow_nan=False)

    def key(self, photo: Photo, part: Transform) -> bytes:
        """Return the key of the features of one of the transform's parts of a photograph."""
        return hashlib.sha256(f"{photo.sha256} {self._recipes[part]}".encode()).digest()

    def _faces_key(self, photo: Photo) -> bytes:
        return hashlib.sha256(f"{photo.sha256} boxes {DETECTOR}".encode()).digest()

    def keys(self, photo: Photo) -> list[bytes]:
        """Return the keys of all entries of a photograph."""
        return [*(self.key(photo, part) for part in self._recipes), self._faces_key(photo)]

    def get(self, photo: Photo, view: View) -> SparseRow | None:
        """Return the features of a photograph's view; None when they are missing or damaged."""
        rows = [row for part in self._parts[view] if (row := self.get_part(photo, part)) is not None]
        return SparseRow.join(rows, self.origin.feature_count) if len(rows) == len(self._parts[view]) else None

    def get_part(self, photo: Photo, part: Transform) -> SparseRow | None:
        """Return the features of one of the transform's parts of a photograph; None when missing or damaged."""
        content = self._load(self.key(photo, part))
        if content is None:
            return None
        count = len(content) // _BYTES_PER_FEATURE
        return SparseRow(np.frombuffer(content, "<u2", count), np.frombuffer(content, "<f4", count, 2 * count))

    def count(self, photo: Photo, view: View) -> int:
        """Return how many features of a photograph's view are not zero, from the size of the entry alone."""
        with self._environment.begin(buffers=True) as transaction:
            found = [transaction.get(self.key(photo, part)) for part in self._parts[view]]
            return sum((len(stored) - _CHECKSUM_BYTES) // _BYTES_PER_FEATURE for stored in found if stored is not None)

    def get_faces(self, photo: Photo) -> list[Face] | None:
        """Return the faces that were detected in a photograph; None when they are missing or damaged."""
        content = self._load(self._faces_key(photo))
        return None if content is None else [Face.from_dict(values) for values in json.loads(content)]

    def _load(self, key: bytes) -> bytes | None:
        """Return the content of an entry; None when it is missing or damaged."""
        with self._environment.begin() as transaction:
            stored: bytes = transaction.get(key, b"")
        content = stored[_CHECKSUM_BYTES:]
        return content if stored == _seal(content) else None

    def is_complete(self, photo: Photo) -> bool:
        """Tell whether the cache has all that the transform needs of a photograph, undamaged."""
        has_faces = not self.origin.transform.detects_faces or self.get_faces(photo) is not None
        return has_faces and not self.find_missing(photo)

    def find_missing(self, photo: Photo) -> list[Transform]:
        """Return what is missing or damaged of a photograph: regions of the transform, with only those views."""
        found = []
        for region in self.origin.transform.regions:
            views = [view for view in region.views if self.get_part(photo, region.only(view)) is None]
            if views:
                found.append(region.only(*views))
        return found

    def put(self, photo: Photo, rows: Mapping[Transform, SparseRow], faces: Sequence[Face]) -> None:
        """Store a photograph's features by the transform's parts, and the faces that were detected in it, at once.

        Raises CelebflowError when the disk is full.
        """
        self.put_all([(photo, rows, faces)])

    def put_all(self, entries: Sequence[tuple[Photo, Mapping[Transform, SparseRow], Sequence[Face]]]) -> None:
        """Store several photographs, each as `put` does, at once.

        Raises CelebflowError when the disk is full.
        """
        if not entries:
            return
        try:
            with self._environment.begin(write=True) as transaction:
                for photo, rows, faces in entries:
                    for part, row in rows.items():  # the positions, then the values, little-endian
                        content = row.indices.astype("<u2").tobytes() + row.values.astype("<f4").tobytes()
                        transaction.put(self.key(photo, part), _seal(content))
                    if self.origin.transform.detects_faces:
                        content = json.dumps([asdict(face) for face in faces], allow_nan=False).encode()
                        transaction.put(self._faces_key(photo), _seal(content))
        except lmdb.Error as error:
            raise CelebflowError(
                f"The feature cache {self._environment.path()} cannot be written ({error}). Is the disk full? Free "
                "some space, or let CELEBFLOW_CACHE name a folder on another disk. `celebflow cache prune --all` "
                "empties the cache: what is needed is computed again."
            ) from None


def _seal(content: bytes) -> bytes:
    """Put its checksum before the content of an entry."""
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little") + content


@contextmanager
def open_cache(folder: Path, origin: FeatureOrigin) -> Iterator[FeatureCache]:
    """Open the cache in `folder` for features of one origin, and make the folder if it is missing.

    Raises CelebflowError when the cache is damaged, or cannot be written.
    """
    with _lock(folder) as folder:
        folder.mkdir(exist_ok=True)
        environment = _open_store(folder)
        if not _is_own(folder):
            _beside(folder, "shared").touch()  # the project whose own folder this may be learns of it
    with environment:
        yield FeatureCache(environment, origin)


def is_shared(folder: Path) -> bool:
    """Return whether other projects may use the cache: it is not in this project's own folder, or another opened it."""
    return not _is_own(folder) or _beside(folder.resolve(), "shared").exists()


def _is_own(folder: Path) -> bool:
    return folder.resolve() == paths.project().resolve() / paths.own_folder().name / "features"


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


@contextmanager
def _lock(folder: Path) -> Iterator[Path]:
    """Keep other processes from opening, pruning and emptying the cache in `folder`; yield the folder without links.

    Raises CelebflowError when something there cannot be written.
    """
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists() and (dropped := _beside(folder, "dropped")).exists():
                dropped.rename(folder)  # a prune was killed between two steps
            yield folder
    except OSError as error:
        if error.errno in NO_SPACE:
            raise_shortage(error)
        raise CelebflowError(
            f"The feature cache {folder} cannot be used ({error.strerror}: {error.filename}). {_REMEDY}"
        ) from None


def _open_store(folder: Path) -> lmdb.Environment:
    _allocate_lock_file(folder / "lock.mdb")
    try:
        # Without metasync, a power cut can lose the last photograph, but never damages the store.
        environment = lmdb.open(str(folder), map_size=_CACHE_SIZE_BYTES, metasync=False)
        needed_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if (folder / "data.mdb").stat().st_size < needed_bytes:  # reading beyond its end would crash the process
            environment.close()
            raise lmdb.CorruptedError("it is truncated")
    except lmdb.ReadonlyError as error:
        raise CelebflowError(f"The feature cache {folder} cannot be written ({error}). {_REMEDY}") from None
    except lmdb.Error as error:
        raise_shortage(error)
        raise CelebflowError(
            f"The feature cache {folder} cannot be opened ({error}). Remove the folder: it is computed again."
        ) from None
    return environment


def _allocate_lock_file(file: Path) -> None:
    """Give LMDB's lock file its disk space; raise OSError when there is none.

    LMDB would make a file with a hole and map it into memory. On a full disk, writing there ends the process.
    """
    if not hasattr(os, "posix_fallocate"):  # on Windows and macOS
        return
    try:
        with file.open("ab") as opened:
            os.posix_fallocate(opened.fileno(), 0, _LOCK_FILE_BYTES)
    except OSError as error:
        if error.errno in NO_SPACE:  # LMDB itself says the rest
            raise OSError(error.errno, error.strerror, str(file)) from None


@dataclass(frozen=True)
class CacheSize:
    """The size of a feature cache."""

    entries: int
    disk_bytes: int


def measure_cache(folder: Path) -> CacheSize:
    """Return the size of the cache in `folder`, which is zero without a cache.

    Raises CelebflowError when the cache is damaged.
    """
    if not (folder / "data.mdb").exists():
        return CacheSize(0, 0)
    with _lock(folder) as folder, _open_store(folder) as environment:
        return CacheSize(environment.stat()["entries"], (folder / "data.mdb").stat().st_blocks * 512)


def prune_cache(folder: Path, photos: Sequence[Photo], origin: FeatureOrigin) -> None:
    """Remove all entries from the cache in `folder` except those of `photos` that came from `origin`.

    The entries to keep are copied, and the complete copy then replaces the cache. A pipeline that runs meanwhile keeps
    using the cache that it opened; what it still computes is lost.

    Raises CelebflowError when the cache is damaged or cannot be written, or when its folder holds other files.
    """
    with _lock(folder) as folder:
        if not (folder / "data.mdb").exists():
            return
        _require_no_other_files(folder)
        _remove_leftovers(folder)
        kept, dropped = _beside(folder, "kept"), _beside(folder, "dropped")
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


def empty_cache(folder: Path) -> None:
    """Remove all entries from the cache in `folder`.

    A pipeline that runs meanwhile keeps using the cache that it opened; what it still computes is lost.

    Raises CelebflowError when the cache cannot be written, or when its folder holds other files.
    """
    with _lock(folder) as folder:
        _remove_leftovers(folder)
        if folder.exists():
            _require_no_other_files(folder)
            folder.rename(_beside(folder, "kept"))  # so that nobody opens half of it if this is killed
            _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed prune has left beside the cache."""
    for leftover in (_beside(folder, "kept"), _beside(folder, "dropped")):
        if leftover.exists():
            shutil.rmtree(leftover)


def _require_no_other_files(folder: Path) -> None:
    """Raise CelebflowError when the folder is not that of a cache alone: it would be removed with all in it."""
    others = sorted(path.name for path in folder.iterdir() if path.name not in ("data.mdb", "lock.mdb"))
    if others:
        raise CelebflowError(
            f"{folder} also holds {', '.join(others[:5])}, which does not belong to the feature cache. Move that "
            "elsewhere, or let CELEBFLOW_CACHE name a folder of its own."
        )
