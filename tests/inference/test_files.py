"""Photographs in files get the same predictions for people and for programs; other files are reported."""

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
from click.testing import CliRunner

from celebflow.backbone.weights import load_backbone
from celebflow.classifier.model import load_classifier
from celebflow.cli import main
from celebflow.data.decoding import decode_photograph
from celebflow.errors import CelebflowError
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.transform import Transform
from celebflow.inference.files import list_photographs
from tests.models import NAMES


def _predict(folder: Path, *arguments: str, status: int = 0, content: bytes = b"") -> tuple[str, str]:
    command = [sys.executable, "-m", "celebflow.cli", "predict", *arguments]
    result = subprocess.run(command, capture_output=True, cwd=folder, input=content)
    output, errors = result.stdout.decode(), result.stderr.decode()
    assert result.returncode == status, errors
    assert "Traceback" not in errors
    return output, errors


@pytest.mark.slow
def test_json_and_csv_hold_the_probabilities_of_a_plain_forward_pass(
    model: Path, draw_people: Callable[..., Path], tmp_path: Path
) -> None:
    """Run in a folder without params.yaml, data or models of its own."""
    data = draw_people(*NAMES, count=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = [str(data / name / "0.jpg") for name in NAMES]
    output, _ = _predict(elsewhere, "--model", str(model), "--json", "--top", "3", str(data))
    faces = json.loads(output)
    assert [face["photograph"] for face in faces] == files

    classifier = load_classifier(model / "classifier.safetensors")
    backbone = load_backbone(model / "backbone.safetensors", "cpu")
    first, rest = classifier.split_at_first_product()
    for file, face in zip(files, faces, strict=True):
        (image,) = Transform(32).make_inputs(decode_photograph(Path(file).read_bytes()), None)
        features = torch.from_numpy(backbone.extract(image, ("pool5",)))
        with torch.inference_mode():
            logits = rest((features @ first.weight + first.bias)[None])[0] / 0.5
        expected = 1 / 3 + (torch.softmax(logits, 0).numpy() - 1 / 3) * (0.9 - 1 / 3) / (1 - 1 / 3)
        probabilities = {candidate["name"]: candidate["probability"] for candidate in face["candidates"]}
        assert list(probabilities) == [NAMES[person] for person in np.argsort(-expected)]
        assert [probabilities[name] for name in NAMES] == pytest.approx(expected.tolist(), abs=1e-5)
        assert classifier.gallery is not None and classifier.card.calibration.threshold is not None
        views = [SparseBatch.from_rows([SparseRow.from_dense(features.numpy())], len(features))]
        match = classifier.gallery.people.score(classifier.gallery.embed(views)).max()
        (p_value,) = classifier.gallery.left_out.compute_p_values(np.array([match]))
        assert (face["known"], face["box"]) == (bool(match >= classifier.card.calibration.threshold), None)
        assert face["unknown_p_value"] == p_value

    photograph = Path(files[1]).read_bytes()
    red = tmp_path / "\x1b[31mred.jpg"
    red.write_bytes(photograph)
    table, _ = _predict(elsewhere, "--model", str(model), "--csv", "--top", "1", "-", str(red), content=photograph)
    row, other = csv.DictReader(io.StringIO(table))
    assert other["photograph"] == str(red), "a program gets each name as it is"
    best = faces[1]["candidates"][0]
    known = str(faces[1]["known"]).lower()
    assert (row["photograph"], row["rank"], row["known"], row["left"]) == ("-", "1", known, "")
    assert row["name"] == best["name"]
    assert float(row["probability"]) == pytest.approx(best["probability"], abs=1e-6)
    assert not list(elsewhere.iterdir())


@pytest.mark.slow
def test_standard_input_that_is_closed_is_reported(model: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$0" -m celebflow.cli predict --model "$1" - <&-', sys.executable, str(model)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("-: ") and "standard input is empty or closed" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_files_that_are_not_photographs_are_reported_and_the_others_predicted(
    model: Path, draw_people: Callable[..., Path], tmp_path: Path
) -> None:
    data = draw_people("Ann", count=2)
    (data / "Ann" / "0a.txt").write_text("nothing")
    (data / "Ann" / "1.jpg").write_bytes((data / "Ann" / "1.jpg").read_bytes()[:200])
    gone = str(tmp_path / "gone.jpg")
    output, errors = _predict(tmp_path, "--model", str(model), "--json", "data", gone, "data/Ann/0.jpg", status=1)
    assert [face["photograph"] for face in json.loads(output)] == ["data/Ann/0.jpg"] * 2
    *lines, last = errors.splitlines()
    reasons = dict(line.split(": ", 1) for line in lines if ": " in line)
    assert "JPEG, PNG, WebP" in reasons["data/Ann/0a.txt"]
    assert "truncated" in reasons["data/Ann/1.jpg"]
    assert "No such file or directory" in reasons[gone]
    assert last.startswith("error: 3 of 5 ")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--model", "data", "data"], 1, "data/classifier.safetensors is missing"),
        (["data"], 1, "models/classifier.safetensors is missing. Run `dvc repro`"),
        (["--model", "models:/celebflow@champion", "data"], 1, "sqlite:///"),
        (["--model", "MODEL", "--rev", "HEAD", "data"], 2, "--rev"),
        (["--model", "MODEL", "empty"], 1, "empty holds no photograph"),
        ([], 2, "Missing argument"),
        (["--model", "MODEL", "--top", "0", "data"], 2, "--top"),
    ],
)
def test_wrong_arguments_are_explained(
    model: Path,
    draw_people: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    draw_people("Ann", count=1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "dvc.yaml").touch()
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    arguments = [str(model) if argument == "MODEL" else argument for argument in arguments]
    result = CliRunner().invoke(main, ["predict", *arguments])
    assert isinstance(result.exception, CelebflowError if status == 1 else SystemExit), result.output
    assert result.exit_code == status
    assert message in (str(result.exception) if status == 1 else result.stderr)
    assert not result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "nothing is left behind"


def test_folders_are_searched_at_any_depth_in_order(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/2.jpg", "b/1.jpg", "a.jpg", ".hidden.jpg", "b/attributes.csv", "b/pairs.txt"):
        (tmp_path / name).touch()
    (tmp_path / "none").mkdir()
    listed = list_photographs([str(tmp_path / "b"), "-", str(tmp_path / "a.jpg")])
    assert listed == [str(tmp_path / "b/1.jpg"), str(tmp_path / "b/c/2.jpg"), "-", str(tmp_path / "a.jpg")]
    with pytest.raises(CelebflowError, match="holds no photograph"):
        list_photographs([str(tmp_path / "b"), str(tmp_path / "none")])


@pytest.mark.parametrize("name", ["x" * 300, ""])
def test_names_that_no_file_has_are_reported(model: Path, name: str) -> None:
    result = CliRunner().invoke(main, ["predict", "--model", str(model), name])
    assert isinstance(result.exception, CelebflowError), result.output
    assert "1 of 1 files are not readable" in str(result.exception)
    assert result.stderr.startswith("'': is not a file") if name == "" else name in result.stderr, result.stderr
