"""Folders that are not people are refused with the remedy, and names that are likely one person are told."""

import unicodedata
from functools import partial
from pathlib import Path

import pytest

from celebflow.data.layout import check_layout, find_similar_names, list_notes, list_similar_names
from celebflow.errors import CelebflowError

LOOKALIKES = str.maketrans("\u0410\u0421\u0435\u043e\u0445\u0391\u03bf", "ACeoxAo")
unicode_form = partial(unicodedata.normalize, "NFC")
DATA = Path("data")
PEOPLE = ["Ann/0.jpg", "Ann/1.jpg", "Bo/album/0.jpg", "Cy/one/0.jpg", "Cy/two/0.jpg"]


@pytest.mark.parametrize(
    ("paths", "parts"),
    [
        (["train/Ann/0.jpg", "val/Ann/1.jpg", "test/Bo/2.jpg"], ["data/train", "data/val", "splits, not people"]),
        (["Training/Ann/0.jpg", "Validation/Ann/1.jpg"], ["data/Training", "prepare.val_fraction"]),
        (["train_images/Ann/0.jpg", "Test Set/Ann/1.jpg"], ["data/train_images", "splits, not people"]),
        (["faces/Ann/0.jpg", "faces/Bo/album/1.jpg"], ["one folder, data/faces.", "up to data"]),
        (["lfw/lfw/Ann/0.jpg", "lfw/lfw/Bo/1.jpg"], ["one folder, data/lfw/lfw.", "up to data"]),
        (["0.jpg", "1.jpg"], ["no folder of a person", "data/Ada Brown"]),
    ],
)
def test_layouts_of_other_tools_are_refused_with_the_remedy(paths: list[str], parts: list[str]) -> None:
    with pytest.raises(CelebflowError) as caught:
        check_layout(DATA, paths)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "paths",
    [[], PEOPLE, ["train/0.jpg", "test/1.jpg"], ["train/a/0.jpg", "Ann/0.jpg"], ["Ann/0.jpg"], [*PEOPLE, "stray.jpg"]],
)
def test_folders_of_people_are_accepted_whatever_their_names(paths: list[str]) -> None:
    check_layout(DATA, paths)


def test_a_folder_with_the_name_of_a_split_is_told_among_people() -> None:
    (note,) = list_notes(["Test/0.jpg", "train/Ann/0.jpg", "Ann/0.jpg"])
    assert "counts as a person: Test, train" in note


@pytest.mark.parametrize("names", [("train_images", "test_images"), ("Trainset", "1 test data"), ("fold_1", "fold_2")])
def test_a_folder_of_photographs_of_a_split_is_told(names: tuple[str, str]) -> None:
    (note,) = list_notes([f"{name}/0.jpg" for name in names])
    assert f"By its name, a split of other tools counts as a person: {', '.join(sorted(names))}." in note


@pytest.mark.parametrize(
    "name",
    [
        "thumbnails",
        "New folder (2)",
        "Faces",
        "Trash",
        "Recycle Bin",
        "_thumbs",
        "images 2",
        "Original Images",
        "Papierkorb",
        "Corbeille",
        "Papelera de reciclaje",
        "Neuer Ordner (2)",
        "homes",
        "Thumbs",
        "Lightroom",
        "Lightroom Catalog-2",
        "Capture One Catalog",
        "Photos from 2019",
        "Fotos von 2019",
        "Camera Roll",
        "Camera",
        "Recents",
        "Favorites",
        "Archive",
        "Failed Videos",
        "My Photos",
        "2021-07-14",
        "2021-07-14 Wedding",
        "100APPLE",
        "101MSDCF",
        "100_PANA",
    ],
)
def test_a_folder_whose_name_says_what_it_holds_is_told(name: str) -> None:
    (note,) = list_notes([*PEOPLE, f"{name}/0.jpg"])
    assert f"likely no person, but it counts as one: {name}. Move" in note


@pytest.mark.parametrize(
    "name",
    [
        "Neuer",
        "Nouveau",
        "Li De",
        "Ada Homes",
        "Classic",
        "CC",
        "Roll",
        "My",
        "Von",
        "Ada Camera",
        "007",
        "2021-13-14",
        "123Smith",
    ],
)
def test_a_name_that_a_person_can_have_is_not_taken_for_what_a_folder_holds(name: str) -> None:
    assert list_notes([*PEOPLE, f"{name}/0.jpg"]) == []


