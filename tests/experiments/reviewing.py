"""A project with suspects that tests review, and what is in it afterwards."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from celebflow.evaluation.suspects import Suspect, save_suspects
from tests import COMMITTED_PARAMS

PEOPLE = ("Ann", "Bo_Ek", "Cy")


def make_project(folder: Path, count: int = 6, people: Sequence[str] = PEOPLE) -> list[Suspect]:
    """Draw `count` photographs of each person, and list all as suspects that look like the next person."""
    (folder / "dvc.yaml").touch()
    (folder / "params.yaml").write_text(COMMITTED_PARAMS, encoding="utf-8")
    suspects = []
    for number in range(count):
        for index, person in enumerate(people):
            file = folder / "data" / person / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            color = (9 * index, number % 256, 90 + number // 256)
            Image.fromarray(np.full((30, 40, 3), color, np.uint8)).save(file)
            likelier = people[(index + 1) % len(people)]
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            suspects.append(
                Suspect(f"{person}/{number}.png", "val", sha256, person, likelier, 0.04, 0.87, f"{person}/0.png")
            )
    save_suspects(suspects, folder / "reports" / "suspects.csv")
    return suspects


def list_photographs(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each photograph in the data and among the deleted, by its path in the project."""
    places = [*(folder / "data").rglob("*"), *(folder / ".celebflow" / "review" / "deleted").rglob("*")]
    files = [place for place in places if not place.is_dir()]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
