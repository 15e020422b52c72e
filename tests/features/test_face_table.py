"""faces.csv lists every detected face, and restores that of each photograph's subject."""

from pathlib import Path

import pytest

from celebflow.data.tables import load_table
from celebflow.errors import CelebflowError
from celebflow.features.face_table import load_subjects, save_faces
from celebflow.features.faces import Face

POINTS = ((1 / 3, 2.5), (7.1, 2.25), (4.0, 4.75), (2.0, 6.1), (6.0, 1e-9))
FIRST = Face(-0.1, 1 / 7, 9.3, 11.0, 0.987654321, POINTS)
SECOND = Face(20.0, 21.5, 28.0, 33.3, 0.6, POINTS)


def test_every_face_is_listed_and_subjects_are_restored(tmp_path: Path) -> None:
    save_faces({"Ann/0.jpg": [], "Ann/1.jpg": [FIRST], 'Bo/a, "b".jpg': [SECOND, FIRST]}, tmp_path / "f" / "faces.csv")
    rows = list(load_table(tmp_path / "f" / "faces.csv"))
    listed = [(row["path"], row["faces"], row["rank"], row["left"], row["score"]) for row in rows]
    assert listed == [
        ("Ann/0.jpg", "0", "0", "", ""),
        ("Ann/1.jpg", "1", "1", "-0.1", "0.987654321"),
        ('Bo/a, "b".jpg', "2", "1", "20.0", "0.6"),
        ('Bo/a, "b".jpg', "2", "2", "-0.1", "0.987654321"),
    ]
    assert load_subjects(tmp_path / "f" / "faces.csv") == {"Ann/1.jpg": FIRST, 'Bo/a, "b".jpg': SECOND}


def test_without_detected_faces_the_table_has_only_its_header(tmp_path: Path) -> None:
    save_faces({}, tmp_path / "faces.csv")
    assert (tmp_path / "faces.csv").read_text(encoding="utf-8") == (
        "path,faces,rank,left,top,right,bottom,score,landmarks\n"
    )
    assert load_subjects(tmp_path / "faces.csv") == {}


def test_a_table_of_an_earlier_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("path,faces,seen\nAnn/0.jpg,0,the center square\n", encoding="utf-8")
    with pytest.raises(CelebflowError, match=r"faces\.csv.*`dvc repro`"):
        load_subjects(tmp_path / "faces.csv")
