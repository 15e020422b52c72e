"""The invented people: the same files each time, those that data.dvc records, and no trivial task."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from celebflow.data.invented_people import (
    PEOPLE,
    PHOTOGRAPH_COUNT,
    PHOTOGRAPHS_PER_PERSON,
    draw_photograph,
    draw_sample_data,
)
from celebflow.errors import CelebflowError
from tests import REPOSITORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw all of them once."""
    folder = tmp_path_factory.mktemp("samples") / "data"
    assert len(list(draw_sample_data(folder))) == PHOTOGRAPH_COUNT
    return folder


def test_they_are_the_files_that_data_dvc_records(folder: Path) -> None:
    recorded = YAML(typ="safe").load(REPOSITORY / "data.dvc")["outs"][0]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # The hash of a folder in DVC is that of this listing.
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
    assert (len(files), len({path.parent for path in files})) == (930, 31)
    assert recorded["nfiles"] == 930
    assert f"{digest}.dir" == recorded["md5"]


def test_they_are_not_trivially_separable(folder: Path) -> None:
    thumbnails = np.array(
        [
            np.asarray(draw_photograph(person, number).resize((8, 8)), np.float32).ravel()
            for person in range(len(PEOPLE))
            for number in range(12)
        ]
    )
    labels = np.arange(len(PEOPLE)).repeat(12)
    train = np.tile(np.arange(12) < 9, len(PEOPLE))
    distances = ((thumbnails[~train][:, None] - thumbnails[train][None]) ** 2).sum(2)
    nearest = labels[train][distances.argmin(1)]
    assert (nearest == labels[~train]).mean() < 0.7


def test_drawing_again_mends_what_changed_but_never_mixes_with_other_files(tmp_path: Path, folder: Path) -> None:
    data = tmp_path / "data"
    first = next(draw_sample_data(data))
    first.write_bytes(b"spoilt")
    assert next(draw_sample_data(data)) == first
    assert first.read_bytes() == (folder / first.relative_to(data)).read_bytes()
    (data / "my own.jpg").touch()
    with pytest.raises(CelebflowError, match=r"my own\.jpg"):
        next(draw_sample_data(data))


def test_photographs_of_a_person_differ() -> None:
    images = {draw_photograph(0, number).tobytes() for number in range(PHOTOGRAPHS_PER_PERSON)}
    assert len(images) == PHOTOGRAPHS_PER_PERSON
