"""Photographs in files are named alike for people and for programs, and what is none costs nothing but itself."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from celebflow.backbone.vgg19 import Backbone
from celebflow.backbone.weights import load_backbone
from celebflow.classifier.model import load_classifier
from celebflow.data.decoding import decode_photograph
from celebflow.errors import CelebflowError
from celebflow.features import transform as transform_module
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference.files import Answer, format_table, list_photographs
from celebflow.inference.predictor import Box, Candidate, Identity, Predictor
from tests.models import NAMES, make_face, save_model

FACES = [make_face(20, 5, 30, 15), make_face(2, 3, 14, 16)]


@pytest.fixture
def model(tmp_path: Path, backbone: Backbone, backbone_file: Path) -> Path:
    """Save a model that looks at whole photographs, and knows nobody: its threshold is out of reach."""
    return save_model(tmp_path / "model", backbone, backbone_file, Transform(32), 1.0)


def _predict(folder: Path, *arguments: str, status: int = 0, content: bytes = b"") -> tuple[str, str]:
    command = [sys.executable, "-m", "celebflow.cli", "predict", *arguments]
    result = subprocess.run(command, capture_output=True, cwd=folder, input=content)
    output, complaints = result.stdout.decode(), result.stderr.decode()
    assert result.returncode == status, complaints
    assert "Traceback" not in complaints
    return output, complaints


def test_the_forms_say_what_a_forward_pass_says(model: Path, draw_people: Callable[..., Path], tmp_path: Path) -> None:
    """In a folder without params.yaml, data or models of its own."""
    data = draw_people(*NAMES, count=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = [str(data / name / "0.jpg") for name in NAMES]
    read, _ = _predict(elsewhere, "--model", str(model), "--json", "--top", "3", str(data))
    answers = json.loads(read)
    assert [answer["photograph"] for answer in answers] == files

    classifier, backbone = (
        load_classifier(model / "classifier.safetensors"),
        load_backbone(model / "backbone.safetensors", "cpu"),
    )
    weight, bias = classifier.first.weight.detach().numpy(), classifier.first.bias.detach().numpy()
    for file, answer in zip(files, answers, strict=True):
        (image,) = Transform(32).apply(decode_photograph(Path(file).read_bytes()), None)
        hidden = backbone.extract(image, ("pool5",)) @ weight + bias
        with torch.inference_mode():
            logits = classifier.rest(torch.from_numpy(hidden[None])).numpy()[0] / 0.5
        expected = np.exp(logits) / np.exp(logits).sum()
        found = {candidate["name"]: candidate["probability"] for candidate in answer["candidates"]}
        assert list(found) == [NAMES[person] for person in np.argsort(-expected)]
        assert [found[name] for name in NAMES] == pytest.approx(expected.tolist(), abs=1e-5)
        assert (answer["known"], answer["box"]) == (False, None)

    table, _ = _predict(
        elsewhere, "--model", str(model), "--csv", "--top", "1", "-", content=Path(files[1]).read_bytes()
    )
    (row,) = csv.DictReader(io.StringIO(table))
    best = answers[1]["candidates"][0]
    assert (row["photograph"], row["rank"], row["known"], row["left"]) == ("-", "1", "false", "")
    assert (row["name"], float(row["probability"])) == (best["name"], pytest.approx(best["probability"], abs=1e-6))
    assert not list(elsewhere.iterdir())


def test_what_is_no_photograph_is_told_and_the_others_are_named(
    model: Path, draw_people: Callable[..., Path], tmp_path: Path
) -> None:
    data = draw_people("Ann", count=2)
    (data / "Ann" / "0a.txt").write_text("nothing")
    (data / "Ann" / "1.jpg").write_bytes((data / "Ann" / "1.jpg").read_bytes()[:200])
    output, complaints = _predict(
        tmp_path, "--model", "model", "--json", "data", str(tmp_path / "gone.jpg"), "data/Ann/0.jpg", status=1
    )
    assert [answer["photograph"] for answer in json.loads(output)] == ["data/Ann/0.jpg"] * 2
    lines = complaints.splitlines()
    assert "data/Ann/0a.txt: is no JPEG, PNG, WEBP or BMP image" in lines
    assert any(line.startswith("data/Ann/1.jpg: is truncated or damaged") for line in lines)
    assert f"{tmp_path / 'gone.jpg'}: cannot be read (No such file or directory)" in lines
    assert lines[-1] == "error: 3 of 5 are no photographs that can be read."


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--model", "data", "data"], 1, "data/classifier.safetensors is missing"),
        (["data"], 1, "models/classifier.safetensors is missing. Run `dvc repro`"),
        (["--model", "models:/celebflow@champion", "data"], 1, "there is no MLflow store sqlite:///"),
        (["--model", "model", "--rev", "HEAD", "data"], 2, "give one of them"),
        (["--model", "model", "empty"], 1, "empty holds no photograph"),
        ([], 2, "Missing argument"),
        (["--model", "model", "--top", "0", "data"], 2, "--top"),
    ],
)
def test_what_cannot_be_asked_is_told(
    model: Path, draw_people: Callable[..., Path], tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    draw_people("Ann", count=1)
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    output, complaints = _predict(tmp_path, *arguments, status=status)
    assert message in complaints and not output
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "nothing is left behind"


def test_every_face_is_named_with_its_box_the_subject_first(
    backbone: Backbone, backbone_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = Transform(32, WHOLE.model_copy(update={"crop": "detect"}), ("original", "mirrored"))
    folder = save_model(tmp_path / "model", backbone, backbone_file, transform, 0.0)
    noise = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    photographs = [Image.fromarray(noise), Image.fromarray(noise[:, ::-1].copy()), Image.fromarray(noise[::-1].copy())]
    found = iter([FACES, [], FACES[1:]])
    by_photograph = {photograph.tobytes(): next(found) for photograph in photographs}
    monkeypatch.setattr(transform_module, "detect_faces", lambda photograph: by_photograph[photograph.tobytes()])
    predictor = Predictor.load(folder)
    answers = predictor.predict_faces(photographs)
    assert [[named.face for named in answer] for answer in answers] == [FACES, [None], FACES[1:]]
    everybody = [named.probabilities for answer in answers for named in answer]
    assert all(probabilities.sum() == pytest.approx(1) for probabilities in everybody)
    assert not np.allclose(everybody[0], everybody[1], atol=1e-4)
    subjects = predictor.predict(photographs)
    np.testing.assert_array_equal(subjects, [answer[0].probabilities for answer in answers])


def test_the_table_says_unknown_below_the_threshold_and_shows_boxes_only_where_there_are_any() -> None:
    candidates = [Candidate("Ann", 0.5), Candidate("Bo", 0.25)]
    table = format_table(
        [Answer("a.jpg", Identity(None, True, candidates)), Answer("b.jpg", Identity(None, False, candidates))]
    )
    assert table.splitlines()[1].split() == ["a.jpg", "Ann", "50.0%", "Bo", "25.0%"]
    assert "unknown (Ann?)" in table and "face" not in table
    assert "1 2 3 4" in format_table([Answer("a.jpg", Identity(Box(1.2, 2, 3, 4), True, candidates))])


def test_folders_are_searched_at_any_depth_in_order(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/2.jpg", "b/1.jpg", "a.jpg", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "none").mkdir()
    listed = list_photographs([str(tmp_path / "b"), "-", str(tmp_path / "a.jpg")])
    assert listed == [str(tmp_path / "b/1.jpg"), str(tmp_path / "b/c/2.jpg"), "-", str(tmp_path / "a.jpg")]
    with pytest.raises(CelebflowError, match="holds no photograph"):
        list_photographs([str(tmp_path / "b"), str(tmp_path / "none")])
