"""Photographs are found, checked, grouped and split; no file is left out without a reason."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from celebflow.data.attribute_splits import split_by_attributes
from celebflow.data.attributes import load_attributes
from celebflow.data.duplicates import list_duplicate_groups
from celebflow.data.given_tables import TABLES
from celebflow.data.invented_people import draw_photograph
from celebflow.data.person_splits import split_people
from celebflow.data.photos import list_people, load_photos, save_photos
from celebflow.data.preparation import LeftOut, prepare_photographs, save_left_out
from celebflow.data.splits import Split, split_each_person
from celebflow.data.tables import load_rows, load_table
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams
from celebflow.tasks import TASKS
from stages.prepare import main
from tests import COMMITTED_PARAMS
from tests.preparing import prepare

Draw = Callable[..., Path]
PARAMS = PrepareParams()


def test_split_follows_from_seed_and_bytes_alone(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=20)
    first, left_out = prepare(data, PARAMS)
    again, _ = prepare(data, PARAMS)
    assert left_out == []
    assert first == again
    other, _ = prepare(data, PrepareParams(seed=1))
    assert [photo.split for photo in other] != [photo.split for photo in first]
    (data / "Bo").rename(data / "Zed")
    renamed, _ = prepare(data, PARAMS)
    assert [photo.split for photo in renamed] == [photo.split for photo in first]


def test_files_with_spaces_unicode_and_any_extension_are_found(draw_people: Draw) -> None:
    data = draw_people('Zoë, "the" Łin', "李 小龍", count=3)
    (data / "李 小龍" / "0.jpg").rename(data / "李 小龍" / "no extension, a comma")
    photos, _ = prepare(data, PARAMS)
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
        prepare(data, PARAMS)
    assert all(str(data / path) in str(caught.value) for path in unreadable)


def test_skipped_files_are_listed_with_the_reason(draw_people: Draw, tmp_path: Path) -> None:
    data = draw_people("Ann", "Bo", count=3)
    unreadable = _add_unreadable_files(data)
    (data / "Ann" / ".DS_Store").touch()
    photos, left_out = prepare(data, PrepareParams(unreadable="skip"))
    assert len(photos) == 6
    save_left_out(left_out, tmp_path / "splits" / "left_out.csv")
    reasons = {row["path"]: row["reason"] for row in load_table(tmp_path / "splits" / "left_out.csv")}
    assert list(reasons) == ["Ann/.DS_Store", *unreadable]
    assert "truncated or damaged" in reasons["Bo/cut.jpg"]
    assert "100 megapixels" in reasons["Bo/bomb.png"]


def test_system_files_are_listed_but_do_not_stop_prepare(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    (data / "Thumbs.db").touch()
    _, left_out = prepare(data, PARAMS)
    assert left_out == [LeftOut("Thumbs.db", "is a system file")]


@pytest.mark.parametrize("name", ["a\rb.jpg", "a\nb.jpg", "a\tb.jpg", "\x7f.jpg", "\x1b[31m.jpg", "a\u202egpj.exe"])
def test_names_with_control_characters_are_refused(draw_people: Draw, name: str) -> None:
    data = draw_people("Ann", "Bo", count=3)
    (data / "Ann" / "0.jpg").rename(data / "Ann" / name)
    with pytest.raises(CelebflowError, match=r"Ann/.*\\u.*holds control characters") as caught:
        prepare(data, PARAMS)
    assert name not in str(caught.value)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=4, max_size=6, unique=True))
def test_any_names_of_a_file_system_go_through_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    data = folder / "data"
    for person, name in enumerate(names):
        for number in range(3):
            with suppress(OSError, ValueError):  # the file system refuses the name
                place = data / name if person < 3 else data / "Ann" / name
                place.mkdir(parents=True, exist_ok=True)
                draw_photograph(person, number).resize((32, 32)).save(place / f"{number}.png")
    try:
        photos, left_out = prepare(data, PrepareParams(unreadable="skip"))
    except CelebflowError as error:
        assert str(error)
        return
    save_photos(photos, folder / "photos.csv")
    save_left_out(left_out, folder / "left_out.csv")
    assert load_photos(folder / "photos.csv") == photos
    assert load_rows(LeftOut, folder / "left_out.csv") == left_out
    assert len(photos) + len(left_out) == len([path for path in data.rglob("*") if path.is_file()])
    assert all((data / photo.path).is_file() for photo in photos)


@pytest.mark.parametrize("name", [".Bob", "__MACOSX", "@eaDir", "lost+found"])
def test_folders_that_systems_leave_behind_are_no_people(draw_people: Draw, name: str) -> None:
    data = draw_people("Ann", "Bo", name, count=3)
    photos, left_out = prepare(data, PARAMS)
    assert {photo.person for photo in photos} == {"Ann", "Bo"}
    reason = "is hidden: its name, or that of a folder around it, begins with a dot"
    reason = reason if name.startswith(".") else "is a system file"
    assert left_out == [LeftOut(f"{name}/{number}.jpg", reason) for number in range(3)]


def test_a_link_to_a_folder_is_refused_with_the_way_to_use_another_disk(draw_people: Draw, tmp_path: Path) -> None:
    data = draw_people("Ann", "Bo", "Cy", count=3)
    (data / "Cy").rename(tmp_path / "elsewhere")
    (data / "Cy").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CelebflowError, match="(?s)1 files.*Cy: is a link to a folder.*dvc cache dir"):
        prepare(data, PARAMS)
    (tmp_path / "link").symlink_to(data)
    with pytest.raises(CelebflowError, match="link is a link to a folder.*dvc cache dir"):
        prepare(tmp_path / "link", PARAMS)
    with pytest.raises(CelebflowError, match="0.jpg is not a folder"):
        prepare(data / "Ann" / "0.jpg", PARAMS)


def test_a_table_under_another_name_is_told_from_a_damaged_photograph(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    (data / "list_attr_celeba.csv").write_text("image_id,Smiling\n")
    (data / "Pairs.csv").write_text("first,second\n")
    with pytest.raises(CelebflowError, match=r"(?s)Pairs.csv: .*pairs.csv.*celeba.csv: .*list_attr_celeba.txt"):
        prepare_photographs(data, PARAMS, split_each_person, folders_are_people=False)


def test_a_person_without_a_usable_file_is_told_with_the_reasons(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", "Cy", count=3)
    for file in (data / "Cy").iterdir():
        file.write_text("nothing")
    with pytest.raises(CelebflowError, match="(?s)Cy: 0\n.*Cy/0.jpg: is not a JPEG"):
        prepare(data, PrepareParams(unreadable="skip"))


def test_system_files_of_any_name_and_loops_of_links_end_nothing(draw_people: Draw, tmp_path: Path) -> None:
    data = draw_people("Ann", "Bo", count=3)
    (data / "loop").symlink_to("loop")
    (data / "Ann" / "Icon\r").touch()
    (data / "Ann" / os.fsdecode(b".\xff.jpg")).touch()
    _, left_out = prepare(data, PrepareParams(unreadable="skip"))
    save_left_out(left_out, tmp_path / "left_out.csv")
    assert load_rows(LeftOut, tmp_path / "left_out.csv") == left_out
    assert [file.path for file in left_out] == ["Ann/.\\udcff.jpg", "Ann/Icon\\u000d", "loop"]


def test_splits_of_other_tools_are_no_people(draw_people: Draw) -> None:
    data = draw_people("train/Ann", "train/Bo", "test/Ann", "test/Bo", count=3)
    with pytest.raises(CelebflowError, match="splits, not people"):
        prepare(data, PARAMS)


def test_an_empty_folder_is_a_person_with_too_few_photographs(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    (data / "Empty\nerror: none").mkdir()
    with pytest.raises(CelebflowError, match=r"Empty\\u000aerror: none: 0\n"):
        prepare(data, PARAMS)


def test_a_missing_folder_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match="nowhere is missing.*`dvc pull`.*`celebflow sample data`"):
        prepare(tmp_path / "nowhere", PARAMS)


@pytest.mark.parametrize(
    ("distance_bits", "remedy"),
    [
        (PARAMS.duplicate_distance_bits, r"lower prepare\.duplicate_distance_bits or set it to null"),
        (0, r"set prepare\.duplicate_distance_bits to null"),
        (None, "copies of one file: put other photographs in their place"),
    ],
)
def test_copies_count_as_one_group(draw_people: Draw, distance_bits: int | None, remedy: str) -> None:
    data = draw_people("Ann", "Bo", count=3)
    for number in range(1, 8):
        shutil.copy(data / "Bo" / "0.jpg", data / "Bo" / f"{number}.jpg")
    params = PrepareParams(duplicate_distance_bits=distance_bits)
    with pytest.raises(CelebflowError, match=f"(?s)Bo: 8, in 1 groups.*{remedy}"):
        prepare(data, params)
    with pytest.raises(CelebflowError, match=f"apart from near-duplicates.*{remedy}"):
        prepare_photographs(data, params, split_people)


@pytest.mark.parametrize(("distance_bits", "expected"), [(None, [2]), (PARAMS.duplicate_distance_bits, [2, 2])])
def test_without_a_distance_only_equal_files_are_near_duplicates(
    draw_people: Draw, distance_bits: int | None, expected: list[int]
) -> None:
    data = draw_people("Ann", "Bo")
    shutil.copy(data / "Ann" / "0.jpg", data / "Ann" / "copy.jpg")
    with Image.open(data / "Ann" / "1.jpg") as image:
        image.resize((60, 60)).save(data / "Ann" / "larger.jpg")
    photos, _ = prepare(data, PrepareParams(duplicate_distance_bits=distance_bits))
    assert [len(group.photos) for group in list_duplicate_groups(photos)] == expected


def test_unknown_people_are_set_apart_from_those_who_are_split(
    draw_people: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw_people("Ann", "Bo", "Cy", "Di", count=5)
    known, _ = prepare(data, PARAMS)
    unknown_folder = data / "un known"
    unknown_folder.mkdir()
    for name in ("Cy", "Di"):
        (data / name).rename(unknown_folder / name)
    (unknown_folder / "stray.jpg").write_bytes((unknown_folder / "Cy" / "0.jpg").read_bytes())
    (unknown_folder / "Cy" / "album").mkdir()
    (unknown_folder / "Cy" / "0.jpg").rename(unknown_folder / "Cy" / "album" / "0.jpg")
    params = PARAMS.model_copy(update={"unknown_folder": "data/un known"})
    split, left_out = prepare_photographs(data, params, split_each_person)
    assert left_out == []
    assert split.photos == [photo for photo in known if photo.person in ("Ann", "Bo")]
    assert {photo.split for photo in split.unknown} == {"unknown"}
    assert sorted(photo.person for photo in split.unknown) == ["un known"] + ["un known/Cy"] * 5 + ["un known/Di"] * 5
    monkeypatch.chdir(tmp_path)
    split.save()
    saved = load_photos(Path("splits/photos.csv"))
    assert saved == [*split.photos, *split.unknown]
    assert list_people(saved) == ["Ann", "Bo"]
    (data / ".hidden").mkdir()
    for folder in ("data/elsewhere", "data/un known/Cy", "data/Ann/0.jpg", "data/.", "data/..", "data/.hidden"):
        with pytest.raises(CelebflowError, match=f"prepare.unknown_folder is {folder}.*directly in"):
            prepare_photographs(data, PARAMS.model_copy(update={"unknown_folder": folder}), split_each_person)


def test_an_unknown_folder_without_photographs_is_an_error_with_the_reasons(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    params = PARAMS.model_copy(update={"unknown_folder": "data/unknown", "unreadable": "skip"})
    (data / "unknown").mkdir()
    with pytest.raises(CelebflowError, match="prepare.unknown_folder is data/unknown.*no photograph.*null"):
        prepare(data, params)
    (data / "unknown" / "a.txt").write_text("a")
    with pytest.raises(CelebflowError, match=r"no photograph(?s:.*)unknown/a\.txt: is not a JPEG"):
        prepare(data, params)


def test_unknown_people_who_may_be_known_are_told(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", "Cy", count=4)
    params = PARAMS.model_copy(update={"unknown_folder": "data/unknown"})
    (data / "unknown").mkdir()
    (data / "Cy").rename(data / "unknown" / "Cy")
    assert prepare_photographs(data, params, split_each_person)[0].notes == []
    (data / "unknown" / "Ann").mkdir()
    shutil.copy(data / "Bo" / "0.jpg", data / "unknown" / "Ann" / "1.jpg")
    copies, names = prepare_photographs(data, params, split_each_person)[0].notes
    assert "unknown/Ann/1.jpg (Bo/0.jpg)" in copies and "Cy" not in copies
    assert "unknown/Ann" in names and "Cy" not in names
    (data / "unknown" / "Ann").rename(data / "unknown" / "ANN_")
    assert "unknown/ANN_ (Ann)" in prepare_photographs(data, params, split_each_person)[0].notes[1]


def _prepare_attributes(data: Path, params: PrepareParams = PARAMS) -> tuple[Split, list[LeftOut]]:
    return prepare_photographs(data, params, split_by_attributes, folders_are_people=False)


def _describe_photographs(data: Path) -> None:
    """Write attributes.csv for the photographs in `data`."""
    paths = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.jpg"))
    lines = [f"{path},{number % 2}" for number, path in enumerate(paths)]
    (data / "attributes.csv").write_text("\n".join(["photograph,Hat", *lines]) + "\n", encoding="utf-8")


def test_photographs_with_attributes_lie_in_any_folders(draw_people: Draw) -> None:
    data = draw_people("train/deep", "test", count=6)
    for number in range(6):
        (data / "test" / f"{number}.jpg").rename(data / f"{number}.jpg")
    _describe_photographs(data)
    split, left_out = _prepare_attributes(data)
    assert len(split.photos) == len(split.attributes.paths) == 12
    assert {photo.person for photo in split.photos} == {""}
    assert left_out == [LeftOut("attributes.csv", "is a table for the task attributes")]
    assert not any("folder" in note or "person" in note for note in split.notes)
    (data / "more.jpg").write_bytes((data / "1.jpg").read_bytes())
    with pytest.raises(
        CelebflowError, match="attributes.csv is not valid.*\n.*more.jpg has no row: add one, or remove"
    ):
        _prepare_attributes(data)


def test_rows_of_files_that_are_skipped_or_unknown_are_no_error(draw_people: Draw) -> None:
    data = draw_people("a", "b", "un known", count=6)
    _describe_photographs(data)
    (data / "a" / "0.jpg").write_text("not a photograph")
    with pytest.raises(CelebflowError, match="a/0.jpg"):
        _prepare_attributes(data)
    params = PrepareParams(unreadable="skip", unknown_folder="data/un known")
    split, left_out = _prepare_attributes(data, params)
    assert [photo.path for photo in split.photos] == sorted(split.attributes.paths)
    assert len(split.photos) == 11 and split.unknown == []
    assert [file.path for file in left_out] == ["a/0.jpg", "attributes.csv"]
    assert any("7 rows of files that are not used" in note for note in split.notes)
    assert any("prepare.unknown_folder" in note for note in split.notes)


def test_tables_of_every_task_are_left_out_by_name(draw_people: Draw) -> None:
    data = draw_people("Ann", "Bo", count=3)
    for name in TABLES:
        (data / name).write_text("anything")
    _, left_out = prepare(data, PARAMS)
    assert {file.path: file.reason for file in left_out} == {
        name: f"is a table for the task {task}" for name, task in TABLES.items()
    }


def test_the_stage_writes_the_attributes_and_near_duplicates_leak_by_them(
    draw_people: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw_people("a", "b", count=8)
    for number in range(8):
        shutil.copy(data / "a" / f"{number}.jpg", data / f"copy {number}.jpg")
    _describe_photographs(data)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("task: attributes\n" + COMMITTED_PARAMS.replace("task: recognition\n", ""))
    step = "celebflow.data.attribute_splits:split_by_attributes"
    monkeypatch.setitem(TASKS, "attributes", replace(TASKS["recognition"], split=step, folders_are_people=False))
    main()
    photos = load_photos(Path("splits/photos.csv"))
    assert load_attributes(Path("splits/attributes.csv")).paths == tuple(photo.path for photo in photos)
    rows = list(load_table(Path("splits/duplicates.csv")))
    assert {row["likely_wrong_label"] for row in rows} == {""}
    assert len(rows) == 16 and any(row["leaked_by_ordinary_split"] != "0" for row in rows)
