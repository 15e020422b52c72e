"""A file of events, a line each, which the disk has before anything is done; what follows from them is for others."""

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from celebflow.errors import CelebflowError
from celebflow.experiments.review_moves import sync_folder


class Log(ABC):
    """The file; who inherits follows its events."""

    def __init__(self, path: Path) -> None:
        """Read the lines; raise CelebflowError when the file is damaged, but for a last line that a kill cut short."""
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        sync_folder(path.parent)
        content = path.read_bytes()
        whole, _, _ = content.rpartition(b"\n")
        self._size = len(whole) + 1 if whole else 0  # the next line takes the place of one that was cut short
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._follow(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise CelebflowError(
                    f"{path} is damaged at line {number} ({error!r}). Move it away; earlier changes can then no "
                    "longer be undone."
                ) from None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, event: dict[str, Any]) -> None:
        """Write a line, wait until the disk has it, and follow it; a disk that is full leaves no part of it."""
        line = json.dumps(event, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        try:
            os.lseek(self._file, self._size, os.SEEK_SET)
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            error.filename = str(self._path)
            raise
        self._size += len(line)
        self._follow(event)

    @abstractmethod
    def _follow(self, event: dict[str, Any]) -> None:
        """Follow an event; raise ValueError, TypeError or KeyError when there is none like it."""
