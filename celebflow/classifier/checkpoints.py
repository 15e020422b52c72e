"""The state of a training after an epoch, on disk, so that a killed training resumes there; DVC does not see it."""

import errno
import hashlib
import json
import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, astuple
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from celebflow import paths
from celebflow.backbone.state_dicts import list_not_finite
from celebflow.classifier.fits import NOT_KEPT, Fits, open_fits
from celebflow.classifier.history import EpochResult
from celebflow.errors import CelebflowError, raise_shortage
from celebflow.features.store import Features
from celebflow.params import ComputeParams, TrainParams

_LAST, _BEST = "last.safetensors", "best.safetensors"
LABELS = paths.ATTRIBUTES, paths.PAIRS  # that trainings read, and the features do not hold
_MAX_TIME_FRACTION = 0.05


class DivergedError(CelebflowError):
    """The numbers of a training are no longer finite; it would end so again from any checkpoint."""


class _MismatchError(Exception):
    """A file is damaged, is not finite, or is the checkpoint of another classifier."""


class Checkpoints:
    """The checkpoints of one training: the last epoch and, where train.keep_epoch is best, the best epoch.

    `fits` are what trainings on the same features share. Without a folder, nothing is kept.
    """

    def __init__(self, folder: Path | None = None, fits: Fits = NOT_KEPT) -> None:
        self.fits = fits
        self._folder = folder
        self._saved_at_seconds = -float("inf")
        self._cost_seconds = 0.0  # time spent on the last checkpoint and on the best epochs since

    def restore(self, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
        """Fill `tensors` from the last checkpoint, and return the epochs until then; without a checkpoint, return [].

        A checkpoint that cannot be used is reported and ignored. Raises CelebflowError when the disk cannot be read.
        """
        self._saved_at_seconds = time.monotonic()
        if self._folder is None:
            return []
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

        Do nothing when checkpoints would take more than a twentieth of the time since the last one, or when a tensor is
        not finite. Report a disk that cannot be written, and continue.
        """
        started = time.monotonic()
        since_last = started - self._saved_at_seconds
        if self._folder is None or self._cost_seconds > _MAX_TIME_FRACTION * (since_last + self._cost_seconds):
            return
        if list_not_finite(tensors):
            return
        try:
            _write(self._folder / _LAST, tensors, history)
        except OSError as error:
            reason = f"The checkpoint could not be written to {self._folder} ({error.strerror})."
            print(f"{reason} Training continues; free some space there to be able to resume it.", file=sys.stderr)
        self._saved_at_seconds = time.monotonic()
        self._cost_seconds = self._saved_at_seconds - started

    def save_best(self, tensors: Mapping[str, Tensor]) -> None:
        """Save `tensors` as those of the best epoch so far; raise CelebflowError when the disk cannot be written.

        This needs a folder.
        """
        assert self._folder is not None  # noqa: S101 - what the caller promises
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
        """Fill `tensors` from the best epoch; raise CelebflowError when it cannot be read. This needs a folder."""
        assert self._folder is not None  # noqa: S101 - what the caller promises
        try:
            _read(self._folder / _BEST, tensors)
        except (OSError, _MismatchError) as error:
            remove_checkpoints(self._folder)
            raise CelebflowError(f"The best epoch cannot be read ({error}). Run `dvc repro` to train again.") from None

    def copy_finished(self, *files: Path) -> bool:
        """Write the files that keep_finished has kept of this training; return whether there are any."""
        if self._folder is None or not all((self._folder / file.name).exists() for file in files):
            return False
        for file in files:
            with paths.write_whole(file) as part:
                shutil.copyfile(self._folder / file.name, part)
        return True


def keep_finished(features: Features, params: TrainParams, compute: ComputeParams, files: Mapping[Path, bytes]) -> None:
    """Keep the files that a training wrote on another machine, for the training that opens its checkpoints next."""
    own = _locate(open_fits(features), params, compute)
    for file, content in files.items():
        with paths.write_whole(own / file.name) as part:
            part.write_bytes(content)


def has_finished(features: Features, params: TrainParams, compute: ComputeParams) -> bool:
    """Tell whether there is what keep_finished has kept of this training."""
    return (_locate(open_fits(features), params, compute) / paths.HISTORY.name).exists()


def _locate(fits: Fits, params: TrainParams, compute: ComputeParams) -> Path:
    """Return the folder of one training."""
    digest = hashlib.sha256(repr([fits.identity, params, compute.device]).encode())
    for file in LABELS:
        if file.exists():
            digest.update(file.read_bytes())
    return paths.checkpoints() / digest.hexdigest()[:16]


@contextmanager
def open_checkpoints(features: Features, params: TrainParams, compute: ComputeParams) -> Iterator[Checkpoints]:
    """Open the checkpoints of one training, and remove them when it has ended without an error, or has diverged.

    They belong to its data and params, the number of threads, and the versions of torch and of celebflow's code:
    with any other, a resumed training could give other bits.
    """
    fits = open_fits(features)
    folder = paths.checkpoints()
    folder.mkdir(parents=True, exist_ok=True)
    own = _locate(fits, params, compute)
    with ExitStack() as locks:
        try:
            locks.enter_context(_lock(own, timeout_seconds=1))
        except Timeout:  # the same training is running already
            own = folder / f"{own.name}-{uuid.uuid4().hex}"
            locks.enter_context(_lock(own))
        if abandoned := list_abandoned():
            gigabytes = measure_checkpoints(abandoned) / 1e9
            print(
                f"{len(abandoned)} interrupted trainings of other recipes take {gigabytes:.1f} GB in {folder}. "
                "`celebflow cache prune` removes them."
            )
        try:
            yield Checkpoints(own, fits)
        except DivergedError:
            remove_checkpoints(own)
            raise
        remove_checkpoints(own)


def list_abandoned() -> list[Path]:
    """Return the folders of trainings that are not running now."""
    abandoned = []
    for own in sorted(path for path in paths.checkpoints().glob("*") if path.is_dir()):
        with suppress(Timeout), _lock(own):
            abandoned.append(own)
    return abandoned


def measure_checkpoints(folders: Sequence[Path]) -> int:
    """Return the size of the checkpoints in some trainings' folders, in bytes."""
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def remove_abandoned() -> None:
    """Remove the checkpoints of trainings that are not running now."""
    locked = {lock_file.with_suffix("") for lock_file in paths.checkpoints().glob("*.lock")}
    for own in locked.union(list_abandoned()):
        with suppress(Timeout), _lock(own):
            remove_checkpoints(own)


def remove_checkpoints(own: Path) -> None:
    """Remove the checkpoints and the lock file of one training."""
    (own / _LAST).unlink(missing_ok=True)  # first, so that no last epoch is left without its best epoch
    shutil.rmtree(own, ignore_errors=True)
    own.with_suffix(".lock").unlink(missing_ok=True)


def _lock(own: Path, timeout_seconds: float = 0) -> FileLock:
    """Return the lock of a training's folder; entering it raises Timeout when another process has locked it."""
    return FileLock(own.with_suffix(".lock"), timeout_seconds)


def _write(path: Path, tensors: Mapping[str, Tensor], history: Sequence[EpochResult]) -> None:
    """Write a safetensors file, whole or not at all; raise OSError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    metadata = {"history": json.dumps([asdict(result) for result in history], allow_nan=False)}
    try:
        save_file({name: tensor.detach().cpu() for name, tensor in tensors.items()}, part, metadata)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from None
    finally:
        part.unlink(missing_ok=True)  # leave no rest on a full disk


def _read(path: Path, tensors: Mapping[str, Tensor]) -> list[EpochResult]:
    """Read what _write wrote into `tensors`, and return the history.

    Raises _MismatchError, before `tensors` change, when the file is damaged, not finite, or of another classifier.
    """
    try:
        with safe_open(path, "pt") as file:
            history = [EpochResult(**result) for result in json.loads(file.metadata()["history"])]
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a dict
            if shapes != {name: list(tensor.shape) for name, tensor in tensors.items()}:
                raise _MismatchError(f"{path} is of another classifier")
            numbers = (number for result in history for number in astuple(result))
            # One tensor at a time: together they take gigabytes.
            if not all(map(math.isfinite, numbers)) or any(list_not_finite({"": file.get_tensor(n)}) for n in shapes):
                raise _MismatchError(f"{path} holds values that are not finite")
            for name, tensor in tensors.items():
                tensor.detach().copy_(file.get_tensor(name))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise_shortage(error, path)
        raise _MismatchError(f"{path} is damaged: {error}") from None
    return history
