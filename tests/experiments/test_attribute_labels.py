"""A label in a user's table changes, and no other byte of it."""

import csv
import os
from pathlib import Path

import pytest

from celebflow.data.given_attributes import read_given_attributes
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.experiments.attribute_labels import LabelTable, Place

KNOWN = ["a.jpg", "sub/a.jpg", "sub/=b.jpg", "x/c.jpg"]


def _load(folder: Path, content: str | bytes) -> LabelTable:
    file = folder / "attributes.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return LabelTable(folder, KNOWN, KNOWN)


def _change(folder: Path, content: str | bytes, texts: dict[Place, str]) -> bytes:
    _load(folder, content).write(texts, folder / "new")
    assert sorted(each.name for each in folder.iterdir()) == ["attributes.csv"]
    return (folder / "attributes.csv").read_bytes()


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_only_the_cells_change(ending: str, mark: bytes, tmp_path: Path) -> None:
    lines = ["photograph, Hat ,person,Tie", "a.jpg, 1 ,Ann,0", "", 'sub/a.jpg,0,"B, ""o""', 'x",', "x/c.jpg,1,Cy,"]
    content = mark + ending.join(lines).encode()  # the last line does not end
    texts = {Place("a.jpg", "Hat"): "0", Place("x/c.jpg", "Tie"): "1", Place("x/c.jpg", "Hat"): ""}
    expected = content.replace(b", 1 ,Ann", b",0,Ann").replace(b"c.jpg,1,Cy,", b"c.jpg,,Cy,1")
    assert _change(tmp_path, content, texts) == expected


def test_a_row_of_several_lines_keeps_what_it_says(tmp_path: Path) -> None:
    content = 'photograph,person,Hat\n"sub/a.jpg","B, ""o""\nx",0\nx/c.jpg,Cy,1\n'
    changed = _change(tmp_path, content, {Place("sub/a.jpg", "Hat"): "1"})
    assert list(csv.reader(changed.decode().splitlines(keepends=True))) == [
        ["photograph", "person", "Hat"],
        ["sub/a.jpg", 'B, "o"\nx', "1"],
        ["x/c.jpg", "Cy", "1"],
    ]
    assert changed.endswith(b"\nx/c.jpg,Cy,1\n")


def test_labels_are_those_that_prepare_reads(tmp_path: Path) -> None:
    rows = ["photograph,'=Hat,Tie", "a.jpg,1,0", "sub/a.jpg, 0,1", "'=b.jpg,1,", "c.jpg,,1"]
    table = _load(tmp_path, "\n".join(rows))
    for path in KNOWN:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    photos = [Photo(path, "", "train", "0" * 64, path) for path in KNOWN]
    with pytest.raises(CelebflowError, match="train, val and test need one each"):  # nothing else is wrong
        read_given_attributes(tmp_path, photos)
    labels = [[table.answer(Place(path, name)) for name in ("=Hat", "Tie")] for path in KNOWN]
    assert labels == [["yes", "no"], ["no", "yes"], ["yes", "blank"], ["blank", "yes"]]
    assert table.read(Place("sub/a.jpg", "=Hat")) == " 0"
    assert table.read(Place("sub/a.jpg", "Hat")) is None and table.read(Place("d.jpg", "Tie")) is None


@pytest.mark.parametrize("no", ["0", "-1"])
def test_no_is_spelled_as_in_the_table(no: str, tmp_path: Path) -> None:
    table = _load(tmp_path, f"photograph,Hat\na.jpg,1\nsub/a.jpg,{no}\n")
    assert [table.spell(answer) for answer in ("yes", "no", "blank")] == ["1", no, ""]


def test_what_is_no_such_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match="cannot be read"):
        LabelTable(tmp_path, KNOWN, KNOWN)
    (tmp_path / "list_attr_celeba.txt").write_text("1\nHat\na.jpg 1\n")
    with pytest.raises(CelebflowError, match=r"changes .*attributes.csv, and the labels are in list_attr_celeba.txt"):
        LabelTable(tmp_path, KNOWN, KNOWN)
    for content, reason in (("path,Hat\n", "lacks the column photograph"), (b"photograph,H\xe4t\n", "not in UTF-8")):
        with pytest.raises(CelebflowError, match=reason):
            _load(tmp_path, content)
    with pytest.raises(CelebflowError, match="two rows of x/c.jpg"):
        _load(tmp_path, "photograph,Hat\nx/c.jpg,1\nc.jpg,0\n")
    with pytest.raises(CelebflowError, match="cannot be read"):
        _load(tmp_path, 'photograph,Hat\na.jpg,"1\n')


def test_what_the_table_is_a_link_to_stays_as_it_is(tmp_path: Path) -> None:
    folder, cached = tmp_path / "data", tmp_path / "cached"
    folder.mkdir()
    cached.write_text("photograph,Hat\na.jpg,1\n")
    for link in (os.symlink, os.link):
        (folder / "attributes.csv").unlink(missing_ok=True)
        link(cached, folder / "attributes.csv")
        LabelTable(folder, KNOWN, KNOWN).write({Place("a.jpg", "Hat"): "0"}, folder / "new")
        assert (folder / "attributes.csv").read_text() == "photograph,Hat\na.jpg,0\n"
        assert cached.read_text() == "photograph,Hat\na.jpg,1\n"
