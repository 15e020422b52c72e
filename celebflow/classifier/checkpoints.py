"""Where a training stands after each epoch, so that one that was killed goes on from there; below DVC."""

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from celebflow import features as features_package
from celebflow import paths
from celebflow.classifier.history import EpochResult
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams

_LAST, _BEST = "last.safetensors", "best.safetensors"
_CHUNK_BYTES = 16 * 2**20
_WRITERS = 2
_ALLOWED_SHARE = 0.05


class _UnfitError(Exception):
    """A file is no whole checkpoint of this classifier."""


class Checkpoints:
    """One training's checkpoints: of the last epoch, and of the best where that one is to be kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saved_at_seconds = -float("inf")
        self._cost_seconds = 0.0  # of the last checkpoint, and of the best epochs since

    def restore(self, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        """Fill `tensors` with those of the last checkpoint, and return the epochs that led there: none without one."""
        self._saved_at_seconds = time.monotonic()
        try:
            return _read(self._folder / _LAST, tensors)
        except FileNotFoundError:
            return []
        except _UnfitError as error:
            print(f"The checkpoint cannot be used ({error}); beginning anew.", file=sys.stderr)
            return []
        except OSError as error:
            raise CelebflowError(
                f"{self._folder} cannot be read ({error.strerror}). Remove it to begin anew."
            ) from None

    def save(self, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
        """Keep `tensors` as the state after the epochs of `history`, in the place of an earlier state.

        It is left out where it would make checkpoints cost more than a twentieth of the time since the last one.
        """
        started = time.monotonic()
        since_last = started - self._saved_at_seconds
        if self._cost_seconds > _ALLOWED_SHARE * (since_last + self._cost_seconds):
            return
        try:
            _write(self._folder / _LAST, tensors, history)
        except OSError as error:
            print(f"The checkpoint could not be written ({error.strerror}); going on without.", file=sys.stderr)
        self._saved_at_seconds = time.monotonic()
        self._cost_seconds = self._saved_at_seconds - started

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep `tensors` as those of the best epoch so far."""
        started = time.monotonic()
        try:
            _write(self._folder / _BEST, tensors, [])
        except OSError as error:
            raise CelebflowError(
                f"The best epoch could not be written to {self._folder} ({error.strerror}). Make room there, or set "
                "train.keep_epoch to last."
            ) from None
        self._cost_seconds += time.monotonic() - started

    def restore_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill `tensors` with those of the best epoch."""
        try:
            _read(self._folder / _BEST, tensors)
        except (OSError, _UnfitError) as error:
            remove_checkpoints(self._folder)
            raise CelebflowError(f"The best epoch cannot be read ({error}). Run `dvc repro` to train anew.") from None


@contextmanager
def open_checkpoints(features: Features, params: TrainParams, compute: ComputeParams) -> Iterator[Checkpoints]:
    """Open the checkpoints of one training, and remove them when it has ended well.

    What belongs to it: its data and params, the number of threads, and the versions of torch and of celebflow's code,
    since others would not go on with the same bits.
    """
    recipe = features.origin, features.photos, params, compute, torch.__version__, torch.get_num_threads()
    digest = hashlib.sha256(repr(recipe).encode())
    for folder in (Path(features_package.__path__[0]), Path(__file__).parent):
        for module in sorted(folder.glob("*.py")):
            digest.update(module.read_bytes())
    folder = paths.checkpoints()
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / digest.hexdigest()[:16]
    lock = _try_lock(own, patience_seconds=1)
    if lock is None:  # the same training runs twice at once
        own = folder / f"{own.name}-{uuid.uuid4().hex}"
        lock = _try_lock(own)
    if abandoned := list_abandoned():
        gigabytes = measure_checkpoints(abandoned) / 1e9
        print(
            f"{len(abandoned)} interrupted trainings of other recipes hold {gigabytes:.1f} GB in {folder}; "
            "`celebflow cache prune` drops them."
        )
    try:
        yield Checkpoints(own)
        remove_checkpoints(own)
    finally:
        if lock is not None:
            lock.release()


def list_abandoned() -> list[Path]:
    """Return the folders of trainings that are not running now."""
    abandoned = []
    for own in sorted(path for path in paths.checkpoints().glob("*") if path.is_dir()):
        if (lock := _try_lock(own)) is not None:
            lock.release()
            abandoned.append(own)
    return abandoned


def measure_checkpoints(folders: Sequence[Path]) -> int:
    """Return how many bytes some trainings' checkpoints take."""
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def remove_abandoned() -> None:
    """Remove the checkpoints of trainings that are not running now."""
    marks = paths.checkpoints().glob("*.lock")
    for own in {*list_abandoned(), *(mark.with_suffix("") for mark in marks)}:
        if (lock := _try_lock(own)) is not None:
            remove_checkpoints(own)
            lock.release()


