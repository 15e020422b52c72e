"""Photographs → features, each computed once: the cache per photograph, and the sparse store that training reads."""

import hashlib
import json
import shutil
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import lmdb
import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from celebflow.backbone import BackboneSource, count_features, load_backbone, load_backbone_source
from celebflow.data import Photo, load_photos
from celebflow.errors import CelebflowError
from celebflow.faces import DETECTOR
from celebflow.images import WHOLE, Transform, decode_photograph
from celebflow.params import ComputeParams, ExtractParams, FaceParams, View
from celebflow.runtimes import RuntimeName, build_runtime, choose_runtime
from celebflow.sparse import SparseBatch, SparseRow
from celebflow.tables import save_rows

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

    @property
    def feature_count(self) -> int:
        """Return how many features a view of a photograph has."""
        return count_features(self.transform.layers)

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        values = asdict(self) | {"transform": self.transform.to_dict()}
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "FeatureOrigin":
        """Read what `save` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        backbone, transform = BackboneSource(**values["backbone"]), Transform.from_dict(values["transform"])
        return cls(backbone, transform, values["runtime"])


class FeatureCache:
    """Every photograph's features that were ever computed here, below DVC: the store survives killed runs, other
    splits and other branches, and several pipelines may use it at once.

    A key is the SHA-256 of the file's bytes, the transform with one view, the backbone's fingerprint and the runtime
    together. Beside the features stands how many faces were found in a photograph, where faces are detected.
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

    def _face_count_key(self, photo: Photo) -> bytes:
        detector = " ".join(_name_detector(self.origin.transform))
        return hashlib.sha256(f"{photo.sha256} faces {detector}".encode()).digest()

    def keys(self, photo: Photo) -> list[bytes]:
        """Return what all that is known of a photograph is stored under."""
        return [*(self.key(photo, view) for view in self._recipes), self._face_count_key(photo)]

    def get(self, photo: Photo, view: View) -> SparseRow | None:
        """Return the features of a photograph's view; None when they are not there or damaged."""
        with self._environment.begin() as transaction:
            stored = transaction.get(self.key(photo, view))
        return None if stored is None else _unpack(stored)

    def count(self, photo: Photo, view: View) -> int:
        """Return how many features of a photograph's view are not zero, by the size of the entry alone."""
        with self._environment.begin(buffers=True) as transaction:
            stored = transaction.get(self.key(photo, view))
            return 0 if stored is None else (len(stored) - _CHECKSUM_BYTES) // _BYTES_A_FEATURE

    def get_face_count(self, photo: Photo) -> int | None:
        """Return how many faces were found in a photograph; None when that is not known or damaged."""
        with self._environment.begin() as transaction:
            stored = transaction.get(self._face_count_key(photo), b"")
        checksum, count = stored[:_CHECKSUM_BYTES], stored[_CHECKSUM_BYTES:]
        return int(count) if count and _checksum(count) == checksum else None

    def is_complete(self, photo: Photo) -> bool:
        """Tell whether all is there that the transform asks for, undamaged."""
        counted = not self.origin.transform.detects_faces or self.get_face_count(photo) is not None
        return counted and not self.missing_views(photo)

    def missing_views(self, photo: Photo) -> list[View]:
        """Return the views of a photograph whose features are not there or damaged."""
        return [view for view in self._recipes if self.get(photo, view) is None]

    def put(self, photo: Photo, rows: Mapping[View, SparseRow], face_count: int) -> None:
        """Store the features of a photograph's views and how many faces were found in it, at once and for good."""
        try:
            with self._environment.begin(write=True) as transaction:
                for view, row in rows.items():
                    transaction.put(self.key(photo, view), _pack(row))
                if self.origin.transform.detects_faces:
                    count = str(face_count).encode()
                    transaction.put(self._face_count_key(photo), _checksum(count) + count)
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
            for key in {key for photo in photos for key in cache.keys(photo)}:
                if (stored := reading.get(key)) is not None:
                    writing.put(key, stored)
    folder.rename(dropped)
    kept.rename(folder)
    shutil.rmtree(dropped)


def determine_origin(backbone_file: Path, extract: ExtractParams, compute: ComputeParams) -> FeatureOrigin:
    """Return what features will come from; raise CelebflowError when the runtime asked for cannot be had."""
    runtime = choose_runtime(extract.runtime, compute.device)
    transform = Transform(extract.image_size_px, _keep_effective(extract.face), extract.views, extract.layers)
    return FeatureOrigin(load_backbone_source(backbone_file), transform, runtime)


def _keep_effective(face: FaceParams) -> FaceParams:
    """Set what a crop does not use to one value, so that it makes no difference to the cache."""
    unused = {"none": ("centre_fraction", "margin", "align"), "centre": ("margin", "align"), "detect": ()}[face.crop]
    return face.model_copy(update={name: getattr(WHOLE, name) for name in unused})


