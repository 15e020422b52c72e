"""The server predicts as the predictor does, within its limits, and describes itself truly."""

import base64
import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from click.testing import CliRunner
from PIL import Image

from celebflow.cli import main
from celebflow.data.decoding import decode_photograph
from celebflow.errors import CelebflowError
from celebflow.features import transform as transform_module
from celebflow.inference import request_queue
from celebflow.inference.access import make_access
from celebflow.inference.extractor import ExtractedFace
from celebflow.inference.predictor import Predictor
from tests.inference.serving import (
    LIMITS,
    connect,
    format_request,
    get,
    post_form,
    post_json,
    read_refusal,
    read_response,
    start_server,
)
from tests.models import NAMES, draw_blue, draw_noise, make_face


def _read_probabilities(response: requests.Response) -> list[float]:
    """Return the probabilities of all people, in the order of NAMES, for a photograph with one face."""
    (face,) = response.json()["faces"]
    probabilities = {candidate["name"]: candidate["probability"] for candidate in face["candidates"]}
    return [probabilities[name] for name in NAMES]


@pytest.mark.parametrize(
    ("content", "known"),
    [(draw_noise(), False), (draw_noise(1, kind="JPEG"), False), (draw_blue("WEBP"), True)],
    ids=["PNG", "JPEG", "WebP"],
)
def test_form_and_base64_get_the_prediction_of_the_predictor(
    address: str, predictor: Predictor, content: bytes, known: bool
) -> None:
    ((of_face,),) = predictor.predict_faces([decode_photograph(content)])
    assert of_face.known == known
    expected = of_face.probabilities
    for response in (
        post_form(address, content, query="top=9"),
        post_json(address, content, "top=9"),
    ):
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        prediction = response.json()
        assert (prediction["width_px"], prediction["height_px"]) == (60, 40)
        assert prediction["warning"].startswith("UNTRAINED")
        (face,) = prediction["faces"]
        assert [candidate["name"] for candidate in face["candidates"]] == [NAMES[n] for n in np.argsort(-expected)]
        assert _read_probabilities(response) == pytest.approx(expected.tolist(), abs=1e-6)
        assert (face["known"], face["unknown_p_value"]) == (known, pytest.approx(of_face.unknown_p_value))
        assert (face["box"], face["seen"], face["heat_map"], face["nearest"]) == (None, None, None, None)


def test_a_heat_map_is_returned_on_request(address: str) -> None:
    (face,) = post_form(address, draw_noise(), query="heat_map=true&top=1").json()["faces"]
    assert len(face["candidates"]) == 1
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(face["seen"]))))
    heat_map = np.asarray(Image.open(io.BytesIO(base64.b64decode(face["heat_map"]))))
    assert seen.shape == heat_map.shape == (160, 160, 3)
    assert not np.array_equal(seen, heat_map)


