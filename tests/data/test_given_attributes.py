"""Tables of attributes are read as users and CelebA write them, with every fault named in one list."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celebflow.data.attributes import BLANK, NO, YES
from celebflow.data.given_attributes import GivenAttributes, read_given_attributes
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError

NAMES = [f"faces/{number}.jpg" for number in range(1, 7)]
ROWS = [f"{name},p{number},{number % 2},{number % 2}" for number, name in enumerate(NAMES)]
GOOD = "\n".join(["photograph,person,Hat,Smiling", *ROWS]) + "\n"
CELEBA = "\n".join(["7", "Hat Smiling ", *(f"{n}.jpg  {n % 2 * 2 - 1}  1" for n in (1, 2, 3)), ""])
CELEBA += "\n".join(f"{n}.jpg {n % 2 * 2 - 1:2} -1" for n in (4, 5, 6, 7))


def _read(folder: Path, *, used: list[str] = NAMES, **tables: str) -> GivenAttributes:
    """Write the tables beside photographs, and read what they say about those that are used."""
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    for name, text in tables.items():
        extension = "csv" if name == "attributes" else "txt"
        (folder / f"{name}.{extension}").write_text(text, encoding="utf-8")
    groups = range(len(used), 0, -1)  # in another order than the paths
    return read_given_attributes(
        folder, [Photo(path, "", "", path, str(group)) for path, group in zip(used, groups, strict=True)]
    )


def test_labels_and_people_are_read_by_photograph(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").touch()
    text = GOOD.replace("Hat,", " Hat ,").replace(",0,0", ",-1,-1").replace("p4", " p4 ") + "x.jpg,, 1 ,\n"
    given = _read(tmp_path, used=["x.jpg", *NAMES[::-1]], attributes="\ufeff" + text)
    assert given.table.names == ("Hat", "Smiling")
    assert given.table.paths == tuple(photo.path for photo in given.photos) == (*NAMES, "x.jpg")
    assert given.table.labels.tolist() == [[NO, NO], [YES, YES]] * 3 + [[YES, BLANK]]
    assert [photo.person for photo in given.photos] == ["p0", "p1", "p2", "p3", "p4", "p5", ""]
    assert given.notes == []


def test_a_photograph_is_found_by_what_only_its_path_ends_with(tmp_path: Path) -> None:
    given = _read(tmp_path, attributes=GOOD.replace("faces/", ""))
    assert given.table.paths == tuple(NAMES)
    (tmp_path / "faces" / "more").mkdir()
    (tmp_path / "faces" / "more" / "1.jpg").touch()
    with pytest.raises(CelebflowError, match="line 2: 1.jpg can be faces/1.jpg or faces/more/1.jpg"):
        _read(tmp_path, attributes=GOOD.replace("faces/", ""))
    assert _read(tmp_path, attributes=GOOD).table.paths == tuple(NAMES)
    for folder in ("most", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").touch()
    with pytest.raises(CelebflowError, match="line 2: 1.jpg can be [a-z/]+1.jpg or [a-z/]+1.jpg or 2 more: write"):
        _read(tmp_path, attributes=GOOD.replace("faces/1", "1"))


def test_names_that_celebflow_keeps_from_being_formulas_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "=a.jpg").touch()
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "=b.jpg").touch()
    text = GOOD.replace("person,Hat", "person,'=Hat").replace("p0", "'-p0") + "'=a.jpg,,1,1\n'=b.jpg,,1,1\n"
    given = _read(tmp_path, used=[*NAMES, "=a.jpg", "faces/=b.jpg"], attributes=text)
    assert given.table.names == ("=Hat", "Smiling")
    assert [photo.person for photo in given.photos if photo.path in ("=a.jpg", NAMES[0])] == ["", "-p0"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD + "faces/9.jpg,,1,1\n", ["line 8", "faces/9.jpg is not one of the photographs", "remove the row"]),
        (GOOD.replace("faces/1", "ces/1"), ["line 2: ces/1.jpg is not one of the photographs"]),
        (GOOD + "attributes.csv,,1,1\n", ["line 8: attributes.csv is not one of the photographs"]),
        (GOOD.replace("faces/1", "faces\\1"), ["line 2", "but 'faces/1.jpg' is", "faces/1.jpg has no row", "add one"]),
        (GOOD + "faces/1.jpg,,1,1\n", ["line 8", "same photograph as in line 2"]),
        (GOOD + "1.jpg,,1,1\n", ["line 8", "same photograph as in line 2, faces/1.jpg", "remove one"]),
        (GOOD.replace("p1,1,1", "p1,yes,2"), ["line 3: Hat is yes, not 1, 0 or blank", "line 3: Smiling is 2"]),
        (GOOD.replace("p1,1,1", "p1,1"), ["line 3: it has 3 cells, and the first line 4", "faces/2.jpg has no row"]),
        (GOOD[:-4], ["line 7: it has 3 cells"]),
        (GOOD.replace("p0,0,0", "p0,-1,0"), ["both 0 and -1", "write 0 for no"]),
        (GOOD.replace("Smiling", "Hat"), ["2 columns are named Hat", "rename or remove"]),
        (GOOD.replace("Smiling", ""), ["1 columns have no name"]),
        (GOOD.replace("Smiling", "person"), ["2 columns are named person"]),
        (GOOD.replace("Smiling", "path"), ["a column is named path", "rename"]),
        (GOOD.replace("Smiling", "S" * 101), [f"the name {'S' * 100}… has more than 100 characters"]),
        (GOOD.replace("Smiling", "S\x1b"), ["the name S\\u001b holds control characters"]),
        (GOOD.replace("p1", "p\0"), ["line 3: the person p\\u0000 holds control characters"]),
        ("photograph,person\n" + "".join(f"{name},\n" for name in NAMES), ["names no attribute"]),
        (GOOD.replace("1\n", "\n").replace("0\n", "\n"), ["Smiling is blank everywhere", "remove the column"]),
        (GOOD.replace("1\n", "0\n"), ["Smiling is 1 for 0 people, and train, val and test need one each"]),
        (GOOD.replace("1\n", "0\n").replace("p2", ""), ["Smiling is 1 for 0 people or groups of near-duplicates"]),
        (GOOD.replace("p3", "p1"), ["Hat is 1 for 2 people", "Smiling is 1 for 2 people", "add photographs"]),
        ("photo,Hat\n", ["lacks the column photograph"]),
        ("", ["lacks the column photograph"]),
        ("photograph," + ",".join(map(str, range(1001))), ["1001 attributes", "at most 1000"]),
        (GOOD.replace("p1,1", f"p1,{'9' * 5000}"), [f"Hat is {'9' * 100}…"]),
        (GOOD.replace("p1,1", f"p1,{'9' * 200_000}"), ["field larger than field limit"]),
    ],
)
def test_faults_are_named_with_line_and_remedy(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(CelebflowError) as caught:
        _read(tmp_path, attributes=text)
    message = str(caught.value)
    assert str(tmp_path / "attributes.csv") in message
    assert [part for part in parts if part not in message] == []


def test_all_faults_are_one_list_that_ends_with_their_number(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match=r"(?s)line 2.*  and 3 more") as caught:
        _read(tmp_path, attributes=GOOD.replace("faces", "nowhere").replace("1\n", "x\n").replace("Smiling", ""))
    assert len(str(caught.value).splitlines()) == 13


def test_an_attribute_with_other_values_is_not_said_to_lack_a_kind_as_well(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match="Smiling is x, not 1, 0 or blank") as caught:
        _read(tmp_path, attributes=GOOD.replace("1\n", "x\n"))
    assert "train, val and test" not in str(caught.value)


def test_near_duplicates_count_once_where_nobody_is_known(tmp_path: Path) -> None:
    _read(tmp_path, attributes=GOOD)
    photos = [Photo(path, "", "", path, "one" if path in (NAMES[1], NAMES[3]) else path) for path in NAMES]
    without_people = "\n".join(f"{line.split(',')[0]},{line.split(',')[2]}" for line in GOOD.splitlines())
    (tmp_path / "attributes.csv").write_text(without_people, encoding="utf-8")
    with pytest.raises(CelebflowError, match="Hat is 1 for 2 people or groups of near-duplicates"):
        read_given_attributes(tmp_path, photos)


def test_rows_of_files_that_are_not_used_are_a_note(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").touch()
    given = _read(tmp_path, attributes=GOOD + "broken.jpg,p0,1,0\n")
    assert given.table.paths == tuple(NAMES)
    assert [note for note in given.notes if "attributes.csv has 1 rows" in note] == given.notes != []


def test_celeba_s_own_files_are_read_and_what_is_not_here_is_left_out(tmp_path: Path) -> None:
    people = "".join(f"{number}.jpg {number + 100}\n" for number in (1, 2, 3, 5, 7, 7))
    given = _read(tmp_path, list_attr_celeba=CELEBA, identity_CelebA=people)
    assert given.table.names == ("Hat", "Smiling")
    assert given.table.labels.tolist() == [[YES, YES], [NO, YES], [YES, YES], [NO, NO], [YES, NO], [NO, NO]]
    assert [photo.person for photo in given.photos] == ["101", "102", "103", "", "105", ""]
    (note,) = given.notes
    assert "1 rows" in note and "list_attr_celeba.txt" in note
    both = _read(tmp_path, attributes=GOOD)
    assert any("list_attr_celeba.txt is not used" in note for note in both.notes)
    assert any("identity_CelebA.txt is not used" in note and "column person" in note for note in both.notes)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (CELEBA.replace("7\n", "8\n", 1), "line 1: it says that there are 8 rows, but there are 7"),
        (CELEBA.replace("7\n", "6\n", 1), "line 1: it says that there are 6 rows, but there are 7"),
        (CELEBA.replace("7\n", "", 1), "line 1: not the number of photographs"),
        (CELEBA.replace("7\n", f"{'9' * 5000}\n", 1), "line 1: not the number of photographs"),
        ("7", "line 1: not the number of photographs"),
        ("", "line 1: not the number of photographs"),
        (CELEBA.replace("Smiling", "Hat"), "2 columns are named Hat"),
        (CELEBA.replace("4.jpg -1", "4.jpg"), "line 6: it has 1 values, and there are 2 attributes"),
        (CELEBA.replace("4.jpg -1", "4.jpg -1 1"), "line 6: it has 3 values, and there are 2 attributes"),
        (CELEBA.replace("4.jpg", "9.jpg"), "faces/4.jpg has no row"),
        (CELEBA.replace("4.jpg -1", "4.jpg  x"), "line 6: Hat is x, not 1, 0 or blank"),
    ],
)
def test_faults_of_celeba_s_list_are_named(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(CelebflowError) as caught:
        _read(tmp_path, list_attr_celeba=text)
    assert str(tmp_path / "list_attr_celeba.txt") in str(caught.value)
    assert part in str(caught.value)


def test_faults_of_celeba_s_people_are_named(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError) as caught:
        _read(tmp_path, list_attr_celeba=CELEBA, identity_CelebA=f"1.jpg 5\n1.jpg 6\n\n2.jpg {'9' * 5000}\n")
    assert "identity_CelebA.txt, line 2: 1.jpg has another number above" in str(caught.value)
    assert "identity_CelebA.txt, line 4: not the name of a file and the number of a person" in str(caught.value)


def test_celeba_s_people_of_other_files_are_refused_instead_of_nobody_being_known(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match=r"identity_CelebA\.txt names none of the files.*copy it again"):
        _read(tmp_path, list_attr_celeba=CELEBA, identity_CelebA="1.png 101\n2.png 102\n")


@pytest.mark.parametrize(
    ("kept", "missing"), [("1.jpg 2880\n2.jpg 28", 4), ("1.jpg 1\n2.jpg 2\n3.jpg 3\n4.jpg 4\n5.jpg 5\n", 1)]
)
def test_celeba_s_people_that_end_before_the_photographs_do_are_refused(
    tmp_path: Path, kept: str, missing: int
) -> None:
    with pytest.raises(CelebflowError, match=rf"identity_CelebA\.txt ends before the last {missing} of.*copy it again"):
        _read(tmp_path, list_attr_celeba=CELEBA, identity_CelebA=kept)


def test_celeba_s_people_may_end_where_the_photographs_that_are_here_do(tmp_path: Path) -> None:
    people = "".join(f"{number}.jpg {number}\n" for number in range(1, 7))  # the list has a seventh
    given = _read(tmp_path, list_attr_celeba=CELEBA, identity_CelebA=people)
    assert [photo.person for photo in given.photos] == [*"123456"]


@pytest.mark.parametrize("word", ["nan", "None", "unknown", "-", "N/A"])
def test_a_person_whose_name_says_that_nobody_is_known_is_told(tmp_path: Path, word: str) -> None:
    (note,) = _read(tmp_path, attributes=GOOD.replace("p1", word)).notes
    assert f"{word} (1 photographs)" in note and "blank" in note
    text = re.sub("p[0-9]", word, GOOD)
    with pytest.raises(CelebflowError, match=rf"(?s)Hat is 1 for 1 people.*{re.escape(word)} \(6 photographs\).*blank"):
        _read(tmp_path, attributes=text)


def test_a_table_that_is_not_there_or_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match=r"attributes\.csv is missing.*photograph.*list_attr_celeba\.txt"):
        _read(tmp_path)
    with pytest.raises(CelebflowError, match="no photograph"):
        _read(tmp_path, used=[], attributes=GOOD)
    table = tmp_path / "attributes.csv"
    table.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(CelebflowError, match="attributes.csv cannot be read.*UTF-8"):
        _read(tmp_path)
    table.unlink()
    for target in ("nowhere", table, tmp_path):
        table.symlink_to(target)
        with pytest.raises(CelebflowError, match="attributes.csv cannot be read"):
            _read(tmp_path)
        table.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(table)
        with pytest.raises(CelebflowError, match="attributes.csv is not a file"):
            _read(tmp_path)
        table.rename(tmp_path / make.__name__)


_PIECES = ["photograph", "person", "Hat", "faces/1.jpg", "1.jpg", "\t", "\n", "\r", ",", " ", '"', "'", "=", "-1", "0"]
_PIECES += ["1", "\0", "\ufeff", "²", "9" * 5000, "é", "\udc80", "\u2028", GOOD, CELEBA]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["attributes.csv", "list_attr_celeba.txt", "identity_CelebA.txt"]),
    st.lists(st.sampled_from(_PIECES)),
)
def test_tables_of_any_content_are_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, name: str, pieces: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "list_attr_celeba.txt").write_text(CELEBA, encoding="utf-8")
    (folder / name).write_bytes("".join(pieces).encode("utf-8", "surrogateescape"))
    try:
        _read(folder)
    except CelebflowError as error:
        assert name in str(error)


@pytest.mark.parametrize(
    ("name", "remedy"), [("Split", "splits the photographs itself"), ("person_id", "called person")]
)
def test_a_column_that_is_likely_no_attribute_is_told(tmp_path: Path, name: str, remedy: str) -> None:
    (note,) = _read(tmp_path, attributes=GOOD.replace("Hat", name)).notes
    assert f"likely no attribute, but it counts as one: {name}. If so" in note and remedy in note


def test_people_and_attributes_with_two_spellings_are_told(tmp_path: Path) -> None:
    text = GOOD.replace("p1", "Ada Brown").replace("p2", "ada_brown").replace("Hat", "smiling")
    people, attributes = _read(tmp_path, attributes=text).notes
    assert "Ada Brown and ada_brown" in people and "same person" in people and "several splits" in people
    assert "Smiling and smiling" in attributes and "same attribute" in attributes
    text = GOOD.replace("p1", "Zo\u00eb").replace("p2", "Zoe\u0308")
    (people,) = _read(tmp_path, attributes=text).notes
    assert "Zo\\xeb" in people and "Zoe\\u0308" in people