def extract_missing(
    photos: Sequence[Photo], folder: Path, backbone_file: Path, compute: ComputeParams, cache: FeatureCache
) -> int:
    """Compute the features of every photograph of which the cache lacks a view, and return how many they were.

    The backbone is loaded from `backbone_file` only if there are any. Each of the runtime's workers reads, transforms
    and computes a photograph of its own.

    Raises CelebflowError when a file is not the one that prepare saw.
    """
    missing = list({photo.sha256: photo for photo in photos if not cache.is_complete(photo)}.values())
    if not missing:
        return 0
    transform = cache.origin.transform
    backbone = load_backbone(backbone_file, compute.device)
    runtime = build_runtime(cache.origin.runtime, backbone, transform.layers)

    def extract(photo: Photo) -> tuple[dict[View, SparseRow], int]:
        photograph = _load_photograph(folder / photo.path, photo.sha256)
        faces = transform.find_faces(photograph)
        face = faces[0] if faces else None
        views = cache.missing_views(photo)
        images = transform.only(*views).apply(photograph, face)
        rows = {view: SparseRow.from_dense(runtime.extract(image)) for view, image in zip(views, images, strict=True)}
        return rows, len(faces)

    description = f"extracting with {cache.origin.runtime}"
    with ThreadPoolExecutor(runtime.workers) as workers:
        ahead: deque[Future[tuple[dict[View, SparseRow], int]]] = deque()
        waiting = iter(missing)
        for photo in tqdm(missing, description, unit="photograph", disable=None):
            while len(ahead) < 2 * runtime.workers and (following := next(waiting, None)) is not None:
                ahead.append(workers.submit(extract, following))
            cache.put(photo, *ahead.popleft().result())
    return len(missing)


def _load_photograph(path: Path, sha256: str) -> Image.Image:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CelebflowError(f"{path} cannot be read ({error.strerror}). Run `dvc repro` to prepare again.") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CelebflowError(f"{path} has changed since it was checked. Run `dvc repro` to prepare again.")
    return decode_photograph(content)


@dataclass(frozen=True)
class Features:
    """The features of all views of all photographs, in the order of photos.csv, as rows of a sparse matrix (CSR).

    The V views of a photograph stand together, in the order of the transform's. `offsets` (N · V + 1), `indices` and
    `values` lie in files and come to memory as they are used.
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.uint16]
    values: NDArray[np.float32]
    photos: list[Photo]
    origin: FeatureOrigin

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def view_count(self) -> int:
        """Return V."""
        return len(self.origin.transform.views)

    def batch(self, rows: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> SparseBatch:
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


@dataclass(frozen=True)
class Crop:
    """A photograph in which not exactly one face was found, and what the network sees of it."""

    path: str
    faces: int
    seen: str


def list_crops(photos: Sequence[Photo], cache: FeatureCache) -> list[Crop]:
    """Return the photographs in which no face or several were found; none unless faces are detected."""
    if not cache.origin.transform.detects_faces:
        return []
    counts = [cache.get_face_count(photo) for photo in photos]
    return [
        Crop(photo.path, count, "the face that is first by size and place" if count else "the centre square")
        for photo, count in zip(photos, counts, strict=True)
        if count is not None and count != 1
    ]


def save_crops(crops: Sequence[Crop], path: Path) -> None:
    """Write faces.csv; with its header alone when there are none."""
    save_rows(Crop, crops, path)


def _require(cache: FeatureCache, photo: Photo, view: View) -> SparseRow:
    row = cache.get(photo, view)
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
    features = Features(offsets, indices, values, photos, FeatureOrigin.load(origin_file(folder)))
    if len(photos) * features.view_count != len(offsets) - 1:
        raise CelebflowError(f"{folder} is not of the photographs in {photos_file}. Run `dvc repro`.")
    return features


@dataclass(frozen=True)
class LabelledFeatures:
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

    def batch(self, positions: NDArray[np.int64], views: NDArray[np.int64] | int = 0) -> tuple[SparseBatch, Tensor]:
        """Return the features of B photographs, of each its view by number, and (B,) labels."""
        return self.features.batch(self.rows[positions], views), torch.from_numpy(self.labels[positions])


def select_split(features: Features, class_names: Sequence[str], split: str) -> LabelledFeatures:
    """Pick one split's photographs and label each by its person's place in `class_names`."""
    rows = np.array([row for row, photo in enumerate(features.photos) if photo.split == split], np.int64)
    index = {name: position for position, name in enumerate(class_names)}
    return LabelledFeatures(features, rows, np.array([index[features.photos[row].person] for row in rows], np.int64))
