"""What is fitted to features alone, kept on disk, so that another head or another epoch count does not fit it again."""

import errno
import hashlib
import json
import os
import sys
import uuid
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from celebflow import features as features_package
from celebflow import paths
from celebflow.errors import raise_shortage
from celebflow.features.store import Features

_MAX_BYTES = 10**9  # of all fits; the last one used is kept whatever its size
_SUFFIX = ".safetensors"

Tensors = dict[str, Tensor]


class Fits:
    """Tensors in a folder, by what determines them: `identity`, which all share, and what recall is given.

    Without a folder, nothing is kept.
    """

    def __init__(self, folder: Path | None = None, identity: str = "") -> None:
        self.identity = identity
        self._folder = folder

    def recall(self, what: str, determinants: object, fit: Callable[[], Tensors]) -> Tensors:
        """Return what `fit` returned for equal `determinants`, which their repr tells apart, or call it and keep that.

        `what` is named where kept tensors cannot be used. A disk that cannot be written is reported, and nothing kept.
        """
        tensors = self.find(what, determinants)
        if tensors is None:
            tensors = fit()
            self.keep(what, determinants, tensors)
        return tensors

    def find(self, what: str, determinants: object) -> Tensors | None:
        """Return what recall or keep has kept; None when it is missing or damaged."""
        return None if self._folder is None else _read(self._locate(self._folder, what, determinants), what)

    def keep(self, what: str, determinants: object, tensors: Tensors) -> None:
        """Keep tensors that recall and find return from now on."""
        if self._folder is None:
            return
        try:
            _write(self._locate(self._folder, what, determinants), tensors)
            _remove_oldest(self._folder)
        except OSError as error:
            print(f"{what} cannot be kept in {self._folder} ({error.strerror}).", file=sys.stderr)

    def _locate(self, folder: Path, what: str, determinants: object) -> Path:
        digest = hashlib.sha256(repr([self.identity, what, determinants]).encode()).hexdigest()
        return folder / f"{digest[:32]}{_SUFFIX}"


NOT_KEPT = Fits()


def open_fits(features: Features) -> Fits:
    """Return the fits to these features by celebflow's code and libraries as they are, with this number of threads."""
    versions = [version(name) for name in ("numpy", "scipy", "scikit-learn", "torch")]
    common = features.origin, features.photos, versions, torch.get_num_threads()
    digest = hashlib.sha256(repr(common).encode())
    for folder in (Path(features_package.__path__[0]), Path(__file__).parent):
        for module in sorted(folder.glob("*.py")):
            digest.update(module.read_bytes())
    return Fits(paths.fits(), digest.hexdigest())


def measure_fits(folder: Path) -> tuple[int, int]:
    """Return how many fits the folder has, and their size in bytes."""
    sizes = [file.stat().st_size for file in folder.glob(f"*{_SUFFIX}")]
    return len(sizes), sum(sizes)


def remove_fits(folder: Path) -> None:
    """Remove all fits from a folder."""
    for file in folder.glob(f"*{_SUFFIX}*"):
        file.unlink(missing_ok=True)


def _read(file: Path, what: str) -> Tensors | None:
    """Return the tensors in a file; None when it is missing or, which is reported, damaged."""
    try:
        with safe_open(file, "pt") as opened:
            checksums = json.loads(opened.metadata()["checksums"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        if checksums != sum_tensors(tensors):
            raise ValueError("its checksums do not fit")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise_shortage(error, file)
        print(f"{what} in {file} cannot be used ({error}), and is fitted again.", file=sys.stderr)
        return None
    with suppress(OSError):
        os.utime(file)  # it has been used
    return tensors


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all; raise OSError when it cannot be written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex}.part")  # experiments may fit the same at once
    try:
        save_file(dict(tensors), part, {"checksums": json.dumps(sum_tensors(tensors), allow_nan=False)})
        part.replace(file)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from None
    finally:
        part.unlink(missing_ok=True)


def sum_tensors(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return a checksum of each tensor."""
    return {name: zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().data) for name, tensor in tensors.items()}


def _remove_oldest(folder: Path) -> None:
    """Remove the fits that were not used for longest, until all take no more than _MAX_BYTES."""
    with suppress(FileNotFoundError):  # another experiment removes them, too
        files = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True)
        size = 0
        for file in files:
            size += file.stat().st_size
            if size > _MAX_BYTES and file != files[0]:
                file.unlink()
