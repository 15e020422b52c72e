"""What prepare has found out about each photograph, kept so that it decodes only new ones."""

import sqlite3
import zlib
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock

import numpy as np

from celebflow.data.duplicates import HashArray
from celebflow.versions import find_version

# Count up whenever a change of the code changes which files are photographs, or their hashes.
_CODE_VERSION = 1
_DECODERS = ("pillow", "pillow-heif")
_BATCH_ROWS = 1000  # which are written at once
_HASHES_SHAPE = (2, 4)
_HASHES_BYTES = 64
_WAIT_SECONDS = 5.0  # for another prepare, which writes


class CheckedPhotographs:
    """The hashes of the photographs that were ever checked in a project, by the SHA-256 of their files.

    Several threads and several processes may use it at once. It only saves time: where its file cannot be read or
    written, everything is checked again.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._added: dict[str, HashArray] = {}

    def recall(self, sha256: str) -> HashArray | None:
        """Return the (2, 4) hashes of the photograph with these bytes; None when it was never checked."""
        with self._lock, suppress(sqlite3.Error):
            row = self._connection.execute("SELECT hashes FROM photographs WHERE sha256 = ?", (sha256,)).fetchone()
            if row is not None and isinstance(row[0], bytes) and row[0] == _seal(sha256, row[0][:_HASHES_BYTES]):
                return np.frombuffer(row[0], "<u8", _HASHES_BYTES // 8).reshape(_HASHES_SHAPE).astype(np.uint64)
        return None

    def remember(self, sha256: str, hashes: HashArray) -> None:
        """Keep the hashes of a photograph; they are written once there are many, and at the end."""
        with self._lock:
            self._added[sha256] = hashes
            if len(self._added) >= _BATCH_ROWS:
                self._write()

    def close(self) -> None:
        """Write what is not yet written."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        rows = [(sha256, _seal(sha256, hashes.astype("<u8").tobytes())) for sha256, hashes in self._added.items()]
        self._added.clear()
        with suppress(sqlite3.Error), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO photographs VALUES (?, ?)", rows)


def _seal(sha256: str, content: bytes) -> bytes:
    """Put a checksum behind the content of an entry, which also tells whose it is."""
    return content + zlib.crc32(sha256.encode() + content).to_bytes(4, "little")


@contextmanager
def open_checked(file: Path | None) -> Iterator[CheckedPhotographs]:
    """Open what is kept in `file`, and make it anew if it is damaged, or of other decoders; None keeps nothing."""
    with closing(_connect(file)) as connection:
        checked = CheckedPhotographs(connection)
        try:
            yield checked
        finally:  # also when prepare is interrupted
            checked.close()


def forget_others(file: Path, sha256s: Collection[str]) -> None:
    """Keep in `file` only what is known of the photographs with these SHA-256."""
    if not file.exists():
        return
    with closing(_connect(file)) as connection, suppress(sqlite3.Error), connection:
        connection.execute("CREATE TEMPORARY TABLE kept (sha256 TEXT PRIMARY KEY)")
        connection.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((each,) for each in sha256s))
        connection.execute("DELETE FROM photographs WHERE sha256 NOT IN (SELECT sha256 FROM kept)")


def count_checked(file: Path) -> int:
    """Return how many photographs `file` knows; none where it cannot be read."""
    if not file.exists():
        return 0
    with closing(_connect(file)) as connection, suppress(sqlite3.Error):
        return int(connection.execute("SELECT count(*) FROM photographs").fetchone()[0])
    return 0


def _connect(file: Path | None) -> sqlite3.Connection:
    """Return a connection to a file that is ready, or to memory where there is none, or it cannot be used."""
    if file is not None:
        with suppress(OSError, sqlite3.Error):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                return _open(str(file))
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # it is sound, and cannot be written
                    raise
                file.unlink()
                return _open(str(file))
    return _open(":memory:")


def _open(place: str) -> sqlite3.Connection:
    """Connect, make the table where it is missing, and forget what other decoders found.

    Raises sqlite3.DatabaseError when any page is damaged, which reading would tell of only where it comes to it.
    """
    connection = sqlite3.connect(place, timeout=_WAIT_SECONDS, check_same_thread=False)
    recipe = f"{_CODE_VERSION} {' '.join(map(find_version, _DECODERS))}"
    try:
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError(f"{place} is damaged")
        with connection:
            connection.execute("CREATE TABLE IF NOT EXISTS recipe (recipe TEXT PRIMARY KEY)")
            connection.execute("CREATE TABLE IF NOT EXISTS photographs (sha256 TEXT PRIMARY KEY, hashes BLOB NOT NULL)")
            if connection.execute("SELECT recipe FROM recipe").fetchall() != [(recipe,)]:
                connection.execute("DELETE FROM photographs")
                connection.execute("DELETE FROM recipe")
                connection.execute("INSERT INTO recipe VALUES (?)", (recipe,))
    except sqlite3.Error:
        connection.close()
        raise
    return connection
