"""A server with a model of attributes answers as the model does, and refuses what it cannot answer."""

import base64
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests
from PIL import Image

from celebflow.backbone.vgg19 import Backbone
from celebflow.data.decoding import decode_photograph
from celebflow.features import transform as transform_module
from celebflow.features.faces import Face
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference.access import make_access
from celebflow.inference.attribute_predictor import AttributePredictor
from tests.inference.serving import LIMITS, get, post_form, read_refusal, start_server
from tests.models import ATTRIBUTES, draw_blue, draw_noise, make_face, save_attribute_model


def _post(
    address: str, content: bytes, query: str = "", headers: Mapping[str, str | bytes] | None = None
) -> requests.Response:
    files = {"photograph": ("a.png", content)}
    return requests.post(f"{address}/attributes?{query}", files=files, headers=headers, timeout=60)


@pytest.mark.parametrize("content", [draw_noise(), draw_blue()], ids=["noise", "blue"])
def test_form_and_base64_get_the_answers_of_the_model(
    attribute_address: str, attribute_predictor: AttributePredictor, content: bytes
) -> None:
    (predicted,) = attribute_predictor.predict_faces([decode_photograph(content)])[0]
    expected = attribute_predictor.describe(predicted).attributes
    encoded = {"photograph": base64.b64encode(content).decode()}
    for response in (
        _post(attribute_address, content),
        requests.post(f"{attribute_address}/attributes", json=encoded, timeout=60),
    ):
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        body = response.json()
        assert (body["width_px"], body["height_px"], body["note"]) == (60, 40, None)
        assert body["warning"].startswith("UNTRAINED")
        (face,) = body["faces"]
        assert face["box"] is None
        for found, answer in zip(face["attributes"], expected, strict=True):
            assert found["probability"] == pytest.approx(answer.probability, abs=1e-5)
            assert found == {**vars(answer), "probability": found["probability"]}
    (face,) = _post(attribute_address, content, "top=2").json()["faces"]
    assert [each["name"] for each in face["attributes"]] == [each.name for each in expected[:2]]


def test_every_face_is_answered_and_without_one_nothing_unless_the_client_wants_it(
    tmp_path_factory: pytest.TempPathFactory,
    backbone: Backbone,
    backbone_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def detect(photograph: Image.Image) -> list[Face]:
        faces = [make_face(20, 5, 40, 25), make_face(2, 3, 14, 16)]
        return faces if photograph.width > photograph.height else []

    monkeypatch.setattr(transform_module, "detect_faces", detect)
    transform = Transform(32, WHOLE.model_copy(update={"crop": "detect"}))
    folder = save_attribute_model(tmp_path_factory.mktemp("model"), backbone, backbone_file, transform)
    with start_server(AttributePredictor.load(folder)) as address:
        wide = _post(address, draw_noise()).json()
        none = _post(address, draw_noise(size=(40, 60))).json()
        whole = _post(address, draw_noise(size=(40, 60)), "whole=true").json()
        counted = get(address, "/metrics").text
    assert [face["box"]["left"] for face in wide["faces"]] == [20, 2]
    assert (none["faces"], none["note"]) == ([], "no face found")
    assert [face["box"] for face in whole["faces"]] == [None] and whole["note"] is None
    assert "celebflow_faces_total 3.0" in counted
    assert 'celebflow_requests_total{path="/attributes",status="200"} 3.0' in counted


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"nothing", (422, "not_a_photograph")),
        (draw_noise(size=(1001, 1000), kind="JPEG"), (422, "not_a_photograph")),
        (draw_noise() + bytes(LIMITS.upload_bytes), (413, "too_large")),
    ],
    ids=["text", "pixels", "bytes"],
)
def test_what_is_not_a_photograph_or_too_large_is_refused(
    attribute_address: str, content: bytes, expected: tuple[int, str]
) -> None:
    assert read_refusal(_post(attribute_address, content)) == expected


def test_a_token_is_required(attribute_predictor: AttributePredictor) -> None:
    with start_server(attribute_predictor, access=make_access("127.0.0.1", "secret")) as address:
        assert read_refusal(_post(address, draw_noise())) == (401, "unauthorized")
        assert _post(address, draw_noise(), headers={"Authorization": "Bearer secret"}).status_code == 200


def test_the_server_says_what_it_does_and_names_no_attribute_on_its_page(attribute_address: str) -> None:
    refused = post_form(attribute_address, draw_noise())
    assert read_refusal(refused) == (404, "other_task")
    assert "attributes" in refused.json()["message"] and "photograph to /attributes" in refused.json()["message"]
    health = get(attribute_address, "/healthz").json()
    assert health == {"status": "ok", "task": "attributes", "people": None, "waiting": 0}
    described = get(attribute_address, "/openapi.json").json()
    assert set(described["paths"]) == {"/attributes", "/healthz", "/metrics"}
    assert "threshold" in str(described["components"]["schemas"]["AttributeAnswer"])
    page = get(attribute_address, "/").text
    assert f"{len(ATTRIBUTES)} questions" in page and "Young" not in page