def remove_checkpoints(own: Path) -> None:
    """Remove one training's checkpoints and its mark."""
    (own / _LAST).unlink(missing_ok=True)  # first, so that none is found without its best epoch
    shutil.rmtree(own, ignore_errors=True)
    own.with_suffix(".lock").unlink(missing_ok=True)


def _try_lock(own: Path, patience_seconds: float = 0) -> FileLock | None:
    """Mark a training's folder as in use; None when it is already. The mark ends with the process."""
    lock = FileLock(own.with_suffix(".lock"))
    try:
        lock.acquire(timeout=patience_seconds)
    except Timeout:
        return None
    return lock


def _write(path: Path, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
    """Write a safetensors file, whole or not at all, at the pace of the disk.

    In chunks that are flushed and dropped from the page cache one by one, it neither waits for the system to find
    memory for the whole, nor takes that from others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    metadata = {"history": json.dumps([asdict(result) for result in history])}
    header = json.dumps({"__metadata__": metadata, **_layout(tensors)}).encode()
    header += b" " * (-len(header) % 8)  # safetensors aligns what follows
    contents = [memoryview(len(header).to_bytes(8, "little") + header)]
    contents += [_bytes_of(tensor) for tensor in tensors.values()]
    chunks: list[tuple[int, memoryview]] = []
    offset = 0
    for content in contents:
        chunks += [(offset + start, content[start : start + _CHUNK_BYTES])
                   for start in range(0, len(content), _CHUNK_BYTES)]  # fmt: skip
        offset += len(content)
    try:
        with part.open("wb", buffering=0) as file, ThreadPoolExecutor(_WRITERS) as writers:
            list(writers.map(lambda chunk: _write_chunk(file.fileno(), *chunk), chunks))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)  # a full disk is not for it to fill
        raise


def _write_chunk(file: int, offset: int, content: memoryview) -> None:
    start = offset
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
    os.fsync(file)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, offset - start, os.POSIX_FADV_DONTNEED)


def _read(path: Path, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
    """Read what _write wrote straight into `tensors`, and return the history.

    Raises _UnfitError, with the tensors as they were, when the file is not whole or of another classifier.
    """
    with path.open("rb", buffering=0) as file:
        header_length = int.from_bytes(file.read(8), "little")
        size_bytes = 8 + header_length + sum(tensor.nbytes for tensor in tensors.values())
        if path.stat().st_size != size_bytes:
            raise _UnfitError(f"{path} is cut off or of another classifier")
        try:
            header = json.loads(file.read(header_length))
            history = [EpochResult(**result) for result in json.loads(header.pop("__metadata__")["history"])]
        except (ValueError, KeyError, TypeError) as error:
            raise _UnfitError(f"{path} is damaged: {error!r}") from None
        if header != _layout(tensors):
            raise _UnfitError(f"{path} is of another classifier")
        for tensor in tensors.values():
            target = tensor.detach().cpu()  # the tensor itself, where it is in memory already
            content = _bytes_of(target)
            while content:
                count = file.readinto(content)
                if not count:
                    raise OSError(errno.EIO, "the file ended while it was read")
                content = content[count:]
            tensor.detach().copy_(target)
    return history


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a tensor, or of a copy where it is not on the CPU."""
    return tensor.detach().cpu().numpy().data.cast("B")


def _layout(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, object]]:
    layout: dict[str, dict[str, object]] = {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        layout[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    return layout
