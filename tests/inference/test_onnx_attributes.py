"""ONNX Runtime computes the probabilities of attributes, and the file says what they mean."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from celebflow.backbone.vgg19 import Backbone
from celebflow.classifier.cards import UNCHANGED
from celebflow.cli import main
from celebflow.data.decoding import decode_photograph
from celebflow.errors import CelebflowError
from celebflow.features.transform import Transform
from celebflow.inference import onnx_graph
from celebflow.inference.attribute_predictor import AttributePredictor
from celebflow.inference.onnx_attributes import OUTPUT, export_attributes
from celebflow.inference.onnx_graph import run
from celebflow.params import PreprocessingParams
from tests.models import ATTRIBUTES, draw_blue, draw_noise, make_attribute_model

pytestmark = pytest.mark.slow

CASES: dict[str, tuple[Transform, tuple[int, ...], PreprocessingParams]] = {
    "hidden layers": (Transform(64), (8, 8), UNCHANGED),
    "views, layers and components": (
        Transform(48, views=("original", "mirrored"), layers=("pool4", "pool5")),
        (),
        UNCHANGED.model_copy(update={"square_root": True, "l2_normalize": True, "pca_components": 5}),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_probabilities_are_the_predictor_s(backbone: Backbone, backbone_file: Path, tmp_path: Path, case: str) -> None:
    transform, hidden_units, preprocessing = CASES[case]
    model = make_attribute_model(ATTRIBUTES, transform, backbone.source, hidden_units, preprocessing)
    for parameter in model.head.parameters():
        parameter.data.mul_(20)  # so that probabilities differ by photograph
    predictor = AttributePredictor(model, backbone_file)
    file = tmp_path / "model.onnx"
    assert export_attributes(predictor, file) <= 1e-5
    onnx.checker.check_model(str(file), full_check=True)
    photographs = [decode_photograph(content) for content in (draw_noise(), draw_noise(1), draw_blue())]
    expected = [faces[0].probabilities for faces in predictor.predict_faces(photographs)]
    np.testing.assert_allclose(run(file, transform, photographs)[OUTPUT], expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3


def test_the_command_writes_a_file_that_describes_itself(
    attribute_predictor: AttributePredictor, attribute_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", "--model", str(attribute_model), "attributes.onnx"])
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession("attributes.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    card = attribute_predictor.card
    assert json.loads(metadata["attributes"]) == [*ATTRIBUTES]
    assert json.loads(metadata["thresholds"]) == card.calibration.thresholds.tolist()
    assert Transform.from_dict(json.loads(metadata["transform"])) == card.transform
    assert metadata["warning"].startswith("UNTRAINED")
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("probabilities", ["photographs", len(ATTRIBUTES)])
    assert "uncertain_odds" in metadata["output"]
    probabilities = np.random.default_rng(0).uniform(0.01, 0.99, (50, len(ATTRIBUTES)))
    thresholds, factor = np.array(json.loads(metadata["thresholds"])), json.loads(metadata["uncertain_odds"])
    ratios = probabilities / (1 - probabilities) / (thresholds / (1 - thresholds))
    uncertain = (ratios < factor) & (ratios > 1 / factor)
    np.testing.assert_array_equal(uncertain, card.calibration.find_uncertain(probabilities))


def test_a_file_with_other_probabilities_is_not_exported(
    attribute_predictor: AttributePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = onnx_graph.Graph.add

    def skip_sigmoid(self: onnx_graph.Graph, operator: str, *constants: Any, **others: Any) -> str:
        return self.last if operator == "Sigmoid" else add(self, operator, *constants, **others)

    monkeypatch.setattr(onnx_graph.Graph, "add", skip_sigmoid)
    with pytest.raises(CelebflowError, match="differs"):
        export_attributes(attribute_predictor, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
