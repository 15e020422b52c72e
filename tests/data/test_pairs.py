"""Pairs are read with every fault named, and drawn evenly; nobody is in two splits."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celebflow.data.given_pairs import read_given_pairs, read_pair_rows
from celebflow.data.pairs import Pair, draw_pairs, load_folds, load_pairs, save_folds, save_pairs
from celebflow.data.person_splits import split_people
from celebflow.data.photos import SPLITS, UNKNOWN, Photo
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams

PARAMS = PrepareParams()


def _make_photos(counts: dict[str, int], split: str = "") -> list[Photo]:
    return [
        Photo(f"{person}/{person}_{number:04}.jpg", person, split, f"{person} {number}", f"{person} {number}")
        for person, count in counts.items()
        for number in range(1, count + 1)
    ]


PHOTOS = _make_photos({"Ann": 3, "Bo": 2, "Cy": 2, "Dee": 2, "Eve": 2, "Flo": 2, "Gus": 1})
ANN, BO, CY = (f"{name}/{name}_000" for name in ("Ann", "Bo", "Cy"))
GOOD = f"first,second,same\n{ANN}1.jpg,{ANN}2.jpg,1\n{ANN}1.jpg,{BO}1.jpg,0\n"


def _write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_given_pairs_are_read_in_their_order(tmp_path: Path) -> None:
    given = read_given_pairs(_write(tmp_path, "pairs.csv", GOOD), PHOTOS)
    assert given is not None and given.fold_of == {}
    assert [(pair.first, pair.second, pair.same) for pair in given.pairs] == [
        (f"{ANN}1.jpg", f"{ANN}2.jpg", 1),
        (f"{ANN}1.jpg", f"{BO}1.jpg", 0),
    ]
    assert read_given_pairs(tmp_path / "nowhere", PHOTOS) is None


def test_names_with_spaces_stand_between_tabs_in_lfw_s_list(tmp_path: Path) -> None:
    photos = _make_photos({"Ann Lee": 2, "Bo de la Cruz": 1})
    text = "1\nAnn Lee\t1\t2\nAnn Lee\t2\tBo de la Cruz\t1\t\n"
    given = read_given_pairs(_write(tmp_path, "pairs.txt", text), photos)
    assert given is not None
    assert [(pair.first, pair.second, pair.same) for pair in given.pairs] == [
        (photos[0].path, photos[1].path, 1),
        (photos[1].path, photos[2].path, 0),
    ]


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.txt"])
def test_pairs_of_files_that_are_not_used_are_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "Ann").mkdir()
    (tmp_path / f"{ANN}1.jpg").write_bytes(b"a photograph")
    (tmp_path / f"{ANN}8.jpg").write_bytes(b"damaged")
    unused = f"{ANN}8.jpg,{BO}1.jpg,0\n{ANN}2.jpg,{ANN}8.jpg,1\n"
    text = GOOD + unused if name == "pairs.csv" else "2\nAnn 1 2\nAnn 2 8\nAnn 1 Bo 1\nAnn 8 Bo 1\n"
    given = read_given_pairs(_write(tmp_path, name, text), PHOTOS)
    assert given is not None and given.unused_count == 2
    assert [(pair.first, pair.second) for pair in given.pairs] == [
        (f"{ANN}1.jpg", f"{ANN}2.jpg"),
        (f"{ANN}1.jpg", f"{BO}1.jpg"),
    ]
    with pytest.raises(CelebflowError, match="Ann_0009.* is not one of the photographs"):
        read_given_pairs(_write(tmp_path, name, text.replace("8", "9")), PHOTOS)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD + f"{ANN}9.jpg,{ANN}2.jpg,1\n", ["line 4", f"{ANN}9.jpg is not one of the photographs"]),
        (GOOD + f"{ANN}1.jpg,{ANN}1.jpg,1\n", ["line 4", "paired with itself"]),
        (GOOD + f"{ANN}2.jpg,{ANN}1.jpg,1\n", ["line 4", "same pair as in line 2"]),
        (GOOD + f"{ANN}2.jpg,{BO}1.jpg,1\n", ["line 4", "said to show the same person"]),
        (GOOD + f"{ANN}2.jpg,{ANN}3.jpg,0\n", ["line 4", "said to show two people"]),
        (GOOD + f"{ANN}2.jpg,{ANN}3.jpg,yes\n", ["line 4", "'yes', not 0 or 1"]),
        (GOOD + f"{ANN}2.jpg,{ANN}3.jpg\n", ["line 4", "another number of cells"]),
        (GOOD + f"./{ANN}2.jpg,{ANN}3.jpg,1\n", ["line 4", f"./{ANN}2.jpg is not", f"but '{ANN}2.jpg' is"]),
        (GOOD + f"data/{ANN}2.jpg,{ANN}3.jpg,1\n", ["line 4", f"but '{ANN}2.jpg' is"]),
        (GOOD + f" {ANN}2.jpg,{ANN}3.jpg,1\n", ["line 4", f"but '{ANN}2.jpg' is"]),
        (GOOD + f"ann\\Ann_0002.JPG,{ANN}3.jpg,1\n", ["line 4", f"but '{ANN}2.jpg' is"]),
        (GOOD + f"Zoe\u0301/1.jpg,{ANN}3.jpg,0\n", ["line 4", "but 'Zo\\xe9/1.jpg' is"]),
        ("first;second;same\n", ["lacks the column first, second, same", "commas"]),
        ("first,second\n", ["lacks the column same", "first,second,same"]),
        ("", ["lacks the column first, second, same"]),
        ("\0", ["lacks the column"]),
        (f"first,second,same\n{ANN}1.jpg,{ANN}2.jpg,1\n", ["no pair of two people"]),
        (f"first,second,same\n{ANN}1.jpg,{BO}2.jpg,0\n", ["no pair of the same person"]),
        ("first,second,same\n", ["no pair"]),
        (f"first,second,same,fold\n{ANN}1.jpg,{ANN}2.jpg,1,0\n", ["line 2", "fold is '0'"]),
        (f"first,second,same,fold\n{ANN}1.jpg,{ANN}2.jpg,1,a\n", ["line 2", "fold is 'a'"]),
        (f"first,second,same,fold\n{ANN}1.jpg,{ANN}2.jpg,1,\n", ["line 2", "fold is ''"]),
        (
            f"first,second,same,fold\n{ANN}1.jpg,{ANN}2.jpg,1,1\n{ANN}1.jpg,{BO}2.jpg,0,2\n",
            ["line 3", "Ann is in fold 1 and in fold 2"],
        ),
        (
            f"first,second,same,fold\n{ANN}1.jpg,{ANN}2.jpg,1,1\n{CY}1.jpg,{BO}2.jpg,0,2\n",
            ["2 folds, and at least 3"],
        ),
    ],
)
def test_faults_of_pairs_are_named_with_file_line_and_remedy(tmp_path: Path, text: str, parts: list[str]) -> None:
    photos = [*PHOTOS, Photo("Zo\xe9/1.jpg", "Zo\xe9", "", "Zo\xe9", "Zo\xe9")]
    with pytest.raises(CelebflowError) as caught:
        read_given_pairs(_write(tmp_path, "pairs.csv", text), photos)
    for part in (str(tmp_path / "pairs.csv"), *parts):
        assert part in str(caught.value)


def test_cells_of_any_length_and_content_leave_messages_readable(tmp_path: Path) -> None:
    for row in (f"{'x' * 100_000},{ANN}1.jpg,1", f"{ANN}1.jpg,{ANN}2.jpg,{'x' * 100_000}", f"\x1b[31m,{ANN}1.jpg,1"):
        with pytest.raises(CelebflowError, match="line 2") as caught:
            read_given_pairs(_write(tmp_path, "pairs.csv", f"first,second,same\n{row}\n"), PHOTOS)
        assert len(str(caught.value)) < 1000 and "\x1b" not in str(caught.value)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    text = GOOD + "".join(f"x{number}.jpg,{ANN}1.jpg,0\n" for number in range(25))
    with pytest.raises(CelebflowError, match="and 15 more") as caught:
        read_given_pairs(_write(tmp_path, "pairs.csv", text), PHOTOS)
    assert str(caught.value).count("is not one of the photographs") == 10


LFW = "3\t1\nAnn\t1\t2\nAnn\t1\tBo\t2\nCy\t1\t2\nCy\t1\tDee\t2\nEve\t1\t2\nEve\t1\tFlo\t2\n"


def test_lfw_s_own_list_is_read_with_its_folds(tmp_path: Path) -> None:
    given = read_given_pairs(_write(tmp_path, "pairs.txt", LFW), PHOTOS)
    assert given is not None
    assert given.pairs[1] == Pair(f"{ANN}1.jpg", f"{BO}2.jpg", 0, "", 1)
    assert given.fold_of == {"Ann": 1, "Bo": 1, "Cy": 2, "Dee": 2, "Eve": 3, "Flo": 3}
    spaced = LFW.replace("\nCy\t1\t2", "\n\n\nCy\t1\t2") + "\n"
    assert read_given_pairs(_write(tmp_path, "pairs.txt", spaced), PHOTOS) == given, "empty lines do not count"
    one = read_given_pairs(_write(tmp_path, "pairs.txt", "1\nAnn\t1\t2\nAnn\t1\tBo\t2\n"), PHOTOS)
    assert one is not None and one.fold_of == {}
    spaced = "\ufeff" + LFW.replace("\nCy", "\n\nCy", 1)
    assert read_given_pairs(_write(tmp_path, "pairs.txt", spaced), PHOTOS) == given


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "line 1"),
        ("ten\n", "line 1"),
        ("10\t300\t2\n", "line 1"),
        ("10\t" + 5000 * "1" + "\n", "line 1"),
        ("1\nAnn\t1\t" + 5000 * "1" + "\n", "line 2"),
        (LFW.replace("3", "9" * 5000), "line 1"),
        (LFW.replace("3", "10"), "says that there are 20 pairs, but there are 6"),
        (LFW.rsplit("\n", 2)[0], "says that there are 6 pairs, but there are 5"),
        (LFW.replace("3\t1", "0\t0"), "says that there are 0 pairs"),
        ("1\nAnn\tone\t2\n", "line 2"),
        (f"1\nAnn\t{'9' * 5000}\t2\n", "line 2"),
        ("1\nGus\t2\t1\nGus\t1\tAnn\t1\n", "line 2: Gus/Gus_0002 can be Gus/Gus_0002.jpg or Gus/Gus_0002.png"),
        ("1\nAnn\t1\n", "line 2"),
        ("1\nAnn\t1\t9\nAnn\t1\tBo\t1\n", "Ann/Ann_0009 is not one of the photographs"),
    ],
)
def test_faults_of_lfw_s_list_are_named(tmp_path: Path, text: str, part: str) -> None:
    twins = [replace(PHOTOS[-1], path=f"Gus/Gus_0002.{extension}") for extension in ("jpg", "png")]
    with pytest.raises(CelebflowError, match=r"pairs\.txt") as caught:
        read_given_pairs(_write(tmp_path, "pairs.txt", text), [*PHOTOS, *twins])
    assert part in str(caught.value)


def test_folds_become_splits_and_people_csv_adds_to_them(tmp_path: Path) -> None:
    _write(tmp_path, "pairs.txt", LFW)
    split = split_people(PHOTOS, [], PARAMS, tmp_path)
    assert {photo.person: photo.split for photo in split.photos} == {
        **dict.fromkeys(("Ann", "Bo", "Gus"), "train"),
        **dict.fromkeys(("Cy", "Dee"), "val"),
        **dict.fromkeys(("Eve", "Flo"), "test"),
    }
    assert Counter((pair.split, pair.fold, pair.same) for pair in split.pairs) == {
        (name, fold, same): 1 for name, fold in (("train", 1), ("val", 2), ("test", 3)) for same in (0, 1)
    }
    assert any("1 people are in no pair" in note for note in split.notes)
    _write(tmp_path, "people.csv", "person,fold,photographs\nGus,3,1\nNobody,1,4\n")
    split = split_people(PHOTOS, [], PARAMS, tmp_path)
    assert split.fold_of["Gus"] == 3 and "Nobody" not in split.fold_of
    assert {photo.split for photo in split.photos if photo.person == "Gus"} == {"test"}
    for fold, reason in (("1", "in fold 3 in the pairs"), ("x", "not a number")):
        _write(tmp_path, "people.csv", f"person,fold\nEve,{fold}\n")
        with pytest.raises(CelebflowError, match=rf"people\.csv, line 2.*Eve.*{reason}"):
            split_people(PHOTOS, [], PARAMS, tmp_path)


@pytest.mark.parametrize(
    ("folder", "written"),
    [
        ("Zo\xe9 Lee", "Zoe\u0301 Lee"),
        ("Zo\xe9 Lee", "Zoe Lee"),
        ("Zo\xe9 Lee", "Zo\xe9_Lee"),
        ("Zo\xe9 Lee", "Zo\xe9 Lee "),
        ("Zo\xe9 Lee", " zo\xe9 lee"),
        ("Zoe\u0301 Lee", "Zo\xe9 Lee"),
    ],
)
def test_a_name_with_a_fold_that_is_written_in_another_way_is_told(tmp_path: Path, folder: str, written: str) -> None:
    photos = [*PHOTOS, *_make_photos({folder: 2})]
    _write(_write(tmp_path, "pairs.txt", LFW), "people.csv", f"person,fold\nGus,1\n{written},1\n")
    with pytest.raises(CelebflowError, match=r"people\.csv.*\n.*line 3: .*not one of the people, but ") as caught:
        split_people(photos, [], PARAMS, tmp_path)
    assert f"'{written}' is" in str(caught.value) and f"but {folder!a} is" in str(caught.value)
    assert "prepare.seed" not in str(caught.value), "the pairs are right"
    _write(tmp_path, "people.csv", f"person,fold\n{folder},1\n{written},2\n")
    split = split_people(photos, [], PARAMS, tmp_path)
    assert split.fold_of[folder] == 1, "the other one may be somebody who is not here"
    assert any(f"1 rows of {tmp_path / 'people.csv'} name nobody" in note for note in split.notes)


def test_rows_of_folds_that_name_nobody_and_people_whom_none_names_are_counted(tmp_path: Path) -> None:
    photos = [*PHOTOS, *_make_photos({"=Hal": 1, "Ida": 1})]
    (tmp_path / "ida").mkdir()
    (tmp_path / "ida" / "1.jpg").write_bytes(b"damaged")
    rows = "Gus,1\n'=Hal,2\nNobody,1\nida,9\n,1\n"
    _write(_write(tmp_path, "pairs.txt", LFW), "people.csv", f"person,fold\n{rows}")
    split = split_people(photos, [], PARAMS, tmp_path)
    assert split.fold_of["=Hal"] == 2
    [note] = [note for note in split.notes if "name nobody" in note]
    assert note.startswith("3 rows") and "people.csv" in note
    [note] = [note for note in split.notes if "in no pair" in note]
    assert note.startswith("1 people") and note.endswith("which does not name them: Ida.") and "Add them" in note
    (tmp_path / "people.csv").unlink()
    [note] = [note for note in split_people(photos, [], PARAMS, tmp_path).notes if "in no pair" in note]
    assert note.startswith("3 people") and "A table people.csv" in note


def test_folds_of_people_that_cannot_count_are_told(tmp_path: Path) -> None:
    for text, reason in (
        ("Gus,4\n", r"line 2: Gus is in fold 4, in which there is no pair\. Correct it"),
        ("Gus,1\nGus,2\n", "line 3: Gus is in fold 2, but in fold 1 in line 2"),
    ):
        _write(_write(tmp_path, "pairs.txt", LFW), "people.csv", f"person,fold\n{text}")
        with pytest.raises(CelebflowError, match=rf"people\.csv, {reason}"):
            split_people(PHOTOS, [], PARAMS, tmp_path)
    photos = _make_photos(dict.fromkeys("abcdefgh", 4))
    (tmp_path / "pairs.txt").unlink()
    split = split_people(photos, [], PARAMS, tmp_path)
    assert any("people.csv is not used" in note and "pairs.csv" in note for note in split.notes)
    assert not any("people.csv" in note for note in split_people(photos, [], PARAMS, Path("nowhere")).notes)


def test_a_second_list_of_pairs_that_is_not_used_is_told(tmp_path: Path) -> None:
    photos = _make_photos(dict.fromkeys("abcdefgh", 4))
    _write(tmp_path, "pairs.txt", LFW)
    pairs = [
        f"{one}/{one}_0001.jpg,{other}/{other}_0002.jpg,{int(one == other)},{fold}"
        for fold, (first, second) in enumerate((("a", "b"), ("c", "d"), ("e", "f")), 1)
        for one, other in ((first, first), (first, second))
    ]
    _write(tmp_path, "pairs.csv", "\n".join(["first,second,same,fold", *pairs]))
    notes = split_people(photos, [], PARAMS, tmp_path).notes
    assert any("pairs.txt is not used" in note and "pairs.csv is" in note for note in notes)
    (tmp_path / "pairs.txt").unlink()
    assert not any("pairs.txt" in note for note in split_people(photos, [], PARAMS, tmp_path).notes)


def test_pairs_behind_a_broken_link_are_not_drawn_instead(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").symlink_to("gone")
    with pytest.raises(CelebflowError, match=r"pairs\.csv cannot be read \(No such file"):
        read_given_pairs(tmp_path, PHOTOS)
    (tmp_path / "pairs.csv").unlink()
    (tmp_path / "pairs.csv").mkdir()  # of a person
    os.mkfifo(tmp_path / "pairs.txt")  # nobody would ever write to it
    assert read_given_pairs(tmp_path, PHOTOS) is None


def test_names_that_celebflow_keeps_from_being_formulas_are_read_back(tmp_path: Path) -> None:
    photos = _make_photos({"=A": 2, "'-B": 1})
    pairs = [Pair(photos[0].path, photos[1].path, 1, "", 0), Pair(photos[0].path, photos[2].path, 0, "", 0)]
    save_pairs(pairs, tmp_path / "saved.csv")
    text = (tmp_path / "saved.csv").read_text(encoding="utf-8")
    assert "'=A/" in text and "''-B/" in text
    _write(tmp_path, "pairs.csv", text.replace(",fold", ",unused"))
    given = read_given_pairs(tmp_path, photos)
    assert given is not None and given.pairs == pairs
    name = "-x.jpg"
    _write(tmp_path, name, "")
    _write(tmp_path, "my.csv", "first,second\n'-x.jpg,'-gone.jpg\n")
    assert read_pair_rows(tmp_path / "my.csv") == [(str(tmp_path / name), str(tmp_path / "-gone.jpg"))]


def test_pairs_and_folds_are_read_as_written(tmp_path: Path) -> None:
    pairs = [Pair("a/1.jpg", "b/1.jpg", 0, "val", 3), Pair("=a/1.jpg", "é/2.jpg", 1, "test", 0)]
    save_pairs(pairs, tmp_path / "pairs.csv")
    assert load_pairs(tmp_path / "pairs.csv") == pairs
    save_folds({"b": 2, "a": 1}, tmp_path / "folds.csv")
    assert load_folds(tmp_path / "folds.csv") == {"a": 1, "b": 2}


def test_rows_of_pairs_are_relative_to_their_file(tmp_path: Path) -> None:
    _write(tmp_path, "my.csv", "name,first,second\nx,a.jpg,b/c.jpg\n")
    assert read_pair_rows(tmp_path / "my.csv") == [(str(tmp_path / "a.jpg"), str(tmp_path / "b" / "c.jpg"))]
    with pytest.raises(CelebflowError, match=r"my\.csv lacks the column second"):
        read_pair_rows(_write(tmp_path, "my.csv", "first\n") / "my.csv")
    with pytest.raises(CelebflowError, match=r"none\.csv cannot be read \(No such file.*Check that path"):
        read_pair_rows(tmp_path / "none.csv")
    for row, reason in ((",b.jpg", "first is empty"), ("a.jpg, ", "second is empty"), ("a.jpg", "number of cells")):
        with pytest.raises(CelebflowError, match=rf"my\.csv, line 2: .*{reason}") as caught:
            read_pair_rows(_write(tmp_path, "my.csv", f"first,second\n{row}\n") / "my.csv")
        assert "prepare.seed" not in str(caught.value), "which has nothing to do with pairs to verify"


def test_drawn_pairs_are_as_many_of_each_kind_and_shared_out_among_people() -> None:
    photos = _make_photos({"Ann": 300, "Bo": 4, "Cy": 3, "Dee": 1, "Eve": 1}, "val")
    pairs = draw_pairs(photos, "val", 0, 40)
    assert Counter(pair.same for pair in pairs) == {0: 20, 1: 20}
    assert len({frozenset((pair.first, pair.second)) for pair in pairs}) == 40
    people = Counter(pair.first.split("/")[0] for pair in pairs if pair.same)
    assert people == {"Ann": 11, "Bo": 6, "Cy": 3}, "turn by turn, until a person has no more pairs"
    named = {name for pair in pairs if not pair.same for name in (pair.first[:3], pair.second[:3])}
    assert {"Dee", "Eve"} <= named, "people with one photograph are in pairs of two people"
    assert all(pair.first.split("/")[0] != pair.second.split("/")[0] for pair in pairs if not pair.same)
    assert draw_pairs(photos[::-1], "val", 0, 40) == pairs, "the order of files does not matter"
    assert draw_pairs(photos, "val", 1, 40) != pairs


def test_near_duplicates_make_no_pair() -> None:
    photos = [replace(photo, group="copies") for photo in _make_photos({"Ann": 5}, "val")]
    pairs = draw_pairs([*photos, *_make_photos({"Bo": 2}, "val")], "val", 0, 100)
    assert Counter(pair.same for pair in pairs) == {0: 1, 1: 1}
    assert all(pair.first.startswith("Bo/") for pair in pairs if pair.same)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 6), min_size=6, max_size=30),
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=4),
)
def test_nobody_is_in_two_splits_and_near_duplicates_stay_together(
    counts: list[int], seed: int, copied: list[tuple[int, int]]
) -> None:
    photos = _make_photos({f"p{number}": count for number, count in enumerate(counts)})
    for one, other in copied:
        if max(one, other) < len(photos):
            photos[other] = replace(photos[other], group=photos[one].group)
    try:
        split = split_people(photos, [], PrepareParams(seed=seed, max_pairs=50), Path("nowhere"))
    except CelebflowError as error:
        assert "two photographs" in str(error) or "pair" in str(error)
        return
    for key in ("person", "group"):
        splits: dict[str, set[str]] = {}
        for photo in split.photos:
            splits.setdefault(getattr(photo, key), set()).add(photo.split)
        assert all(len(found) == 1 for found in splits.values()), key
    split_of = {photo.path: photo.split for photo in split.photos}
    assert all(split_of[pair.first] == split_of[pair.second] == pair.split for pair in split.pairs)
    for name in SPLITS:
        kinds = Counter(pair.same for pair in split.pairs if pair.split == name)
        assert kinds[0] == kinds[1] > 0


def test_too_few_people_are_an_error_with_the_remedy() -> None:
    with pytest.raises(CelebflowError, match="5 people with two photographs.*at least 6.*Add photographs"):
        split_people(_make_photos(dict.fromkeys("abcde", 3)), [], PARAMS, Path("nowhere"))
    shared = [replace(photo, group="one") if photo.path.endswith("1.jpg") else photo for photo in PHOTOS]
    with pytest.raises(CelebflowError, match="share near-duplicates"):
        split_people(shared, [], PARAMS, Path("nowhere"))


def test_photographs_of_unknown_people_are_in_no_pair(tmp_path: Path) -> None:
    unknown = [
        replace(photo, path=f"unknown/{photo.path}", split=UNKNOWN) for photo in _make_photos({"Una": 3, "Uwe": 2})
    ]
    split = split_people([*unknown, *PHOTOS], [], PARAMS, tmp_path)
    without = split_people(PHOTOS, [], PARAMS, tmp_path)
    assert (split.photos, split.pairs, split.unknown) == (without.photos, without.pairs, [])
    assert any("5 photographs" in note and "prepare.unknown_folder" in note for note in split.notes)


def test_pairs_across_splits_are_left_out_and_counted(tmp_path: Path) -> None:
    photos = _make_photos(dict.fromkeys("abcdefgh", 4))
    lines = [f"{p}/{p}_0001.jpg,{p}/{p}_0002.jpg,1" for p in "abcdefgh"]
    lines += [f"{p}/{p}_0001.jpg,{q}/{q}_0002.jpg,0" for p in "abcdefgh" for q in "abcdefgh" if p < q]
    _write(tmp_path, "pairs.csv", "\n".join(["first,second,same", *lines]) + "\n")
    split = split_people(photos, ["empty", *"abcdefgh"], PARAMS, tmp_path)
    assert any("pairs are not used" in note and "Folds" in note for note in split.notes)
    assert any("no photograph: empty" in note for note in split.notes)
    given = {tuple(line.split(",")[:2]) for line in lines}
    assert all((pair.first, pair.second) in given for pair in split.pairs if pair.split != "train")


_PIECES = [
    "first,second,same",
    ",fold\n",
    "person,fold\n",
    ANN,
    "1.jpg",
    "Ann",
    "Bo",
    "\t",
    "\n",
    "\r",
    ",",
    '"',
    "'",
    "=",
]
_PIECES += ["\0", "\ufeff", "0", "1", "3", "²", "9" * 5000, "é", "\udc80", "\u2028"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["pairs.csv", "pairs.txt", "people.csv", "my.csv"]), st.lists(st.sampled_from(_PIECES)))
def test_tables_of_any_content_are_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, name: str, pieces: list[str]
) -> None:
    folder = _write(tmp_path_factory.mktemp("any"), "pairs.txt", LFW)
    (folder / name).write_bytes("".join(pieces).encode("utf-8", "surrogateescape"))
    try:
        read_given_pairs(folder, PHOTOS)
        read_pair_rows(folder / name)
    except CelebflowError as error:
        assert name in str(error)
