"""Photographs as items that a cluster's nodes take: their bytes, or where the nodes read them themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from celebflow.data.decoding import read_checked

T = TypeVar("T")


@dataclass(frozen=True)
class FileItem(Generic[T]):
    """A file with the SHA-256 that it has, its bytes unless the nodes read it themselves, and what else they need."""

    path: Path
    sha256: str
    content: bytes | None
    more: T

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        """Return the bytes; raise CelebflowError when the file cannot be read now, or has changed."""
        return read_checked(self.path, self.sha256) if self.content is None else self.content


class FileItems(Sequence[FileItem[T]]):
    """The items of files in a folder; each file is read when it is its turn, unless the nodes read it themselves."""

    def __init__(self, files: Sequence[tuple[str, str, T]], folder: Path, *, shared_disk: bool) -> None:
        self._files = files
        self._folder = folder.resolve()
        self._shared_disk = shared_disk

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, place: int) -> FileItem[T]:  # type: ignore[override] # there are no slices of it
        name, sha256, more = self._files[place]
        path = self._folder / name
        return FileItem(path, sha256, None if self._shared_disk else read_checked(path, sha256), more)