def test_every_face_up_to_the_limit_has_its_box(face_predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    detected = [make_face(30, 5, 50, 25), make_face(-2, 3, 14, 16), make_face(5, 5, 9, 9)]
    monkeypatch.setattr(transform_module, "detect_faces", lambda photograph: detected)
    with start_server(face_predictor, replace(LIMITS, faces=2)) as address:
        faces = post_form(address, draw_noise(), query="heat_map=true").json()["faces"]
    assert [face["box"] for face in faces] == [
        {"left": 30, "top": 5, "right": 50, "bottom": 25},
        {"left": -2, "top": 3, "right": 14, "bottom": 16},
    ]
    assert faces[0]["candidates"] != faces[1]["candidates"]


def test_without_a_face_nobody_is_guessed_unless_the_client_wants_it(
    face_predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transform_module, "detect_faces", lambda photograph: [])
    with start_server(face_predictor) as address:
        response = post_form(address, draw_noise(), query="heat_map=true").json()
        whole = post_form(address, draw_noise(), query="whole=true").json()
    assert (response["faces"], response["note"]) == ([], "no face found")
    assert (len(whole["faces"]), whole["faces"][0]["box"], whole["note"]) == (1, None, None)


def test_health_counts_people_and_waiting_requests(address: str) -> None:
    assert get(address, "/healthz").json() == {"status": "ok", "task": "recognition", "people": 3, "waiting": 0}


def test_requests_beyond_the_queue_are_refused(predictor: Predictor) -> None:
    head, body = format_request(draw_noise())
    with start_server(predictor, replace(LIMITS, waiting=1)) as address, connect(address) as first:
        first.sendall(head + body[:100])
        while not get(address, "/healthz").json()["waiting"]:
            time.sleep(0.01)
        response = post_form(address, draw_noise())
        assert read_refusal(response) == (429, "busy")
        assert response.headers["retry-after"] == "1"
        first.sendall(body[100:])
        assert read_response(first)[0] == 200
        assert post_form(address, draw_noise()).status_code == 200


def test_a_request_whose_client_has_left_is_given_up(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = Predictor.extract
    begun, released = threading.Event(), threading.Event()

    def wait(
        self: Predictor, photograph: Image.Image, max_faces: int | None = None, *, whole: bool = False
    ) -> Iterator[ExtractedFace]:
        begun.set()
        released.wait(60)
        return extract(self, photograph, max_faces, whole=whole)

    monkeypatch.setattr(Predictor, "extract", wait)
    head, body = format_request(draw_noise())
    with start_server(predictor) as address:
        with connect(address) as first, connect(address) as second:
            first.sendall(head + body)
            assert begun.wait(60)
            second.sendall(head + body)
            while get(address, "/healthz").json()["waiting"] < 2:
                time.sleep(0.01)
        deadline = time.monotonic() + 10
        while (waiting := get(address, "/healthz").json()["waiting"]) and time.monotonic() < deadline:
            time.sleep(0.05)
        released.set()
        assert post_form(address, draw_noise()).status_code == 200
    assert waiting == 0


def test_a_prediction_that_takes_too_long_is_refused(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = Predictor.extract
    released = threading.Event()

    def wait(
        self: Predictor, photograph: Image.Image, max_faces: int | None = None, *, whole: bool = False
    ) -> Iterator[ExtractedFace]:
        released.wait(60)
        return extract(self, photograph, max_faces, whole=whole)

    with start_server(predictor, replace(LIMITS, seconds=1.0)) as address:
        monkeypatch.setattr(Predictor, "extract", wait)
        assert read_refusal(post_form(address, draw_noise())) == (503, "timed_out")
        released.set()
        assert post_form(address, draw_noise()).status_code == 200


@pytest.mark.slow
def test_many_clients_at_once_get_what_each_gets_alone(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_queue, "_MAX_WAIT_SECONDS", 60)  # a busy machine fills passes slowly
    contents = [draw_noise(seed) for seed in range(16)]

    def count_passes() -> float:
        passes = re.search(r"\ncelebflow_batch_photographs_count (.+)\n", get(address, "/metrics").text)
        assert passes
        return float(passes[1])

    alone = [_read_probabilities(post_form(address, content)) for content in contents]
    before = count_passes()
    with ThreadPoolExecutor(64) as clients:
        responses = clients.map(lambda content: post_form(address, content), contents * 4)
        together = [_read_probabilities(response) for response in responses]
    np.testing.assert_allclose(together, alone * 4, atol=1e-6)
    assert count_passes() - before < len(together) / 2, "they share passes of the classifier"


def test_the_documentation_needs_no_network(address: str) -> None:
    described = get(address, "/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/healthz", "/metrics"}
    body = described["paths"]["/predict"]["post"]["requestBody"]
    assert set(body["content"]) == {"multipart/form-data", "application/json"}
    linked = re.findall(r'(?:src|href)="([^"]+)"', get(address, "/docs").text)
    assert linked
    assert all(get(address, link).ok for link in linked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "token", "root_path"),
    [
        ("predictor", None, ""),
        ("predictor", "secret", "/faces"),
        ("pair_verifier", "secret", ""),
        ("attribute_predictor", None, ""),
    ],
)
def test_schemathesis_finds_no_contradiction(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, token: str | None, root_path: str
) -> None:
    (tmp_path / "schemathesis.toml").write_text(
        # By the schema, a photograph is any bytes; few bytes are a photograph.
        '[checks]\npositive_data_acceptance.expected-statuses = ["2xx", "4xx"]\n'
    )
    access = make_access("127.0.0.1", token)
    with start_server(request.getfixturevalue(name), access=access, root_path=root_path) as address:
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{address}{root_path}/openapi.json"]
        command += ["--checks", "all", "--max-examples", "20", "--seed", "1", "--no-color"]
        if token:
            command += ["--header", f"Authorization: Bearer {token}"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "gone"], "classifier.safetensors is missing"),
        (["--host", "0.0.0.0"], "--token"),  # noqa: S104 - nothing listens there
        (["--allow-host", "https://faces.example"], "--allow-host"),
        (["--root-path", "faces"], "--root-path"),
        (["--model", "MODEL", "--show-training"], "features, which is missing"),
        (["--model", "VERIFIER", "--show-training"], "compares photographs"),
        (["--model", "ATTRIBUTES", "--show-training"], "predicts attributes"),
    ],
)
def test_the_command_says_why_it_cannot_serve(
    model: Path,
    verifier_model: Path,
    attribute_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {"MODEL": str(model), "VERIFIER": str(verifier_model), "ATTRIBUTES": str(attribute_model)}
    arguments = [folders.get(argument, argument) for argument in arguments]
    result = CliRunner().invoke(main, ["serve", "--port", "0", *arguments])
    assert isinstance(result.exception, CelebflowError), result.output
    assert message in str(result.exception)
    assert not result.output
