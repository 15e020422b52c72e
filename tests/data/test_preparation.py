"""Photographs are found, checked, grouped and split; no file is left out without a reason."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from celebflow.data.duplicates import list_duplicate_groups
from celebflow.data.preparation import LeftOut, prepare_photographs, save_left_out
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams
from celebflow.tables import load_table

Draw = Callable[..., Path]
PARAMS = PrepareParams()


def test_split_follows_from_seed_and_bytes_alone(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=20)
    first, left_out = prepare_photographs(data, PARAMS)
    again, _ = prepare_photographs(data, PARAMS)
    assert left_out == []
    assert first == again
    other, _ = prepare_photographs(data, PrepareParams(seed=1))
    assert [photo.split for photo in other] != [photo.split for photo in first]
    (data / "Bo").rename(data / "Zed")
    renamed, _ = prepare_photographs(data, PARAMS)
    assert [photo.split for photo in renamed] == [photo.split for photo in first]


def test_files_with_spaces_unicode_and_any_extension_are_found(draw_people: Draw) -> None:
    data = draw_people('Zoë, "the" Łin', "李 小龍", count=3)
    (data / "李 小龍" / "0.jpg").rename(data / "李 小龍" / "no extension, a comma")
    photos, _ = prepare_photographs(data, PARAMS)
    assert len(photos) == 6
    assert "李 小龍/no extension, a comma" in [photo.path for photo in photos]


def _add_unreadable_files(data: Path) -> list[str]:
    (data / "Ann" / "notes.txt").write_text("hello")
    (data / "Ann" / "empty.jpg").touch()
    whole = (data / "Bo" / "1.jpg").read_bytes()
    (data / "Bo" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "stray.jpg").write_bytes(whole)
    (data / "Bo" / "link").symlink_to(data / "Ann", target_is_directory=True)
    (data / "Bo" / "dangling.jpg").symlink_to(data / "nowhere.jpg")
    Image.new("1", (10_100, 10_100)).save(data / "Bo" / "bomb.png")
    return ["Ann/empty.jpg", "Ann/notes.txt", "Bo/bomb.png", "Bo/cut.jpg", "Bo/dangling.jpg", "Bo/link", "stray.jpg"]


def test_all_unreadable_files_stop_prepare_in_one_list(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    unreadable = _add_unreadable_files(data)
    with pytest.raises(CelebflowError, match=r"(?s)^7 files.*prepare\.unreadable") as caught:
        prepare_photographs(data, PARAMS)
    assert all(str(data / path) in str(caught.value) for path in unreadable)


def test_skipped_files_are_listed_with_the_reason(draw_people: Draw, tmp_path: Path) -> None:
    data = draw_people("Ann", "Bo", count=3)
    unreadable = _add_unreadable_files(data)
    (data / "Ann" / ".DS_Store").touch()
    photos, left_out = prepare_photographs(data, PrepareParams(unreadable="skip"))
    assert len(photos) == 6
    save_left_out(left_out, tmp_path / "splits" / "left_out.csv")
    reasons = {row["path"]: row["reason"] for row in load_table(tmp_path / "splits" / "left_out.csv")}
    assert list(reasons) == ["Ann/.DS_Store", *unreadable]
    assert "truncated or damaged" in reasons["Bo/cut.jpg"]
    assert "100 megapixels" in reasons["Bo/bomb.png"]


def test_system_files_are_listed_but_do_not_stop_prepare(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    (data / "Thumbs.db").touch()
    _, left_out = prepare_photographs(data, PARAMS)
    assert left_out == [LeftOut("Thumbs.db", "is a system file")]


def test_an_empty_folder_is_a_person_with_too_few_photographs(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    (data / "Empty").mkdir()
    with pytest.raises(CelebflowError, match="Empty: 0\n"):
        prepare_photographs(data, PARAMS)


def test_a_missing_folder_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match="nowhere is missing.*`dvc pull`.*`celebflow sample data`"):
        prepare_photographs(tmp_path / "nowhere", PARAMS)


def test_copies_count_as_one_group(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    for number in range(1, 8):
        shutil.copy(data / "Bo" / "0.jpg", data / "Bo" / f"{number}.jpg")
    with pytest.raises(CelebflowError, match="Bo: 8, in 1 groups"):
        prepare_photographs(data, PARAMS)


@pytest.mark.parametrize(("distance_bits", "expected"), [(None, [2]), (PARAMS.duplicate_distance_bits, [2, 2])])
def test_without_a_distance_only_equal_files_are_near_duplicates(
    draw_people: Draw, distance_bits: int | None, expected: list[int]
) -> None:
    data = draw_people("Ann", "Bo")
    shutil.copy(data / "Ann" / "0.jpg", data / "Ann" / "copy.jpg")
    with Image.open(data / "Ann" / "1.jpg") as image:
        image.resize((60, 60)).save(data / "Ann" / "larger.jpg")
    photos, _ = prepare_photographs(data, PrepareParams(duplicate_distance_bits=distance_bits))
    assert [len(group.photos) for group in list_duplicate_groups(photos)] == expected