def test_an_archive_in_a_folder_of_its_name_is_told() -> None:
    paths = [
        "Faces/Faces/Ann_0.jpg",
        "Original Images/Original Images/Ann/0.jpg",
        "Original Images/Original Images/Bo/0.jpg",
    ]
    notes = list_notes(paths)
    assert "Each of Faces, Original Images counts as one person" in notes[0]
    assert "likely no person, but it counts as one: Faces, Original Images" in notes[1]


@pytest.mark.parametrize("place", ["Bo", "bo", "album/Bo"])
def test_a_folder_of_somebody_in_that_of_somebody_else_is_told(place: str) -> None:
    (note,) = list_notes([*PEOPLE, f"Ann/{place}/2.jpg"])
    assert f"Ann/{place} counts as Ann, but has the name of Bo" in note


def test_a_folder_of_somebody_in_one_of_the_same_name_is_that_persons() -> None:
    assert list_notes(["Ann/Ann/0.jpg", "Ann/ann/1.jpg", "Bo/0.jpg"]) == []


def test_folders_of_first_letters_are_told() -> None:
    (note,) = list_notes(["A/Ada Brown/0.jpg", "B/Bo Green/0.jpg"])
    assert "Each of A, B counts as one person" in note


def test_folders_of_folders_are_told() -> None:
    (note,) = list_notes(["men/Ann/0.jpg", "men/Bo/0.jpg", "women/Cy/0.jpg", "women/Di/0.jpg"])
    assert "men, women counts as one person" in note
    assert list_notes(PEOPLE) == []


@pytest.mark.parametrize(
    ("paths", "groups"),
    [
        (["A/Ada/0.jpg", "A/Amy/0.jpg", "B/Bo/0.jpg"], "A, B"),
        (["men/Ann/0.jpg", "men/Bo/0.jpg", "men/stray.jpg", "women/Cy/0.jpg", "women/Di/0.jpg"], "men, women"),
        (["men/Ann/0.jpg", "men/Bo/0.jpg", "women/Cy/0.jpg", "women/Di/0.jpg", "Zoe/0.jpg"], "men, women"),
    ],
)
def test_folders_of_people_among_others_are_told(paths: list[str], groups: str) -> None:
    (note,) = list_notes(paths)
    assert f"Each of {groups} counts as one person" in note


def test_albums_of_people_are_not_taken_for_people() -> None:
    assert list_notes([f"{person}/{year}/0.jpg" for person in ("Ann", "Bo") for year in (1, 2)] + ["Cy/0.jpg"]) == []


def test_a_folder_of_unknown_people_that_counts_as_one_person_is_told() -> None:
    (note,) = list_notes([*PEOPLE, "Unknown/Di/0.jpg", "Unknown/Eve/0.jpg"])
    assert "counts as one person" in note and "prepare.unknown_folder to data/Unknown" in note


@pytest.mark.parametrize(
    "name",
    [
        "unknown",
        "Unknown",
        "nan",
        "None",
        "unknown people",
        "_unknown",
        "-1",
        "Unknown_1",
        "others",
        "misc",
        "unsorted",
    ],
)
def test_a_folder_whose_name_says_that_nobody_is_known_is_told(name: str) -> None:
    (note,) = list_notes([*PEOPLE, f"{name}/0.jpg", f"{name}/1.jpg"])
    assert f"likely no person, but it counts as one: {name}." in note and f"data/{name}" in note
    assert "prepare.unknown_folder" in note and "verification" in note


