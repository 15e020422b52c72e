"""Tables restore every text, and none is a formula for a spreadsheet."""

import csv
import re
import resource
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celebflow.data.tables import escape_cell, load_rows, save_rows
from celebflow.errors import CelebflowError
from celebflow.paths import require_writable, write_whole


@dataclass(frozen=True)
class Row:
    """A name and a number."""

    name: str
    count: int


@pytest.mark.parametrize(
    "name",
    [
        "=1+1",
        "+49",
        "-Ann",
        "@Bo",
        "'=1",
        "''@x",
        "'Ann",
        "007",
        "1e5",
        "0x1F",
        "",
        "é",
        "＝1",
        "x;＝1",
        "－Ann",
        "x;=1+1;y.jpg",
        "x;'=1;;=1",
        "\t=1",
        "a\t+1",
        "a\r\n@b",
        "a\rb",
        "a\nb",
        "\r",
        ";",
        "=;=1",
        "Ann; Bo",
        "a-b",
    ],
)
def test_texts_are_restored_and_are_no_formulas(tmp_path: Path, name: str) -> None:
    save_rows(Row, [Row(name, -7)], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        ((cell, count),) = list(csv.reader(file))[1:]
    for part in re.split("[;\t\r\n]", cell):
        assert len(part) < 2 or part[0] not in "=+-@＝＋－＠"
    assert count == "-7", "a number stays a number"
    assert load_rows(Row, tmp_path / "rows.csv") == [Row(name, -7)]


@pytest.mark.parametrize("end", [b"Ann", b"Ann,1,2", b"Ann,x", b"Ann,", b"\xff,1", b'"Ann,1'])
def test_a_damaged_file_is_refused_with_the_remedy(tmp_path: Path, end: bytes) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"name,count\nBo,1\n" + end)
    with pytest.raises(CelebflowError, match=r"rows\.csv is damaged .*dvc repro"):
        load_rows(Row, file)


def test_a_table_without_a_row_needs_its_columns(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("\0\0\0")
    with pytest.raises(CelebflowError, match=r"rows\.csv lacks the column 'name'.*dvc repro"):
        load_rows(Row, tmp_path / "rows.csv")


def test_a_table_without_a_row_is_refused_where_some_are_needed(tmp_path: Path) -> None:
    save_rows(Row, [], tmp_path / "rows.csv")
    assert load_rows(Row, tmp_path / "rows.csv") == []
    with pytest.raises(CelebflowError, match=r"rows\.csv is damaged.*no row.*dvc repro"):
        load_rows(Row, tmp_path / "rows.csv", may_be_empty=False)


def test_a_file_that_cannot_be_written_to_its_end_leaves_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.csv"
    save_rows(Row, [Row("Ann", 1)], file)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # the system refuses more, as on a full disk
    try:
        with pytest.raises(OSError, match="too large") as caught:
            save_rows(Row, [Row("Bo", number) for number in range(4000)], file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(file)
    assert load_rows(Row, file) == [Row("Ann", 1)]
    assert list(file.parent.iterdir()) == [file]


def test_an_error_about_the_unfinished_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught, write_whole(tmp_path / "page.html") as part:
        part.read_text()
    assert caught.value.filename == str(tmp_path / "page.html")


def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    with write_whole(Path("/dev/null")) as part:
        assert part == Path("/dev/null")
        part.write_text("x")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.text("=;'\tx"), max_size=5))
def test_any_names_are_restored(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    file = tmp_path_factory.mktemp("names") / "rows.csv"
    rows = [Row(name, number) for number, name in enumerate(names)]
    save_rows(Row, rows, file)
    assert load_rows(Row, file) == rows


def test_only_texts_are_escaped() -> None:
    assert escape_cell(-0.5) == -0.5
    assert escape_cell("-0.5") == "'-0.5"
    for text in ("Ann", "a-b", "Ann; Bo", "a=b", ";"):
        assert escape_cell(text) == text


def test_what_cannot_be_written_is_told_before_and_nothing_is_left(tmp_path: Path) -> None:
    kept = tmp_path / "page.html"
    kept.write_text("kept")
    require_writable(kept, tmp_path / "new" / "newer" / "table.csv", Path("/dev/null"))
    assert kept.read_text() == "kept"
    (tmp_path / "folder").mkdir()
    for refused in (tmp_path / "folder", kept / "table.csv", tmp_path / ("n" * 255)):
        with pytest.raises(OSError, match="directory|exists|too long") as caught:
            require_writable(refused)
        assert caught.value.filename in (str(refused), str(refused.parent))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "page.html"]
