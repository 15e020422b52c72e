"""The state of a training after an epoch, on disk, so that a killed training resumes there; DVC does not see it."""

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
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
_MAX_TIME_FRACTION = 0.05


class _MismatchError(Exception):
    """A file is damaged, or is the checkpoint of another classifier."""


class Checkpoints:
    """The checkpoints of one training: the last epoch and, where train.keep_epoch is best, the best epoch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saved_at_seconds = -float("inf")
        self._cost_seconds = 0.0  # time spent on the last checkpoint and on the best epochs since

    def restore(self, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        """Fill `tensors` from the last checkpoint, and return the epochs until then; without a checkpoint, return [].

        A checkpoint that cannot be used is reported and ignored. Raises CelebflowError when the disk cannot be read.
        """
        self._saved_at_seconds = time.monotonic()
        try:
            return _read(self._folder / _LAST, tensors)
        except FileNotFoundError:
            return []
        except _MismatchError as error:
            print(f"The checkpoint cannot be used ({error}). Training starts from the beginning.", file=sys.stderr)
            return []
        except OSError as error:
            raise CelebflowError(
                f"{self._folder} cannot be read ({error.strerror}). Remove it to train from the beginning."
            ) from None

    def save(self, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
        """Save `tensors` as the state after the epochs of `history`, in place of an earlier state.

        Do nothing when checkpoints would take more than a twentieth of the time since the last one. Report a disk that
        cannot be written, and continue.
        """
        started = time.monotonic()
        since_last = started - self._saved_at_seconds
        if self._cost_seconds > _MAX_TIME_FRACTION * (since_last + self._cost_seconds):
            return
        try:
            _write(self._folder / _LAST, tensors, history)
        except OSError as error:
            print(f"The checkpoint could not be written ({error.strerror}). Training continues.", file=sys.stderr)
        self._saved_at_seconds = time.monotonic()
        self._cost_seconds = self._saved_at_seconds - started

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Save `tensors` as those of the best epoch so far; raise CelebflowError when the disk cannot be written."""
        started = time.monotonic()
        try:
            _write(self._folder / _BEST, tensors, [])
        except OSError as error:
            raise CelebflowError(
                f"The best epoch could not be written to {self._folder} ({error.strerror}). Free some space there, or "
                "set train.keep_epoch to last."
            ) from None
        self._cost_seconds += time.monotonic() - started

    def restore_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill `tensors` from the best epoch; raise CelebflowError when it cannot be read."""
        try:
            _read(self._folder / _BEST, tensors)
        except (OSError, _MismatchError) as error:
            remove_checkpoints(self._folder)
            raise CelebflowError(f"The best epoch cannot be read ({error}). Run `dvc repro` to train again.") from None


@contextmanager
def open_checkpoints(features: Features, params: TrainParams, compute: ComputeParams) -> Iterator[Checkpoints]:
    """Open the checkpoints of one training, and remove them when it has ended without an error.

    They belong to its data and params, the number of threads, and the versions of torch and of celebflow's code:
    with any other, a resumed training could give other bits.
    """
    recipe = features.origin, features.photos, params, compute, torch.__version__, torch.get_num_threads()
    digest = hashlib.sha256(repr(recipe).encode())
    for folder in (Path(features_package.__path__[0]), Path(__file__).parent):
        for module in sorted(folder.glob("*.py")):
            digest.update(module.read_bytes())
    folder = paths.checkpoints()
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / digest.hexdigest()[:16]
    lock = _try_lock(own, timeout_seconds=1)
    if lock is None:  # the same training is running already
        own = folder / f"{own.name}-{uuid.uuid4().hex}"
        lock = _try_lock(own)
    if abandoned := list_abandoned():
        gigabytes = measure_checkpoints(abandoned) / 1e9
        print(
            f"{len(abandoned)} interrupted trainings of other recipes take {gigabytes:.1f} GB in {folder}. "
            "`celebflow cache prune` removes them."
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
    """Return the size of the checkpoints in some trainings' folders, in bytes."""
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def remove_abandoned() -> None:
    """Remove the checkpoints of trainings that are not running now."""
    locked = {lock_file.with_suffix("") for lock_file in paths.checkpoints().glob("*.lock")}
    for own in locked.union(list_abandoned()):
        if (lock := _try_lock(own)) is not None:
            remove_checkpoints(own)
            lock.release()


