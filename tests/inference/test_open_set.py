"""Unknown and known people meet the same threshold, and few photographs are in memory at once."""

import hashlib
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import numpy as np
import pytest
from PIL import Image

from celebflow.classifier.calibration import Calibration
from celebflow.classifier.gallery import LeftOutMatches
from celebflow.data import decoding
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import PersonPrediction
from celebflow.features.transform import Transform
from celebflow.inference import files
from celebflow.inference.open_set import OpenSetReport, find_folder, measure_open_set, save_taken
from celebflow.inference.predictor import PredictedPerson, Predictor
from celebflow.params import FaceParams
from tests.pipes import read_what_is_written
from tests.results import make_card

KNOWN = [
    PersonPrediction("Ann/1", "1", "Ann", "Ann", 0.9, 0.9, 0.02),
    PersonPrediction("Bo/1", "2", "Bo", "Bo", 0.6, 0.6, 0.4),
]
LEFT_OUT = LeftOutMatches(np.linspace(0, 1, 99), np.arange(99) % 3, np.arange(99) % 3)


class _Predictor:
    """Predicts and matches by the red of a photograph, and notes how many pixels the photographs of each call have."""

    def __init__(self, threshold: float | None, crop: Literal["none", "detect"] = "none") -> None:
        calibration = Calibration(1.0, 1.0, threshold, 0.05)
        transform = Transform(224, FaceParams(crop=crop))
        self.card = replace(make_card(["Ann", "Bo"]), calibration=calibration, transform=transform)
        self.classifier = SimpleNamespace(gallery=SimpleNamespace(left_out=LEFT_OUT))
        self.pixels: list[list[int]] = []

    def predict_faces(
        self, photographs: Sequence[Image.Image], max_faces: int, *, whole: bool
    ) -> list[list[PredictedPerson]]:
        assert (max_faces, whole) == (1, True)
        self.pixels.append([photograph.width * photograph.height for photograph in photographs])
        faces = []
        for photograph in photographs:
            red = float(np.asarray(photograph)[0, 0, 0] / 255)
            (p_value,) = LEFT_OUT.compute_p_values(np.array([red])).tolist()
            known = red >= (self.card.calibration.threshold or 0)
            faces.append([PredictedPerson(None, np.array([red, 1 - red]), known, red, p_value)])
        return faces


def _measure(
    folder: Path, known: Sequence[PersonPrediction] = KNOWN, threshold: float | None = 0.0
) -> tuple[OpenSetReport, list[list[int]]]:
    predictor = _Predictor(threshold)
    return measure_open_set(folder, cast(Predictor, predictor), known), predictor.pixels


def _draw(folder: Path, *reds: int, side: int = 10) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, red in enumerate(reds):
        Image.new("RGB", (side, side), (red, 0, 0)).save(folder / f"{side} {number}.png")


def test_photographs_are_found_at_any_depth_and_other_files_reported(tmp_path: Path) -> None:
    _draw(tmp_path / "a" / "b", 255, 0)
    _draw(tmp_path / "a" / "c", 255)
    _draw(tmp_path / ".hidden", 255)
    (tmp_path / "a" / "notes.txt").write_text("nothing")
    (tmp_path / "a" / "Thumbs.db").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    report, _ = _measure(tmp_path)
    assert (report.count, report.people_count, report.accepted) == (3, 1, 3)
    assert [each.name for each in report.taken] == ["Ann", "Ann", "Bo"], "the best match first"
    files_left_out = [line.partition(": ")[0] for line in report.unreadable]
    assert files_left_out == [str(tmp_path / "a/notes.txt"), str(tmp_path / "link")]
    assert report.unreadable[1].endswith("is a folder, or a link to one, which is not followed")
    (tmp_path / "a" / "b" / "empty").mkdir()
    with pytest.raises(CelebflowError, match="holds no photograph"):
        _measure(tmp_path / "a" / "b" / "empty")
    with pytest.raises(CelebflowError, match="missing cannot be read"):
        _measure(tmp_path / "missing")


def test_matches_are_compared_with_those_of_known_people(tmp_path: Path) -> None:
    _draw(tmp_path / "a", 255, 51)
    _draw(tmp_path / "b", 140)
    report, _ = _measure(tmp_path, threshold=0.9)
    assert (report.count, report.people_count, report.accepted) == (3, 2, 1)
    assert report.false_acceptance_rate == pytest.approx(1 / 3)
    assert report.interval.low == 0.0 and report.interval.high == 0.5, "it resamples people"
    assert report.known_coverage == 0.5, "of p values of 0.02 and 0.4, one is at most that of the threshold"
    # Their p values are 0.02, 0.8 and 0.46: 0.02 equals one and beats two, and 0.4 beats two.
    assert report.auc == pytest.approx(4.5 / 6)
    save_taken(report, tmp_path, "", tmp_path / "taken.png")
    with Image.open(tmp_path / "taken.png") as sheet:
        assert sheet.width > 200
    arrived = read_what_is_written(tmp_path / "pipe", lambda pipe: save_taken(report, tmp_path, "", pipe))
    assert arrived == (tmp_path / "taken.png").read_bytes()


def test_folders_with_the_names_of_known_people_are_told(tmp_path: Path) -> None:
    for folder in ("Bo", "Cy", "a/Ann"):
        _draw(tmp_path / folder, 255)
    report, _ = _measure(tmp_path)
    assert report.known_names == ["Bo"], "a is the person in a/Ann"
    _draw(tmp_path / "ANN_", 255)
    report, _ = _measure(tmp_path)
    assert report.known_names == ["ANN_", "Bo"]


def test_photographs_of_known_people_are_told_whatever_their_folder(tmp_path: Path) -> None:
    _draw(tmp_path / "a", 255, 0)
    sha256 = hashlib.sha256((tmp_path / "a" / "10 1.png").read_bytes()).hexdigest()
    report = measure_open_set(tmp_path, cast(Predictor, _Predictor(0.0)), KNOWN, {sha256})
    assert (report.count, report.known_files, report.known_names) == (2, ["a/10 1.png"], [])


@pytest.mark.parametrize(("crop", "faceless"), [("detect", ["a/10 0.png"]), ("none", [])])
def test_photographs_in_which_a_detector_finds_no_face_are_told(
    tmp_path: Path, crop: Literal["none", "detect"], faceless: list[str]
) -> None:
    _draw(tmp_path / "a", 255)
    report = measure_open_set(tmp_path, cast(Predictor, _Predictor(0.0, crop)), KNOWN)
    assert (report.count, report.faceless) == (1, faceless)


def test_a_model_to_which_nobody_is_unknown_is_refused(tmp_path: Path) -> None:
    _draw(tmp_path, 255)
    with pytest.raises(CelebflowError, match="calls nobody unknown"):
        _measure(tmp_path, threshold=None)
    with pytest.raises(CelebflowError, match="calls nobody unknown"):
        _measure(tmp_path, [replace(known, unknown_p_value=None) for known in KNOWN])


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


def test_unknown_people_are_looked_for_where_params_yaml_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for unknown_folder, folder in (("data/others", "data/others"), (None, "data_unknown")):
        with pytest.raises(CelebflowError, match=f"{folder} .*prepare.unknown_folder.*openset FOLDER"):
            find_folder(unknown_folder)
        Path(folder).mkdir(parents=True)
        assert find_folder(unknown_folder) == Path(folder)
