"""New photographs are those that are neither train's own nor near-duplicates of others, and few are read in vain."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.errors import CelebflowError
from celebflow.features.sparse import SparseRow
from celebflow.inference.extractor import ExtractedFace, Extractor
from celebflow.inference.new_photographs import NewPhotographs, read_new_photographs


class _Extractor(Extractor):
    """Makes a feature of the mean gray of a photograph, and counts the photographs."""

    def __init__(self) -> None:
        self.count = 0

    def extract_all(
        self, photographs: Sequence[Image.Image], max_faces: int | None = None, *, whole: bool = False
    ) -> list[list[ExtractedFace]]:
        assert (max_faces, whole) == (1, True), "as features of train are made"
        self.count += len(photographs)
        grays = [np.array([np.asarray(photograph).mean()], np.float32) for photograph in photographs]
        return [[ExtractedFace(None, [SparseRow.from_dense(gray)], 0)] for gray in grays]


def _draw(file: Path, seed: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC).save(file)
    return file


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(folder: Path, known: set[str] | None = None, max_count: int = 100, bits: int | None = 48) -> NewPhotographs:
    return read_new_photographs(folder, _Extractor(), known or set(), max_count, bits)


def _list_paths(found: NewPhotographs) -> list[str]:
    return [photograph.path for photograph in found.photographs]


def test_photographs_of_train_and_copies_are_left_out_and_other_files_reported(tmp_path: Path) -> None:
    own = _draw(tmp_path / "a" / "own.png", 0)
    for number in (1, 2):
        _draw(tmp_path / "b" / "c" / f"{number}.png", number)
    with Image.open(tmp_path / "b" / "c" / "1.png") as photograph:
        for side in (56, 64, 72, 80, 120):
            photograph.resize((side, side)).save(tmp_path / "b" / f"size {side}.png")
    max((tmp_path / "b").glob("size *.png"), key=_digest).rename(tmp_path / "b" / "a first one.png")
    (tmp_path / "b" / "copy of 2.png").write_bytes((tmp_path / "b" / "c" / "2.png").read_bytes())
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "attributes.csv").write_text("a table of a project's data")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = _read(tmp_path, {_digest(own)})
    assert _list_paths(found) == ["b/a first one.png", "b/c/2.png"], "of copies, the first by path"
    assert (found.known_count, found.duplicate_count) == (1, 6)
    assert [line.partition(": ")[0] for line in found.unreadable] == [
        str(tmp_path / name) for name in ("gone.png", "notes.txt")
    ]
    assert len(_read(tmp_path, bits=None).photographs) == 8, "near-duplicates are not looked for, equal files are"
    for each in found.photographs:
        assert each.sha256 == _digest(tmp_path / each.path)
        assert (each.face, each.predicted, len(each.views)) == (None, None, 1)


def test_no_more_photographs_are_read_than_are_compared(tmp_path: Path) -> None:
    known = {_digest(_draw(tmp_path / f"known {number}.png", number)) for number in range(30)}
    for number in range(30, 80):
        _draw(tmp_path / f"{number}.png", number)
    extractor = _Extractor()
    found = read_new_photographs(tmp_path, extractor, known, 20, None)
    assert len(found.photographs) == 20, "those of train do not count"
    assert 20 <= extractor.count < 50, "it reads in batches"
    assert _list_paths(found) == _list_paths(read_new_photographs(tmp_path, _Extractor(), known, 20, None))
    first_by_name = {f"{number}.png" for number in range(30, 50)}
    assert set(_list_paths(found)) != first_by_name, "names may follow time or people, so photographs are drawn"


def test_folders_without_photographs_have_none(tmp_path: Path) -> None:
    assert _read(tmp_path).photographs == []
    own = _draw(tmp_path / "own.png", 0)
    found = _read(tmp_path, {_digest(own)})
    assert (found.photographs, found.known_count) == ([], 1)
    with pytest.raises(CelebflowError, match="missing cannot be read"):
        _read(tmp_path / "missing")
