"""ONNX Runtime computes the predictor's probabilities for every kind of classifier, and the file describes itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from celebflow.backbone.vgg19 import Backbone
from celebflow.classifier.calibration import Calibration
from celebflow.classifier.cards import UNCHANGED
from celebflow.classifier.model import save_classifier
from celebflow.cli import main
from celebflow.errors import CelebflowError
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference import onnx_graph
from celebflow.inference.onnx_export import MATCH, OUTPUT, export_model, run_model
from celebflow.inference.onnx_graph import INPUT
from celebflow.inference.predictor import Predictor
from celebflow.params import PreprocessingParams
from tests.models import NAMES, make_classifier, make_gallery
from tests.pipes import read_what_is_written

pytestmark = pytest.mark.slow

CASES: dict[str, tuple[Transform, tuple[int, ...], PreprocessingParams]] = {
    "base recipe, in small": (Transform(64), (8, 8), UNCHANGED),
    "as large as VGG19 was trained": (Transform(224), (), UNCHANGED),
    "best recipe, in small": (
        Transform(
            96,
            WHOLE.model_copy(update={"crop": "center", "center_fraction": 0.7}),
            ("original", "mirrored", "closer", "closer_mirrored"),
            ("pool4", "pool5"),
        ),
        (),
        UNCHANGED.model_copy(update={"square_root": True, "l2_normalize": True, "pca_components": 5}),
    ),
    "standardized": (
        Transform(50, layers=("pool4",)),
        (8,),
        UNCHANGED.model_copy(update={"standardize": True}),
    ),
}


def _load(folder: Path, backbone: Backbone, backbone_file: Path, case: str) -> Predictor:
    transform, hidden_units, preprocessing = CASES[case]
    torch.manual_seed(0)
    calibration = Calibration(0.8, 0.95, 0.0, 0.05)
    classifier = make_classifier(NAMES, hidden_units, 0.5, transform, backbone.source, preprocessing, calibration)
    classifier.gallery = make_gallery(len(NAMES), transform)
    with torch.no_grad():
        for parameter in classifier.parameters():  # so that the probabilities are far from equal
            parameter.mul_(20)
        if preprocessing.standardize:
            classifier.preprocessor.scale.uniform_(0.5, 2)
    save_classifier(classifier, folder / "classifier.safetensors")
    (folder / "backbone.safetensors").symlink_to(backbone_file)
    return Predictor.load(folder)


def _draw_photographs() -> list[Image.Image]:
    random = np.random.default_rng(1)
    photographs = []
    for side in (5, 20, 90):
        noise = Image.fromarray(random.integers(0, 256, (side, side + 9, 3), np.uint8))
        photographs.append(noise.resize((230, 180)))
    return photographs


@pytest.mark.parametrize("case", CASES)
def test_onnx_runtime_computes_the_predictor_s_probabilities(
    backbone: Backbone, backbone_file: Path, tmp_path: Path, case: str
) -> None:
    predictor = _load(tmp_path, backbone, backbone_file, case)
    file = tmp_path / "model.onnx"
    assert export_model(predictor, file) <= 1e-4
    onnx.checker.check_model(str(file), full_check=True)

    photographs = _draw_photographs()
    expected = predictor.predict(photographs)
    assert expected.max(axis=1).mean() > 0.5, "similar probabilities would hide a difference"
    transform = predictor.card.transform
    found, matches = run_model(file, transform, photographs)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    faces = [face for (face,) in predictor.predict_faces(photographs, 1, whole=True)]
    assert matches is not None
    np.testing.assert_allclose(matches, np.array([face.match for face in faces], float), atol=1e-3)
    views = [[np.asarray(view) for view in transform.make_views(photograph, None)] for photograph in photographs]
    session = onnxruntime.InferenceSession(str(file))
    probabilities, of_batch = session.run([OUTPUT, MATCH], {INPUT: np.array(views)})
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    np.testing.assert_allclose(of_batch[:, 0], matches, atol=1e-3)


def test_the_file_describes_itself(face_predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export_model(face_predictor, file)
    session = onnxruntime.InferenceSession(str(file))
    metadata = session.get_modelmeta().custom_metadata_map
    card = face_predictor.card
    assert json.loads(metadata["class_names"]) == list(NAMES)
    assert Transform.from_dict(json.loads(metadata["transform"])) == card.transform
    assert json.loads(metadata["threshold"]) == card.calibration.threshold
    assert json.loads(metadata["backbone_fingerprint"]) == card.backbone.fingerprint
    assert metadata["warning"].startswith("UNTRAINED")
    (views,) = session.get_inputs()
    assert (views.name, views.type, views.shape) == ("views", "tensor(uint8)", ["photographs", 2, 32, 32, 3])
    (probabilities,) = session.get_outputs()  # nobody is unknown to this model
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["photographs", 3])
    (opset,) = onnx.load(str(file)).opset_import
    assert opset.version == 17


def test_a_file_with_other_probabilities_is_not_exported(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.onnx"
    file.write_text("the export before")
    add = onnx_graph.Graph.add

    def skip_relu(self: onnx_graph.Graph, operator: str, *constants: Any, **others: Any) -> str:
        return self.last if operator == "Relu" else add(self, operator, *constants, **others)

    monkeypatch.setattr(onnx_graph.Graph, "add", skip_relu)
    with pytest.raises(CelebflowError, match="differ"):
        export_model(predictor, file)
    assert file.read_text() == "the export before"
    assert list(tmp_path.iterdir()) == [file]


def test_the_command_reports_what_it_wrote(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", "--model", str(model), "people.onnx"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("people.onnx: ")
    assert "ONNX opset 17" in result.stdout
    assert (tmp_path / "people.onnx").stat().st_size > 70_000_000


def test_a_pipe_is_written_and_not_replaced(predictor: Predictor, tmp_path: Path) -> None:
    export_model(predictor, tmp_path / "model.onnx")
    arrived = read_what_is_written(tmp_path / "pipe", lambda pipe: export_model(predictor, pipe))
    assert arrived == (tmp_path / "model.onnx").read_bytes()


def test_a_file_that_cannot_be_written_is_an_error(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "people.onnx"
    with pytest.raises(CelebflowError, match=f"{file} cannot be written"):
        export_model(predictor, file)
