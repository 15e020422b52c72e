"""ONNX Runtime answers what the predictor answers, of every kind of classifier, and the file says all that it needs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from celebflow.backbone.vgg19 import Backbone
from celebflow.classifier.model import make_classifier, save_classifier
from celebflow.classifier.preprocessing import UNCHANGED, FeatureTransform
from celebflow.errors import CelebflowError
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference import onnx_export
from celebflow.inference.onnx_export import INPUT, OUTPUT, export_model, run_model
from celebflow.inference.predictor import Predictor
from tests.models import NAMES, save_model

CASES = {
    "base recipe, in small": (Transform(64), (8, 8), UNCHANGED),
    "as large as VGG19 was taught": (Transform(224), (), UNCHANGED),
    "best recipe, in small": (
        Transform(
            96,
            WHOLE.model_copy(update={"crop": "center", "center_fraction": 0.7}),
            ("original", "mirrored", "closer", "closer_mirrored"),
            ("pool4", "pool5"),
        ),
        (),
        FeatureTransform(square_root=True, l2_normalize=True, standardize=False, components=5),
    ),
    "standardized": (Transform(50, layers=("pool4",)), (8,), FeatureTransform(False, False, True, None)),
}


def _save(folder: Path, backbone: Backbone, backbone_file: Path, case: str) -> Predictor:
    transform, hidden_units, feature_transform = CASES[case]
    torch.manual_seed(0)
    classifier = make_classifier(NAMES, hidden_units, 0.5, transform, backbone.source, feature_transform)
    with torch.no_grad():
        for parameter in classifier.parameters():  # far from evenly probable
            parameter.mul_(20)
        if feature_transform.standardize:
            classifier.scale.uniform_(0.5, 2)
    save_classifier(classifier, folder / "classifier.safetensors")
    (folder / "backbone.safetensors").symlink_to(backbone_file)
    return Predictor.load(folder)


def _draw_photographs() -> list[Image.Image]:
    random = np.random.default_rng(1)
    return [
        Image.fromarray(random.integers(0, 256, (side, side + 9, 3), np.uint8)).resize((230, 180))
        for side in (5, 20, 90)
    ]


@pytest.mark.parametrize("case", CASES)
def test_onnx_runtime_answers_what_the_predictor_answers(
    backbone: Backbone, backbone_file: Path, tmp_path: Path, case: str
) -> None:
    predictor = _save(tmp_path, backbone, backbone_file, case)
    difference = export_model(predictor, tmp_path / "model.onnx")
    assert difference <= 1e-4
    photographs = _draw_photographs()
    expected = predictor.predict(photographs)
    assert expected.max(axis=1).mean() > 0.5, "else everything would do"
    answered = run_model(tmp_path / "model.onnx", predictor.card.transform, photographs)
    np.testing.assert_allclose(answered, expected, atol=1e-4)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    views = np.stack(
        [np.stack([np.asarray(v) for v in predictor.card.transform.make_views(p, None)]) for p in photographs]
    )
    np.testing.assert_allclose(session.run([OUTPUT], {INPUT: views})[0], expected, atol=1e-4)


def test_the_file_says_what_a_program_has_to_know(backbone: Backbone, backbone_file: Path, tmp_path: Path) -> None:
    transform = Transform(32, views=("original", "mirrored"))
    predictor = Predictor.load(save_model(tmp_path, backbone, backbone_file, transform, 0.25))
    export_model(predictor, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert Transform.from_dict(json.loads(metadata["transform"])) == transform
    assert json.loads(metadata["threshold"]) == 0.25
    assert metadata["backbone_fingerprint"] == json.dumps(backbone.source.fingerprint)
    assert metadata["warning"].startswith("UNTRAINED")
    (given,), (taken,) = session.get_outputs(), session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("views", "tensor(uint8)", ["photographs", 2, 32, 32, 3])
    assert (given.name, given.shape) == ("probabilities", ["photographs", 3])
    (opset,) = onnx.load(str(tmp_path / "model.onnx")).opset_import
    assert opset.version == 17


def test_what_answers_otherwise_is_not_exported(
    backbone: Backbone, backbone_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = _save(tmp_path, backbone, backbone_file, "base recipe, in small")
    (tmp_path / "model.onnx").write_text("what was exported before")
    add = onnx_export._Graph.add

    def leave_out(self: object, operator: str, *constants: object, **others: object) -> str:
        return "" if operator == "Relu" else add(self, operator, *constants, **others)

    monkeypatch.setattr(onnx_export._Graph, "add", leave_out)
    with pytest.raises(CelebflowError, match="nothing was exported"):
        export_model(predictor, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "what was exported before"
    assert {file.name for file in tmp_path.iterdir()} == {
        "model.onnx",
        "classifier.safetensors",
        "backbone.safetensors",
    }


def test_the_command_says_what_it_wrote(
    backbone: Backbone, backbone_file: Path, tmp_path: Path, draw_people: Callable[..., Path]
) -> None:
    save_model(tmp_path, backbone, backbone_file, Transform(32))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "celebflow.cli", "export", "--model", str(tmp_path), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    result = run("people.onnx")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("people.onnx: ") and "ONNX opset 17" in result.stdout
    assert (tmp_path / "people.onnx").stat().st_size > 70_000_000
    result = run("missing/people.onnx")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: missing/people.onnx cannot be written")
