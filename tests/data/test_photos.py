"""photos.csv restores every path and name, and a file of an earlier version is refused."""

from pathlib import Path

import pytest

from celebflow.data.photos import Photo, list_people, load_photos, save_photos
from celebflow.errors import CelebflowError


def test_photos_with_any_names_are_restored(tmp_path: Path) -> None:
    names = ['Zoë, "the" Łin', "李 小龍", "Ann"]
    photos = [Photo(f"{name}/no extension, a comma\n", name, "train", "1" * 64, "0" * 64) for name in names]
    save_photos(photos, tmp_path / "splits" / "photos.csv")
    assert load_photos(tmp_path / "splits" / "photos.csv") == photos
    assert list_people(photos) == ["Ann", 'Zoë, "the" Łin', "李 小龍"]


def test_a_file_of_an_earlier_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text("path,person,split,sha256\nAnn/0.jpg,Ann,train,00\n", encoding="utf-8")
    with pytest.raises(CelebflowError, match=r"photos\.csv.*'group'.*`dvc repro`"):
        load_photos(tmp_path / "photos.csv")
