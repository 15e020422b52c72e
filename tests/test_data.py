"""Photographs are found, checked and split; nothing is dropped in silence."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from celebflow.data import LeftOut, Photo, list_persons, load_photos, prepare_photographs, save_photos
from celebflow.errors import CelebflowError
from celebflow.params import Params, PrepareParams

Draw = Callable[..., Path]


def _leave_out(params: Params) -> PrepareParams:
    return params.prepare.model_copy(update={"unreadable": "leave_out"})


def test_every_person_is_in_every_split_in_proportion(draw_people: Draw, params: Params) -> None:
    photos, left_out = prepare_photographs(draw_people("Ann", "Bo", count=20), params.prepare)
    counts = Counter((photo.person, photo.split) for photo in photos)
    assert counts == {(p, s): n for p in ("Ann", "Bo") for s, n in (("train", 14), ("val", 3), ("test", 3))}
    assert left_out == []


def test_split_follows_from_seed_and_bytes_alone(draw_people: Draw, params: Params) -> None:
    data = draw_people("Ann", "Bo", count=20)
    first, _ = prepare_photographs(data, params.prepare)
    again, _ = prepare_photographs(data, params.prepare)
    assert first == again
    other, _ = prepare_photographs(data, params.prepare.model_copy(update={"seed": 1}))
    assert [photo.split for photo in other] != [photo.split for photo in first]
    (data / "Bo").rename(data / "Zed")
    renamed, _ = prepare_photographs(data, params.prepare)
    assert [photo.split for photo in renamed] == [photo.split for photo in first]


def test_spaces_unicode_and_any_extension_survive_the_file(draw_people: Draw, params: Params, tmp_path: Path) -> None:
    data = draw_people('Zoë, "the" Łin', "李 小龍")
    (data / "李 小龍" / "0.jpg").rename(data / "李 小龍" / "no extension, a comma")
    photos, _ = prepare_photographs(data, params.prepare)
    assert len(photos) == 16
    save_photos(photos, tmp_path / "out" / "photos.csv")
    assert load_photos(tmp_path / "out" / "photos.csv") == photos
    assert list_persons(photos) == ['Zoë, "the" Łin', "李 小龍"]


def _spoil(data: Path) -> list[str]:
    (data / "Ann" / "notes.txt").write_text("hello")
    (data / "Ann" / "empty.jpg").touch()
    whole = (data / "Bo" / "1.jpg").read_bytes()
    (data / "Bo" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "stray.jpg").write_bytes(whole)
    (data / "Bo" / "link").symlink_to(data / "Ann", target_is_directory=True)
    (data / "Bo" / "dangling.jpg").symlink_to(data / "nowhere.jpg")
    Image.new("1", (10_100, 10_100)).save(data / "Bo" / "bomb.png")
    return ["Ann/empty.jpg", "Ann/notes.txt", "Bo/bomb.png", "Bo/cut.jpg", "Bo/dangling.jpg", "Bo/link", "stray.jpg"]


def test_all_offenders_stop_the_run_in_one_list(draw_people: Draw, params: Params) -> None:
    data = draw_people("Ann", "Bo")
    offenders = _spoil(data)
    with pytest.raises(CelebflowError) as caught:
        prepare_photographs(data, params.prepare)
    assert all(str(data / offender) in str(caught.value) for offender in offenders)
    assert "7 files" in str(caught.value)
    assert "prepare.unreadable" in str(caught.value)


def test_offenders_are_listed_when_left_out(draw_people: Draw, params: Params) -> None:
    data = draw_people("Ann", "Bo")
    offenders = _spoil(data)
    (data / "Ann" / ".DS_Store").touch()
    photos, left_out = prepare_photographs(data, _leave_out(params))
    assert len(photos) == 16
    assert [file.path for file in left_out] == ["Ann/.DS_Store", *offenders]
    reasons = {file.path: file.reason for file in left_out}
    assert reasons["Bo/cut.jpg"].startswith("is truncated or damaged")
    assert reasons["Bo/bomb.png"] == "has 10100×10100 pixels, more than 100 megapixels"


def test_system_files_do_not_stop_the_run_but_are_listed(draw_people: Draw, params: Params) -> None:
    data = draw_people("Ann", "Bo")
    (data / "Thumbs.db").touch()
    _, left_out = prepare_photographs(data, params.prepare)
    assert left_out == [LeftOut("Thumbs.db", "is a system file")]


def test_persons_with_too_few_photographs_are_named_with_the_count(draw_people: Draw, params: Params) -> None:
    data = draw_people("Ann", "Bo", "Cy")
    for number in range(2, 8):
        (data / "Bo" / f"{number}.jpg").unlink()
    (data / "Empty").mkdir()
    with pytest.raises(CelebflowError, match="(?s)Bo: 2\n.*Empty: 0\n"):
        prepare_photographs(data, params.prepare)


@pytest.mark.parametrize("fractions", [(0.15, 0.15), (0.49, 0.49), (0.01, 0.9)])
def test_three_photographs_are_enough(draw_people: Draw, params: Params, fractions: tuple[float, float]) -> None:
    update = {"val_fraction": fractions[0], "test_fraction": fractions[1]}
    photos, _ = prepare_photographs(draw_people("Ann", "Bo", count=3), params.prepare.model_copy(update=update))
    assert Counter(photo.split for photo in photos) == {"train": 2, "val": 2, "test": 2}


def test_one_person_and_no_folder_are_clear_errors(draw_people: Draw, params: Params, tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match="at least two"):
        prepare_photographs(draw_people("Ann"), params.prepare)
    with pytest.raises(CelebflowError, match="nowhere is missing"):
        prepare_photographs(tmp_path / "nowhere", params.prepare)


def test_photos_are_in_the_order_of_their_paths(draw_people: Draw, params: Params) -> None:
    photos, _ = prepare_photographs(draw_people("b", "B", "a b", "a"), params.prepare)
    assert [photo.path for photo in photos] == sorted(photo.path for photo in photos)
    assert isinstance(photos[0], Photo)