@pytest.mark.parametrize(
    "names",
    [
        ("José", "Jose\u0301"),
        ("Ann", "ANN"),
        ("Ada_Brown", "Ada Brown"),
        ("Ada  Brown ", "ada_brown"),
        ("Strasse", "Straße"),
        ("Ann", "A\u200bnn"),
        ("Ann", "Ann\ufeff"),
        ("Zoë\u00ad", "Zoe\u0308"),
        ("Ann ❤", "Ann ❤\ufe0f"),
        ("O'Brien", "O’Brien"),
        ("Jean-Luc", "Jean Luc"),
        ("Jean\u2010Luc", "Jean–Luc"),
        ("J. Brown", "J Brown"),
        ("Ada", "Ada - Copy"),
        ("Ada", "ada copy 2"),
        ("Ada (2)", "Ada"),
        ("Ada", "Ada - Kopie (2)"),
        ("Ada", "Ada - コピー"),
        ("Ada", "Ada 副本"),
        ("Ada Brown", "Ada Brown-20240101T120000Z-001"),
        ("Ada Brown", "Ada Brown-20240101T120000Z-1-002"),
        ("Ada", "Ada (Bo's conflicted copy 2024-01-01)"),
        ("Ada", "Ada (Selective Sync Conflict)"),
        ("José", "JosÃ©"),
        ("José", "Jos├⌐"),
        ("José", "Jos#U00e9"),
        ("Ada & Co", "Ada &amp; Co"),
        ("Ada Brown", "Ada+Brown"),
        ("007", "7"),
        ("7", "7.0"),
        ("José Bové", "Jose Bove"),
        ("Фёдор", "Федор"),
        ("Wałęsa", "Walesa"),
        ("安吉丽娜·朱莉", "安吉丽娜・朱莉"),
        ("安吉丽娜•朱莉", "安吉丽娜･朱莉"),
        ("علي", "على"),
        ("کریم", "كريم"),
        ("مُحَمَّد", "محمد"),
        ("דָּוִד", "דוד"),
        ("Ada%20Brown", "Ada Brown"),
        ("Brown, Ada", "Ada Brown"),
        ("AdaBrown", "Ada Brown"),
        ("adabrown", "Ada_Brown"),
        ("AdaLee", "ada lee"),
        ("Jean Luc Picard", "JeanLuc Picard"),
        ("McKay", "Mckay"),
        ("山田 太郎", "山田太郎"),
        ("김 철수", "김철수"),
        ("\u0410da", "Ada"),
        ("\u0410da Brown", "AdaBr\u03bfwn"),
        ("Ren\u0435\u0301", "René"),
        ("\u0421\u043e\u0445", "Cox"),
        ("Вася", "вася"),
        ("\u0391nna", "Anna"),
    ],
)
def test_names_that_differ_in_writing_alone_are_told(names: tuple[str, str]) -> None:
    assert list_similar_names([*names, "Bo", "Jo"]) == [sorted(names)]
    (note,) = list_notes([f"{name}/0.jpg" for name in names])
    assert "likely the same person" in note and names[0] in note and names[1] in note
    look = {
        unicode_form(name.translate(LOOKALIKES)).strip("\u00ad\ufeff\ufe0f").replace("\u200b", "") for name in names
    }
    if len(look) == 1:
        assert ascii(names[0]) in note and ascii(names[1]) in note


def test_names_are_alike_by_way_of_another() -> None:
    assert list_similar_names(["Lina", "Bo", "Li Na", "LiNa"]) == [["Li Na", "LiNa", "Lina"]]


@pytest.mark.parametrize(
    "names",
    [
        ("-", "?"),
        ("Ann 1", "Ann 2"),
        ("7", "70"),
        ("Unknown Mortal", "Other Lives"),
        ("はば", "はは"),
        ("กิน", "กัน"),
        ("कि", "की"),
        ("100%", "100"),
        ("Train Smith", "Ann Images"),
        ("Bin", "Li Bin"),
        ("Manuel Neuer", "Neuer"),
        ("Li Na", "Lina"),
        ("J Brownson", "Jbrownson"),
        ("person_1_1", "person_11"),
        ("1 2", "12"),
        ("Сара", "Sara"),
        ("Анна", "Anna"),
        ("Вова", "Boba"),
        ("Νίνα", "Nina"),
    ],
)
def test_other_names_are_neither_alike_nor_nobody(names: tuple[str, str]) -> None:
    assert list_similar_names(names) == []
    assert find_similar_names(names[:1], names[1:]) == {}
    assert not any("no person" in note for note in list_notes([f"{names[1]} x/0.jpg", "Bo/0.jpg"]))


def test_names_are_found_among_known_ones_however_they_are_written() -> None:
    found = find_similar_names(["ADA", "Ada_Brown", "Bo", "Cy"], ["Ada", "Ada Brown", "Ada-Brown", "Bo", "bo"])
    assert found == {"ADA": "Ada", "Ada_Brown": "Ada Brown", "Bo": "Bo"}
    assert find_similar_names(["AdaBrown", "\u0412o", "Bo C"], ["Ada Brown", "Bo"]) == {
        "AdaBrown": "Ada Brown",
        "\u0412o": "Bo",
    }
