"""Strangers are counted at the same threshold as known people, and no memory is needed for all of them at once."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from celebflow.classifier.calibration import Calibration, softmax
from celebflow.classifier.model import ClassifierCard
from celebflow.data import decoding
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import Prediction, load_predictions, save_split_report
from celebflow.inference import files, open_set
from celebflow.inference.open_set import measure_open_set
from celebflow.inference.predictor import Predictor
from tests.results import draw_logits, list_photos, make_card


class _Predictor:
    """Answers by a photograph's red, and writes down how many photographs it was asked about at once."""

    def __init__(self, card: ClassifierCard) -> None:
        self.card = card
        self.sizes: list[list[int]] = []

    def predict(self, photographs: Sequence[Image.Image]) -> np.ndarray:
        self.sizes.append([photograph.width * photograph.height for photograph in photographs])
        first = np.array([cast(tuple[int, ...], photograph.getpixel((0, 0)))[0] / 255 for photograph in photographs])
        return np.stack([first, 1 - first], axis=1)


def _measure(folder: Path, known: Sequence[Prediction]) -> tuple[open_set.OpenSetReport, list[list[int]]]:
    predictor = _Predictor(make_card(["Ann", "Bo"]))
    return measure_open_set(folder, cast(Predictor, predictor), known), predictor.sizes


def _draw(folder: Path, *reds: int, side: int = 10) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, red in enumerate(reds):
        Image.new("RGB", (side, side), (red, 0, 0)).save(folder / f"{side} {number}.png")


KNOWN = [Prediction("Ann/1", "1", "Ann", "Ann", 0.9, 0.9), Prediction("Bo/1", "2", "Bo", "Bo", 0.6, 0.6)]


def test_strangers_are_found_at_any_depth_and_what_is_none_is_told(tmp_path: Path) -> None:
    _draw(tmp_path / "a" / "b", 255, 0, 255)
    _draw(tmp_path / ".hidden", 255)
    (tmp_path / "a" / "notes.txt").write_text("nothing")
    (tmp_path / "a" / "Thumbs.db").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    report, _ = _measure(tmp_path, KNOWN)
    assert (report.count, report.mistaken_for) == (3, [("Ann", 2), ("Bo", 1)])
    assert [line.partition(": ")[0] for line in report.unreadable] == [
        str(tmp_path / "a/notes.txt"),
        str(tmp_path / "link"),
    ]
    with pytest.raises(CelebflowError, match="holds no photograph"):
        _measure(tmp_path / "a" / "b" / "empty", KNOWN)


def test_few_photographs_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _draw(tmp_path / "a", *[0] * 40)
    _draw(tmp_path / "b", *[0] * 5, side=100)
    decoded: list[weakref.ref[Image.Image]] = []
    most = 0

    def decode_photograph(content: bytes) -> Image.Image:
        nonlocal most
        photograph = decoding.decode_photograph(content)
        decoded.append(weakref.ref(photograph))
        most = max(most, sum(each.width * each.height for each in (ref() for ref in decoded) if each is not None))
        return photograph

    monkeypatch.setattr(files, "decode_photograph", decode_photograph)
    monkeypatch.setattr(files, "_BATCH_PIXELS", 20_000)
    report, sizes = _measure(tmp_path, KNOWN)
    assert report.count == 45
    assert sizes == [[100] * 16, [100] * 16, [100] * 8 + [10_000] * 2, [10_000] * 2, [10_000]]
    assert most == 8 * 100 + 2 * 10_000


def test_known_people_are_accepted_as_the_metrics_say(tmp_path: Path) -> None:
    """The threshold may be the very score of a photograph, which has more digits than a table needs."""
    card = make_card(["Ann", "Bo", "Cy"])
    logits, labels = draw_logits(3, 20)
    photos = list_photos(card.class_names, labels, "test")
    _draw(tmp_path / "strangers", 255)
    for score in np.sort(softmax(logits).max(axis=1))[::4]:
        card = ClassifierCard(**{**vars(card), "calibration": Calibration(1.0, float(score), 0.05)})
        metrics = save_split_report(logits, labels, photos, card, tmp_path / "test")
        known = load_predictions(tmp_path / "test" / "predictions.csv")
        report = measure_open_set(tmp_path / "strangers", cast(Predictor, _Predictor(card)), known)
        assert report.known_accepted == metrics["accepted"]
