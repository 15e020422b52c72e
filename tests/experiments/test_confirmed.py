"""Labels that were confirmed are remembered by content and person, and a damaged table is told with the remedy."""

from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.experiments.confirmed import ConfirmedLabel, load_confirmed, save_confirmed


def test_confirmed_labels_are_kept_sorted_whatever_the_people_are_called(tmp_path: Path) -> None:
    file = tmp_path / "confirmed.csv"
    assert load_confirmed(file) == set()
    labels = [ConfirmedLabel("b" * 64, "Ann"), ConfirmedLabel("a" * 64, '=1+1,"\n'), ConfirmedLabel("a" * 64, "Ann")]
    save_confirmed(labels, file)
    assert load_confirmed(file) == set(labels)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "sha256,person" and lines[-1].startswith("bbb"), "so that git shows few changes"


@pytest.mark.parametrize(
    "content", ["<<<<<<< HEAD\nsha256,person\naaa,Ann\n=======\n", "sha256\naaa\n", "sha256,person\na,b,c\n", ""]
)
def test_a_damaged_table_names_the_file_and_how_to_restore_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "confirmed.csv"
    file.write_text(content)
    with pytest.raises(CelebflowError, match=r"confirmed\.csv.*git checkout") as error:
        load_confirmed(file)
    assert "dvc repro" not in str(error.value), "no stage makes it"
