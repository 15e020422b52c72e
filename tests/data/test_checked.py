"""Prepare decodes new photographs alone, and gives the same result whatever becomes of what it keeps."""

import sqlite3
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.data import checked, checking, preparation
from celebflow.data.checked import CheckedPhotographs, count_checked, forget_others, open_checked
from celebflow.data.decoding import decode_photograph
from celebflow.data.photos import Photo
from celebflow.data.splits import split_each_person
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams

SHA256 = "a" * 64
HASHES = np.arange(8, dtype=np.uint64).reshape(2, 4)
_PAGE_BYTES = 4096


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the files that prepare decodes, as it decodes them."""
    sizes: list[int] = []

    def decode(content: bytes) -> Image.Image:
        sizes.append(len(content))
        return decode_photograph(content)

    monkeypatch.setattr(checking, "decode_photograph", decode)
    return sizes


def _prepare(data: Path, file: Path | None) -> list[Photo]:
    return preparation.prepare_photographs(data, PrepareParams(), split_each_person, checked_file=file)[0].photos


def test_only_new_photographs_are_decoded(draw_people: Callable[..., Path], tmp_path: Path, decoded: list[int]) -> None:
    data, file = draw_people("Ann", "Bo", count=5), tmp_path / "kept" / "checked.db"
    first = _prepare(data, file)
    assert len(decoded) == 10 and count_checked(file) == 10
    assert _prepare(data, file) == first and len(decoded) == 10
    (data / "Ann" / "0.jpg").rename(data / "Bo" / "moved.jpg")
    Image.effect_noise((60, 60), 50).convert("RGB").save(data / "Ann" / "new.png")
    # Other bytes of the same size and time are another photograph.
    content = bytearray((data / "Ann" / "1.jpg").read_bytes())
    (data / "Ann" / "1.jpg").write_bytes(bytes(content[:-2]) + b"\xff\xd9")
    photos = _prepare(data, file)
    assert len(decoded) == 11 and photos == _prepare(data, None)


def test_a_file_that_is_no_photograph_is_refused_again(
    draw_people: Callable[..., Path], tmp_path: Path, decoded: list[int]
) -> None:
    data, file = draw_people("Ann", "Bo", count=3), tmp_path / "checked.db"
    (data / "Ann" / "0.jpg").write_bytes(b"\xff\xd8\xff nothing")
    for _ in range(2):
        with pytest.raises(CelebflowError, match=r"Ann/0\.jpg"):
            _prepare(data, file)
    assert len(decoded) == 6 + 1


def test_what_is_interrupted_is_not_done_again(
    draw_people: Callable[..., Path], tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, file = draw_people("Ann", "Bo", count=3), tmp_path / "checked.db"
    monkeypatch.setattr(checking, "tqdm", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        _prepare(data, file)
    monkeypatch.undo()
    count = count_checked(file)
    assert count > 0
    assert len(_prepare(data, file)) == count_checked(file) == 6


def _interrupt(checks: Iterable[object], *_: object, **__: object) -> list[object]:
    next(iter(checks))
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["no database", "truncated", "a page", "empty", "a folder", "other bytes"])
def test_a_damaged_file_costs_time_alone(
    draw_people: Callable[..., Path], tmp_path: Path, decoded: list[int], how: str
) -> None:
    data, file = draw_people("Ann", "Bo", count=3), tmp_path / "checked.db"
    first = _prepare(data, file)
    if how == "a folder":
        file.unlink()
        file.mkdir()
    elif how == "other bytes":
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE photographs SET hashes = CAST(zeroblob(length(hashes) - 1) || x'01' AS BLOB)")
        connection.close()
    else:
        content = file.read_bytes()
        damaged = {
            "no database": b"x" * 5000,
            "truncated": content[: len(content) // 2],
            "a page": content[:-_PAGE_BYTES] + b"\xff" * _PAGE_BYTES,
            "empty": b"",
        }
        file.write_bytes(damaged[how])
        assert count_checked(file) == 0
    assert _prepare(data, file) == first and len(decoded) == 12
    if how != "a folder":
        assert _prepare(data, file) == first and len(decoded) == 12, "it was made anew"


def _connect_to_read(connect: Callable[..., sqlite3.Connection], place: str, **_: object) -> sqlite3.Connection:
    return connect(f"file:{place}?mode=ro", uri=True, check_same_thread=False)


def _recall(kept: CheckedPhotographs) -> list[list[int]] | None:
    hashes = kept.recall(SHA256)
    return None if hashes is None else hashes.tolist()


def test_a_file_that_cannot_be_written_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checked.db"
    with open_checked(file) as kept:
        kept.remember(SHA256, HASHES)
    monkeypatch.setattr(sqlite3, "connect", partial(_connect_to_read, sqlite3.connect))
    with open_checked(file) as kept:
        assert _recall(kept) == HASHES.tolist()
        kept.remember("b" * 64, HASHES)
    monkeypatch.undo()
    assert count_checked(file) == 1


def test_other_decoders_check_everything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checked.db"
    with open_checked(file) as kept:
        kept.remember(SHA256, HASHES)
        assert kept.recall(SHA256) is None, "it is written in batches"
    with open_checked(file) as kept:
        assert _recall(kept) == HASHES.tolist()
    monkeypatch.setattr(checked, "find_version", lambda name: "0.0")
    with open_checked(file) as kept:
        assert kept.recall(SHA256) is None


def test_many_are_written_before_the_end_and_two_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "_BATCH_ROWS", 3)
    file = tmp_path / "checked.db"
    with open_checked(file) as first, open_checked(file) as second:
        for number in range(4):
            first.remember(f"{number:064}", HASHES)
            second.remember(f"{number + 10:064}", HASHES)
        assert count_checked(file) == 6
    assert count_checked(file) == 8


def test_pruning_keeps_what_is_here(tmp_path: Path) -> None:
    file = tmp_path / "checked.db"
    forget_others(file, [])
    assert not file.exists() and count_checked(file) == 0
    with open_checked(file) as kept:
        kept.remember(SHA256, HASHES)
        kept.remember("b" * 64, HASHES)
    forget_others(file, [SHA256, "c" * 64])
    with open_checked(file) as kept:
        assert kept.recall(SHA256) is not None and kept.recall("b" * 64) is None


def test_pages_that_are_damaged_are_found_and_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "checked.db"
    with open_checked(file) as known:
        for number in range(100):
            known.remember(f"{number:064x}", HASHES)
    sound = file.read_bytes()
    for start in range(0, len(sound), _PAGE_BYTES):
        content = bytearray(sound)
        content[start : start + 200] = b"\xff" * 200
        file.write_bytes(content)
        assert count_checked(file) == 0, start
        with open_checked(file) as known:
            known.remember(SHA256, HASHES)
        assert count_checked(file) == 1, start


def test_the_hashes_of_another_photograph_are_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "checked.db"
    with open_checked(file) as known:
        known.remember(SHA256, HASHES)
        known.remember("b" * 64, HASHES + np.uint64(1))
    with sqlite3.connect(file) as connection:
        connection.execute(
            "UPDATE photographs SET hashes = (SELECT hashes FROM photographs WHERE sha256 = ?) WHERE sha256 = ?",
            ("b" * 64, SHA256),
        )
    connection.close()
    with open_checked(file) as known:
        assert known.recall(SHA256) is None and known.recall("b" * 64) is not None
