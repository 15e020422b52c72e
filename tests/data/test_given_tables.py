"""Tables that users write are read, or refused with the file, the line and what to do."""

import io
import os
import sys
from pathlib import Path

import pytest

from celebflow.data.given_pairs import read_pair_rows
from celebflow.data.given_tables import explain_similar_name, read_rows, read_words
from celebflow.errors import CelebflowError

ROWS = "Ann/1.jpg,Ann/2.jpg,1\n" * 3000


def _refuse(folder: Path, content: str | bytes, *needed: str) -> str:
    """Return what the user is told of a table with this content, which has a name of its own."""
    file = folder / "own.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CelebflowError) as caught:
        list(read_rows(file, needed or ("first", "second", "same"), ("fold",)))
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "line"),
    [('Ann/1.jpg,Ann/2.jpg,"1\n', 3), ('"Ann/1.jpg,Ann/2.jpg,1\n', 3), ('Ann/1.jpg,Ann/2.jpg,"1', 3)],
)
def test_a_quotation_mark_that_none_closes_is_named_by_the_line_that_it_is_in(
    tmp_path: Path, row: str, line: int
) -> None:
    rest = ROWS if row.endswith("\n") else ""
    message = _refuse(tmp_path, f"first,second,same\nAnn/1.jpg,Ann/2.jpg,1\n{row}{rest}")
    assert f"line {line}" in message and "quotation mark" in message
    assert len(message) < 1000


def test_a_cell_that_is_far_too_long_is_named_by_its_line(tmp_path: Path) -> None:
    message = _refuse(tmp_path, f"first,second,same\n\n{'a' * 200_000},Ann/2.jpg,1\n")
    assert "line 3" in message and "quotation mark" in message and len(message) < 1000


def test_a_row_of_several_lines_is_named_by_the_first_of_them(tmp_path: Path) -> None:
    assert "line 2" in _refuse(tmp_path, 'first,second,same\n"a\nb\nc",d\n')


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["Git LFS", "git lfs pull"]),
        (b"PK\x03\x04\x14\0\6\0\x08\0", ["spreadsheet", "CSV"]),
        ("<!DOCTYPE html>\n<html>quota exceeded</html>\n", ["web page", "Download"]),
        ("first,second,same\n".encode("utf-16"), ["UTF-16", "UTF-8"]),
        ("first,second,same\n".encode("utf-16-le"), ["UTF-16", "UTF-8"]),
        ("first,second,same\n".encode("utf-16-be"), ["UTF-16", "UTF-8"]),
        ("first,second,same\n\nJos\u00e9,b,1\n".encode("latin-1"), ["line 3", "UTF-8"]),
        ("first;second;same\n", ["first;second;same", "commas"]),
        ("First,second,same\n", ["lacks the column first", "First,second,same"]),
        ("", ["lacks the column", "empty"]),
    ],
)
def test_what_is_no_table_is_named_with_what_to_do(tmp_path: Path, content: str | bytes, parts: list[str]) -> None:
    message = _refuse(tmp_path, content)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("header", ["first,second,same,first", "first,same,second,same", "first,second,same,fold,fold"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, header: str) -> None:
    message = _refuse(tmp_path, f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    assert "line 1" in message and "2 columns are named" in message and "Remove" in message


def test_a_column_that_nobody_reads_may_be_there_twice(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("first,note,second,note\na,x,b,y\n", encoding="utf-8")
    assert [number for number, _ in read_rows(tmp_path / "own.csv", ("first", "second"), ())] == [2]


@pytest.mark.parametrize("name", ["Fold", " fold", "split", "Partition"])
def test_a_column_that_may_be_meant_for_an_optional_one_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "own.csv").write_text(f"first,second,{name}\na,b,1\n", encoding="utf-8")
    with pytest.raises(CelebflowError, match=f"line 2: the column {name} would not be read. Rename it to fold"):
        list(read_rows(tmp_path / "own.csv", ("first", "second"), ("fold",)))
    assert [number for number, _ in read_rows(tmp_path / "own.csv", ("first", "second"), ())] == [2]
    (tmp_path / "own.csv").write_text(f"first,second,{name},fold\na,b,1,1\n", encoding="utf-8")
    assert [number for number, _ in read_rows(tmp_path / "own.csv", ("first", "second"), ("fold",))] == [2]


def test_a_device_in_the_place_of_a_table_is_refused() -> None:
    with pytest.raises(CelebflowError, match="/dev/zero.*not a regular file"):
        read_words(Path("/dev/zero"))


def test_photographs_of_a_table_from_a_pipe_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "'-a.jpg").touch()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"first,second\nfaces/1.jpg,b.jpg\n")))
    assert read_pair_rows(Path("-")) == [("faces/1.jpg", "b.jpg")]
    reading, writing = os.pipe()
    os.write(writing, b"first,second\nfaces/1.jpg,'-a.jpg\n")
    os.close(writing)
    assert read_pair_rows(Path(f"/dev/fd/{reading}")) == [("faces/1.jpg", "'-a.jpg")]
    os.close(reading)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.csv").write_text("first,second\na.jpg,b.jpg\n", encoding="utf-8")
    with (tmp_path / "own" / "own.csv").open() as table:
        assert read_pair_rows(Path(f"/dev/fd/{table.fileno()}")) == [("a.jpg", "b.jpg")]
    assert read_pair_rows(Path("own/own.csv")) == [("own/a.jpg", "own/b.jpg")]


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("list_attr_celeba.csv", "list_attr_celeba.txt"),
        ("Attributes.CSV", "attributes.csv"),
        ("attributes.csv.xlsx", "attributes.csv"),
        ("labels/attributes.csv", "attributes.csv"),
        ("Pairs.txt", "pairs.csv or pairs.txt"),
    ],
)
def test_a_name_close_to_that_of_a_table_is_told(path: str, table: str) -> None:
    assert table in explain_similar_name(path)
    assert explain_similar_name(path.replace("a", "b").replace("A", "B")) == ""
