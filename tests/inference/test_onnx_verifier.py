"""ONNX Runtime computes a verifier's coordinates, and the file says how pairs are scored by them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from celebflow.backbone.vgg19 import Backbone
from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.cards import Score
from celebflow.cli import main
from celebflow.data.decoding import decode_photograph
from celebflow.errors import CelebflowError
from celebflow.features.transform import Transform
from celebflow.inference import onnx_graph
from celebflow.inference.onnx_graph import INPUT
from celebflow.inference.onnx_verifier import OUTPUT, export_verifier
from celebflow.inference.pair_verifier import PairVerifier
from tests import REPOSITORY
from tests.documentation import list_blocks
from tests.models import draw_blue, draw_noise, save_verifier

pytestmark = pytest.mark.slow

COSINE = "first @ second / numpy.linalg.norm(first) / numpy.linalg.norm(second)"


def _compute_probability(first: FloatArray, second: FloatArray, metadata: dict[str, str]) -> float:
    """Run the code in the documentation, or for the score lda what it says about that."""
    (code,) = list_blocks(REPOSITORY / "docs" / "verification.md", "py")
    if json.loads(metadata["score"]) == "lda":
        lines = code.splitlines()
        code = "\n".join([*lines[:2], f"score = {COSINE}", *lines[-2:]])
    names: dict[str, Any] = {"first": first, "second": second, "metadata": metadata, "json": json, "numpy": np}
    exec(code, names)  # noqa: S102 - the documentation's own
    return float(names["probability"])


@pytest.mark.parametrize("score", ["plda", "lda"])
def test_coordinates_and_log_odds_are_the_verifier_s(
    backbone: Backbone, backbone_file: Path, tmp_path: Path, score: Score
) -> None:
    transform = Transform(48, views=("original", "mirrored"), layers=("pool4", "pool5"))
    verifier = PairVerifier.load(save_verifier(tmp_path, backbone, backbone_file, transform, score))
    file = tmp_path / "model.onnx"
    assert export_verifier(verifier, file) <= 1e-3
    assert COSINE in (REPOSITORY / "docs" / "verification.md").read_text(encoding="utf-8")
    onnx.checker.check_model(str(file), full_check=True)
    photographs = [decode_photograph(content) for content in (draw_noise(), draw_noise(1), draw_blue())]
    views = np.array([[np.asarray(view) for view in transform.make_views(each, None)] for each in photographs])
    session = onnxruntime.InferenceSession(str(file))
    (found,) = session.run([OUTPUT], {INPUT: views})
    expected = [verifier.embed(photograph) for photograph in photographs]
    np.testing.assert_allclose(found, np.concatenate([each for each in expected if each is not None]), atol=5e-3)
    metadata = session.get_modelmeta().custom_metadata_map
    for first, second in ((0, 1), (0, 2), (1, 2)):
        probability = verifier.compare(expected[first], expected[second]).probability
        assert _compute_probability(found[first], found[second], metadata) == pytest.approx(probability, abs=1e-3)


def test_the_command_writes_a_file_that_describes_itself(
    pair_verifier: PairVerifier, verifier_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", "--model", str(verifier_model), "pairs.onnx"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("pairs.onnx: ") and "ONNX opset 17" in result.stdout
    session = onnxruntime.InferenceSession("pairs.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    card = pair_verifier.card
    assert Transform.from_dict(json.loads(metadata["transform"])) == card.transform
    assert json.loads(metadata["false_match_rate"]) == 0.125
    assert json.loads(metadata["false_non_match_rate"]) == 0.25
    assert metadata["warning"].startswith("UNTRAINED")
    (views,), (coordinates,) = session.get_inputs(), session.get_outputs()
    assert (views.name, views.shape) == ("views", ["photographs", 2, 32, 32, 3])
    assert (coordinates.name, coordinates.shape) == (
        "coordinates",
        ["photographs", len(json.loads(metadata["between"]))],
    )


def test_a_file_with_other_coordinates_is_not_exported(
    pair_verifier: PairVerifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = onnx_graph.Graph.add

    def skip_root(self: onnx_graph.Graph, operator: str, *constants: Any, **others: Any) -> str:
        return self.last if operator == "Sqrt" else add(self, operator, *constants, **others)

    monkeypatch.setattr(onnx_graph.Graph, "add", skip_root)
    with pytest.raises(CelebflowError, match="differs"):
        export_verifier(pair_verifier, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
