"""The photographs of invented people are always the files that data.dvc records, and not trivial to separate."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from celebflow.data.invented_people import (
    PEOPLE,
    PHOTOGRAPH_COUNT,
    PHOTOGRAPHS_PER_PERSON,
    draw_photograph,
    draw_sample_data,
)
from celebflow.data.tables import load_table
from celebflow.errors import CelebflowError
from tests import REPOSITORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw all photographs once."""
    folder = tmp_path_factory.mktemp("samples") / "data"
    assert len(list(draw_sample_data(folder))) == PHOTOGRAPH_COUNT
    return folder


@pytest.mark.slow
def test_the_files_are_those_that_data_dvc_records(folder: Path) -> None:
    recorded = YAML(typ="safe").load(REPOSITORY / "data.dvc")["outs"][0]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # DVC's hash of a folder is the hash of this listing.
    listing = sorted(
        (
            {
                "md5": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
                "relpath": path.relative_to(folder).as_posix(),
            }
            for path in files
        ),
        key=lambda entry: entry["relpath"],
    )
    digest = hashlib.md5(json.dumps(listing).encode(), usedforsecurity=False).hexdigest()
    assert (len(files), len({path.parent for path in files})) == (931, 32)
    assert recorded["nfiles"] == 931
    assert recorded["size"] == sum(path.stat().st_size for path in files)
    assert f"{digest}.dir" == recorded["md5"]


@pytest.mark.slow
def test_each_attribute_is_of_several_people_and_follows_from_the_drawing(folder: Path) -> None:
    rows = list(load_table(folder / "attributes.csv"))
    assert sorted(row["photograph"] for row in rows) == sorted(
        path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg")
    )
    names = [name for name in rows[0] if name not in ("photograph", "person")]
    assert len(names) == 8
    for name in names:
        for label in "01":
            assert len({row["person"] for row in rows if row[name] == label}) >= 5, f"{name} {label}"
    varying = {
        name for name in names for person in PEOPLE if len({row[name] for row in rows if row["person"] == person}) > 1
    }
    assert varying == {"Glasses", "Mouth_Open", "Smiling"}, "the others are of people"


@pytest.mark.slow
def test_people_are_not_trivially_separable(folder: Path) -> None:
    rows = []
    for person in PEOPLE:
        for file in sorted((folder / person).iterdir())[:12]:
            with Image.open(file) as photograph:
                rows.append(np.asarray(photograph.resize((8, 8)), np.float32).ravel())
    thumbnails = np.array(rows)
    labels = np.arange(len(PEOPLE)).repeat(12)
    train = np.tile(np.arange(12) < 9, len(PEOPLE))
    distances = ((thumbnails[~train][:, None] - thumbnails[train][None]) ** 2).sum(2)
    nearest = labels[train][distances.argmin(1)]
    assert (nearest == labels[~train]).mean() < 0.7


def test_drawing_again_restores_changed_files_but_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    first = next(draw_sample_data(tmp_path))
    content = first.read_bytes()
    first.write_bytes(b"changed")
    assert next(draw_sample_data(tmp_path)) == first
    assert first.read_bytes() == content
    (tmp_path / "my own.jpg").touch()
    with pytest.raises(CelebflowError, match=r"my own\.jpg"):
        next(draw_sample_data(tmp_path))


def test_a_table_that_others_wrote_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "attributes.csv").write_text("photograph,Hat\n")
    with pytest.raises(CelebflowError, match=r"attributes\.csv"):
        next(draw_sample_data(tmp_path))
    (tmp_path / "attributes.csv").write_text(
        "photograph,person,Beard,Dark_Hair,Dark_Skin,Glasses,Long_Hair,Mouth_Open,Mustache,Smiling\n"
    )
    next(draw_sample_data(tmp_path))


def test_photographs_of_a_person_differ() -> None:
    images = {draw_photograph(0, number).tobytes() for number in range(PHOTOGRAPHS_PER_PERSON)}
    assert len(images) == PHOTOGRAPHS_PER_PERSON
