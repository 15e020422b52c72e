"""Photographs move within the data alone, never over a file, and links move as they are."""

import errno
import os
from itertools import islice
from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.experiments.review_moves import (
    holds,
    is_inside,
    list_free_places,
    list_people,
    look_for,
    move,
    remove_placeholder,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with the photograph Ann/1.jpg, and a folder for Bo."""
    for name in ("Ann", "Bo"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / "Ann" / "1.jpg").write_bytes(b"photograph")
    return tmp_path / "data"


def test_a_file_moves_but_never_over_another(data: Path) -> None:
    (data / "Bo" / "1.jpg").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        move(data / "Ann" / "1.jpg", data / "Bo" / "1.jpg")
    (data / "Bo" / "1-2.jpg").symlink_to("nowhere")
    free = next(list_free_places(data / "Bo", "1.jpg"))
    assert free.name == "1-3.jpg", "a link that leads nowhere is a file, too"
    move(data / "Ann" / "1.jpg", free)
    assert {place.name: place.read_bytes() for place in (data / "Bo").glob("*") if place.exists()} == {
        "1.jpg": b"other",
        "1-3.jpg": b"photograph",
    }
    assert not (data / "Ann" / "1.jpg").exists()


@pytest.mark.parametrize(("name", "second"), [("a.jpg", "a-2.jpg"), ("a.b.jpg", "a.b-2.jpg"), ("noend", "noend-2")])
def test_a_free_name_keeps_the_end_of_the_name(data: Path, name: str, second: str) -> None:
    assert [place.name for place in islice(list_free_places(data, name), 1)] == [name]
    (data / name).touch()
    assert next(list_free_places(data, name)).name == second


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("n" * 251 + ".jpg", "n" * 249 + "-2.jpg"),
        ("n" * 249 + ".jpg", "n" * 249 + "-2.jpg"),
        ("é" * 125 + "x.jpg", "é" * 124 + "-2.jpg"),
        ("n" * 255, "n" * 253 + "-2"),
        ("a." + "n" * 253, "a." + "n" * 251 + "-2"),
        (".jpg" + "n" * 251, ".jpg" + "n" * 249 + "-2"),
    ],
)
def test_a_free_name_is_never_longer_than_a_file_system_allows(data: Path, name: str, second: str) -> None:
    taken = set()
    for place in islice(list_free_places(data / "Bo", name), 12):
        place.touch(exist_ok=False)
        taken.add(place.name)
    assert {name, second} < taken
    assert len(taken) == 12 and {Path(each).suffix for each in taken if name.endswith(".jpg")} <= {".jpg"}


def test_links_and_files_that_nobody_may_write_move_as_they_are(data: Path, tmp_path: Path) -> None:
    cached = tmp_path / "cache"  # as DVC's cache.type symlink and hardlink make them
    cached.write_bytes(b"cached")
    cached.chmod(0o444)
    (data / "Ann" / "soft.jpg").symlink_to(cached)
    os.link(cached, data / "Ann" / "hard.jpg")
    for name in ("soft.jpg", "hard.jpg"):
        move(data / "Ann" / name, data / "Bo" / name)
        assert (data / "Bo" / name).samefile(cached)
        assert not os.path.lexists(data / "Ann" / name)
    assert (data / "Bo" / "soft.jpg").is_symlink()
    assert cached.stat().st_mode & 0o777 == 0o444


def test_a_relative_link_moves_only_where_it_leads_to_the_same(data: Path, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"photograph")
    link = data / "Ann" / "link.jpg"
    link.symlink_to("../../photo")
    (data / "Bo" / "deeper").mkdir()
    with pytest.raises(CelebflowError, match=r"link\.jpg is a link with a relative path"):
        move(link, data / "Bo" / "deeper" / "link.jpg")
    assert list((data / "Bo" / "deeper").iterdir()) == []
    move(link, data / "Bo" / "link.jpg")
    assert (data / "Bo" / "link.jpg").read_bytes() == b"photograph"


@pytest.mark.parametrize(("code", "raised"), [(errno.EXDEV, CelebflowError), (errno.EACCES, PermissionError)])
def test_a_move_that_fails_leaves_nothing_at_the_new_place(
    data: Path, monkeypatch: pytest.MonkeyPatch, code: int, raised: type[Exception]
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(raised):
        move(data / "Ann" / "1.jpg", data / "Bo" / "1.jpg")
    assert list((data / "Bo").iterdir()) == []
    assert (data / "Ann" / "1.jpg").read_bytes() == b"photograph"


def test_only_an_empty_file_is_a_placeholder(data: Path) -> None:
    remove_placeholder(data / "Ann" / "1.jpg")
    remove_placeholder(data / "Ann" / "2.jpg")
    assert [place.name for place in (data / "Ann").iterdir()] == ["1.jpg"]


@pytest.mark.parametrize("name", ["n" * 256, "1.jpg/2.jpg", "3.jpg"])
def test_a_placeholder_that_cannot_be_there_is_no_error(data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    remove_placeholder(data / "Ann" / name)
    assert look_for(data / "Ann" / name, "") is False

    def fail(self: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "lstat", fail)
    remove_placeholder(data / "Ann" / name)


def test_what_cannot_be_read_may_be_there(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "open", fail)
    assert look_for(data / "Ann" / "1.jpg", "") is None
    assert not holds(data / "Ann" / "1.jpg", "")


def test_what_is_outside_of_the_data_is_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (data / "link").symlink_to(tmp_path / "elsewhere")
    for outside in ("../x.jpg", "/etc/passwd", "Ann/../../x.jpg", "link/x.jpg", "..", "", "a\0b/x.jpg"):
        assert not is_inside(data / outside, data), outside
    for inside in ("Ann/1.jpg", "Ann/../Bo/2.jpg", "Ann/deeper/x.jpg"):
        assert is_inside(data / inside, data), inside


def test_people_are_folders_but_not_links_hidden_ones_and_who_is_not_to_be_known(data: Path) -> None:
    for name in (".hidden", "@eaDir", "others"):
        (data / name).mkdir()
    (data / "link").symlink_to(data / "Ann")
    (data / "attributes.csv").touch()
    (data / "caf\udce9").mkdir()  # not in UTF-8
    assert list_people(data, "others") == ["Ann", "Bo"]
    assert list_people(data) == ["Ann", "Bo", "others"]


def test_a_disk_that_cannot_sync_folders_is_no_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fail)
    move(data / "Ann" / "1.jpg", data / "Bo" / "1.jpg")
    assert (data / "Bo" / "1.jpg").read_bytes() == b"photograph"