def remove_checkpoints(own: Path) -> None:
    """Remove the checkpoints and the lock file of one training."""
    (own / _LAST).unlink(missing_ok=True)  # first, so that no last epoch is left without its best epoch
    shutil.rmtree(own, ignore_errors=True)
    own.with_suffix(".lock").unlink(missing_ok=True)


def _try_lock(own: Path, timeout_seconds: float = 0) -> FileLock | None:
    """Lock a training's folder until the process ends; return None when another process has locked it."""
    lock = FileLock(own.with_suffix(".lock"))
    try:
        lock.acquire(timeout=timeout_seconds)
    except Timeout:
        return None
    return lock


def _write(path: Path, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
    """Write a safetensors file, whole or not at all, in chunks that are flushed and dropped from the page cache."""
    # Measured with 1.4 GB: 2 to 4 s. safetensors' save_file took 8 to 17 s and 1.4 GB of page cache, safe_open as much.
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    metadata = {"history": json.dumps([asdict(result) for result in history])}
    header = json.dumps({"__metadata__": metadata, **_describe(tensors)}).encode()
    header += b" " * (-len(header) % 8)  # safetensors aligns the tensors to 8 bytes
    contents = [memoryview(len(header).to_bytes(8, "little") + header)]
    contents += [_view_bytes(tensor) for tensor in tensors.values()]
    try:
        with part.open("wb", buffering=0) as file, ThreadPoolExecutor(_WRITERS) as writers:
            offsets, chunks = zip(*_split(contents), strict=True)
            list(writers.map(partial(_write_chunk, file.fileno()), offsets, chunks))  # raises what a writer raised
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)  # leave no rest on a full disk
        raise


def _split(contents: Iterable[memoryview]) -> Iterator[tuple[int, memoryview]]:
    """Yield chunks of contents that follow one another in a file, each with its offset."""
    offset = 0
    for content in contents:
        for start in range(0, len(content), _CHUNK_BYTES):
            yield offset + start, content[start : start + _CHUNK_BYTES]
        offset += len(content)


def _write_chunk(file: int, offset: int, content: memoryview) -> None:
    start = offset
    while content:
        written = os.pwrite(file, content, offset)
        content = content[written:]
        offset += written
    os.fsync(file)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, offset - start, os.POSIX_FADV_DONTNEED)


def _read(path: Path, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
    """Read what _write wrote directly into `tensors`, and return the history.

    Raises _MismatchError, before `tensors` change, when the file is damaged or of another classifier.
    """
    with path.open("rb", buffering=0) as file:
        header_length = int.from_bytes(file.read(8), "little")
        size_bytes = 8 + header_length + sum(tensor.nbytes for tensor in tensors.values())
        if path.stat().st_size != size_bytes:
            raise _MismatchError(f"{path} is truncated or of another classifier")
        try:
            header = json.loads(file.read(header_length))
            history = [EpochResult(**result) for result in json.loads(header.pop("__metadata__")["history"])]
        except (ValueError, KeyError, TypeError) as error:
            raise _MismatchError(f"{path} is damaged: {error!r}") from None
        if header != _describe(tensors):
            raise _MismatchError(f"{path} is of another classifier")
        for tensor in tensors.values():
            target = tensor.detach().cpu()  # the tensor itself, where it is on the CPU
            content = _view_bytes(target)
            while content:
                count = file.readinto(content)
                if not count:
                    raise OSError(errno.EIO, "the file ended while it was read")
                content = content[count:]
            tensor.detach().copy_(target)
    return history


def _view_bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a tensor, or of a copy where it is not on the CPU."""
    return tensor.detach().cpu().numpy().data.cast("B")


def _describe(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, object]]:
    """Return the header of a safetensors file of float32 tensors, without metadata."""
    header: dict[str, dict[str, object]] = {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    return header
