"""A file of decisions, a line each, which the disk has before anything is done; what is done is for others."""

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

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


class Decided(Protocol):
    """A decision about a suspect."""

    @property
    def number(self) -> int:
        """Return its number, by which the journal names it."""

    @property
    def action(self) -> str:
        """Return what was decided."""


_Decision = TypeVar("_Decision", bound=Decided)


class DecisionLog(Log, Generic[_Decision]):
    """The decisions in the file; who inherits also follows the events of what is done about them.

    `changes` are the decisions that hold, by number and the first to the last. `untold` are the actions of those that
    changed something since somebody was last told what to run.
    """

    def __init__(self, path: Path) -> None:
        """Read the lines; raise CelebflowError when the file is damaged, but for a last line that a kill cut short."""
        self.changes: dict[int, _Decision] = {}
        self.untold: dict[int, str] = {}
        self._last = 0
        super().__init__(path)

    def take_back(self, number: int) -> None:
        """Note that a decision no longer holds, of which nothing was done."""
        self._append({"event": "take_back", "number": number})

    def tell(self) -> None:
        """Note that somebody was told what to run after the changes until now."""
        self._append({"event": "tell"})

    def take_number(self) -> int:
        """Return a number for what is in the order of the changes, but is not to be remembered."""
        self._last += 1
        return self._last

    def _note_decision(self, details: dict[str, Any]) -> _Decision:
        """Note a decision, and return it."""
        number = self._last + 1
        self._append({"event": "decide", "number": number, **details})
        return self.changes[number]

    def _follow(self, event: dict[str, Any]) -> None:
        match event.pop("event"):
            case "decide":
                change = self._read(event)
                self.changes[change.number] = change
                self._last = max(self._last, change.number)
                self._note_untold(change, change.action == "keep")
            case "take_back":
                change = self.changes.pop(event["number"])
                self._note_untold(change, change.action == "keep")
            case "tell":
                self.untold = {}
            case other:
                self._follow_step(other, event)

    def _settle(self, number: int, done: _Decision | None) -> None:
        """Put a decision as it is once it is done in its place, or remove it where what was done is taken back."""
        self._note_untold(self.changes[number], True)
        if done is None:
            del self.changes[number]
        else:
            self.changes[number] = done

    def _note_untold(self, change: _Decision, counts: bool) -> None:
        """Note that a change was made, or that it was undone before somebody was told of it."""
        if counts and self.untold.pop(change.number, None) is None:
            self.untold[change.number] = change.action

    @abstractmethod
    def _read(self, event: dict[str, Any]) -> _Decision:
        """Return the decision of an event; raise as _follow does."""

    @abstractmethod
    def _follow_step(self, kind: str, event: dict[str, Any]) -> None:
        """Follow an event of a kind that is no decision; raise as _follow does."""
