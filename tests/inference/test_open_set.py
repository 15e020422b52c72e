"""Unknown and known people meet the same threshold, and few photographs are in memory at once."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebflow.classifier.calibration import Calibration, softmax
from celebflow.classifier.model import ClassifierCard
from celebflow.data import decoding
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import Prediction, load_predictions, save_split_report
from celebflow.inference import files
from celebflow.inference.open_set import OpenSetReport, measure_open_set
from celebflow.inference.predictor import Predictor
from tests.results import draw_logits, list_photos, make_card

KNOWN = [Prediction("Ann/1", "1", "Ann", "Ann", 0.9, 0.9), Prediction("Bo/1", "2", "Bo", "Bo", 0.6, 0.6)]


class _Predictor:
    """Predicts by the red of a photograph, and notes how many pixels the photographs of each call have."""

    def __init__(self, card: ClassifierCard) -> None:
        self.card = card
        self.pixels: list[list[int]] = []

    def predict(self, photographs: Sequence[Image.Image]) -> NDArray[np.float64]:
        self.pixels.append([photograph.width * photograph.height for photograph in photographs])
        red = np.array([np.asarray(photograph)[0, 0, 0] / 255 for photograph in photographs])
        return np.stack([red, 1 - red], axis=1)


def _measure(
    folder: Path, known: Sequence[Prediction] = KNOWN, threshold: float = 0.0
) -> tuple[OpenSetReport, list[list[int]]]:
    predictor = _Predictor(replace(make_card(["Ann", "Bo"]), calibration=Calibration(1.0, threshold, 0.05)))
    return measure_open_set(folder, cast(Predictor, predictor), known), predictor.pixels


def _draw(folder: Path, *reds: int, side: int = 10) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, red in enumerate(reds):
        Image.new("RGB", (side, side), (red, 0, 0)).save(folder / f"{side} {number}.png")


def test_photographs_are_found_at_any_depth_and_other_files_reported(tmp_path: Path) -> None:
    _draw(tmp_path / "a" / "b", 255, 0, 255)
    _draw(tmp_path / ".hidden", 255)
    (tmp_path / "a" / "notes.txt").write_text("nothing")
    (tmp_path / "a" / "Thumbs.db").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    report, _ = _measure(tmp_path)
    assert (report.count, report.accepted, report.predicted) == (3, 3, [("Ann", 2), ("Bo", 1)])
    files_left_out = [line.partition(": ")[0] for line in report.unreadable]
    assert files_left_out == [str(tmp_path / "a/notes.txt"), str(tmp_path / "link")]
    assert report.unreadable[1].endswith("is a folder, or a link to one, which is not followed")
    (tmp_path / "a" / "b" / "empty").mkdir()
    with pytest.raises(CelebflowError, match="holds no photograph"):
        _measure(tmp_path / "a" / "b" / "empty")
    with pytest.raises(CelebflowError, match="missing cannot be read"):
        _measure(tmp_path / "missing")


def test_confidences_are_compared_with_those_of_known_people(tmp_path: Path) -> None:
    _draw(tmp_path, 230, 51, 140)  # confidences of 0.90, 0.80 and 0.55
    report, _ = _measure(tmp_path, threshold=0.7)
    assert (report.count, report.accepted, report.known_coverage) == (3, 2, 0.5)
    assert report.predicted == [("Ann", 1), ("Bo", 1)]
    # 0.9 beats two, as 230 / 255 is 0.902; 0.6 beats one.
    assert report.auc == pytest.approx(3 / 6)


def test_few_photographs_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _draw(tmp_path / "a", *[0] * 40)
    _draw(tmp_path / "b", *[0] * 5, side=100)
    decoded: list[weakref.ref[Image.Image]] = []
    max_pixels = 0

    def decode_photograph(content: bytes) -> Image.Image:
        nonlocal max_pixels
        photograph = decoding.decode_photograph(content)
        decoded.append(weakref.ref(photograph))
        alive = [image for image in (reference() for reference in decoded) if image is not None]
        max_pixels = max(max_pixels, sum(image.width * image.height for image in alive))
        return photograph

    monkeypatch.setattr(files, "decode_photograph", decode_photograph)
    monkeypatch.setattr(files, "_BATCH_PIXELS", 20_000)
    report, pixels = _measure(tmp_path)
    assert report.count == 45
    assert pixels == [[100] * 16, [100] * 16, [100] * 8 + [10_000] * 2, [10_000] * 2, [10_000]]
    assert max_pixels == 8 * 100 + 2 * 10_000


@pytest.mark.slow
def test_the_coverage_of_known_people_is_that_of_the_metrics(tmp_path: Path) -> None:
    """The threshold may equal the confidence of a photograph, in more digits than a table needs."""
    card = make_card(["Ann", "Bo", "Cy"])
    logits, labels = draw_logits(3, 20)
    photos = list_photos(card.class_names, labels, "test")
    _draw(tmp_path / "unknown", 255)
    for confidence in np.sort(softmax(logits).max(axis=1))[::4].tolist():
        calibrated = replace(card, calibration=Calibration(1.0, confidence, 0.05))
        metrics = save_split_report(logits, labels, photos, calibrated, tmp_path / "test")
        known = load_predictions(tmp_path / "test" / "predictions.csv")
        report, _ = _measure(tmp_path / "unknown", known, confidence)
        assert report.known_coverage == metrics["coverage"]
