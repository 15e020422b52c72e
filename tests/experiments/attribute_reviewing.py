"""A project with suspect labels of attributes that tests review."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from celebflow.data.photos import Photo, save_photos
from celebflow.evaluation.attribute_suspects import AttributeSuspect, save_attribute_suspects
from tests import COMMITTED_PARAMS

NAMES = ("Hat", "=Beard")


def make_attribute_project(
    folder: Path, count: int = 3, names: Sequence[str] = NAMES, no: str = "0"
) -> list[AttributeSuspect]:
    """Draw `count` photographs of one person each, and list all their labels as suspects: yes and no in turn."""
    (folder / "dvc.yaml").touch()
    params = COMMITTED_PARAMS.replace("task: recognition", "task: attributes")
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    suspects, photos, lines = [], [], [",".join(["photograph", "person", *names])]
    for number in range(count):
        path = f"faces/{number}.png"
        file = folder / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), (9, number % 256, number // 256), np.uint8)).save(file)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        photos.append(Photo(path, f"Person {number}", "train", sha256, sha256))
        answers = ["no" if (number + index) % 2 else "yes" for index in range(len(names))]
        lines.append(
            ",".join([f"{number}.png", f"Person {number}", *("1" if each == "yes" else no for each in answers)])
        )
        for name, given in zip(names, answers, strict=True):
            likelier = "no" if given == "yes" else "yes"
            suspects.append(
                AttributeSuspect(path, "train", sha256, name, given, likelier, 0.04, 0.96, number + 1, "faces/0.png")
            )
    (folder / "data" / "attributes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save_photos(photos, folder / "splits" / "photos.csv")
    save_attribute_suspects(suspects, folder / "reports" / "suspects.csv")
    return suspects


def read_labels(folder: Path) -> list[list[str]]:
    """Return the texts of the labels of each photograph."""
    lines = (folder / "data" / "attributes.csv").read_text(encoding="utf-8").splitlines()
    return [line.split(",")[2:] for line in lines[1:]]
