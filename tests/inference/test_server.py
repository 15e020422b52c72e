"""The server answers as the predictor does, refuses what it should, and keeps nothing."""

import base64
import concurrent.futures
import http.client
import io
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from celebflow.backbone.vgg19 import Backbone
from celebflow.data.decoding import decode_photograph
from celebflow.errors import CelebflowError
from celebflow.features import transform as transform_module
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference import connections, server
from celebflow.inference.predictor import Predictor
from tests.models import LIMITS, NAMES, draw_noise, make_face, save_model, start_server

MODEL = Transform(32)
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there: tests ask that it is refused without a token


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(chunks)
        + _chunk(b"IDAT", zlib.compress(bytes(1000)))
        + _chunk(b"IEND", b"")
    )


def _gif(frames: int) -> bytes:
    frame = (
        b"\x21\xf9\x04\x00\x00\x00\x00\x00" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    )
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(3) + b"\xff" * 3 + frame * frames + b";"


def _zip_bomb() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(50_000_000))
    return content.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), backbone, backbone_file, MODEL, threshold=0.3)


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    with start_server(model) as address:
        yield address


def _send(
    address: str, content: bytes, name: str = "photograph.png", kind: str = "image/png", **query: object
) -> requests.Response:
    return requests.post(f"{address}/predict", files={"photograph": (name, content, kind)}, params=query, timeout=60)


def test_form_and_base64_are_answered_as_the_predictor_answers(address: str, model: Path) -> None:
    predictor = Predictor.load(model)
    for seed in range(3):
        content = draw_noise(seed, kind=("PNG", "JPEG", "WEBP")[seed])
        (expected,) = predictor.predict([decode_photograph(content)])
        encoded = {"photograph": base64.b64encode(content).decode()}
        for response in (
            _send(address, content, top=9),
            requests.post(f"{address}/predict?top=9", json=encoded, timeout=60),
        ):
            assert response.status_code == 200, response.text
            assert response.headers["cache-control"] == "no-store"
            answer = response.json()
            assert (answer["width_px"], answer["height_px"]) == (60, 40)
            (face,) = answer["faces"]
            found = {each["name"]: each["probability"] for each in face["candidates"]}
            assert list(found) == [NAMES[person] for person in np.argsort(-expected)]
            assert [found[name] for name in NAMES] == pytest.approx(expected.tolist(), abs=1e-6)
            assert face["known"] == (expected.max() >= 0.3)
            assert (face["box"], face["seen"], face["heat_map"], face["nearest"]) == (None, None, None, None)
            assert answer["warning"].startswith("UNTRAINED")


def test_a_heat_map_is_shown_where_it_is_asked(address: str) -> None:
    (face,) = _send(address, draw_noise(), heat_map=True, top=1).json()["faces"]
    assert len(face["candidates"]) == 1
    seen, heat = (np.asarray(Image.open(io.BytesIO(base64.b64decode(face[name])))) for name in ("seen", "heat_map"))
    assert seen.shape == heat.shape == (160, 160, 3)
    assert not np.array_equal(seen, heat)


def test_every_face_has_its_box(
    backbone: Backbone, backbone_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = [make_face(30, 5, 50, 25), make_face(-2, 3, 14, 16), make_face(5, 5, 9, 9)]
    monkeypatch.setattr(transform_module, "detect_faces", lambda photograph: faces)
    transform = Transform(32, WHOLE.model_copy(update={"crop": "detect"}), ("original", "mirrored"))
    with start_server(save_model(tmp_path, backbone, backbone_file, transform), replace(LIMITS, faces=2)) as address:
        answers = _send(address, draw_noise(), heat_map=True).json()["faces"]
    boxes = [{side: getattr(face, side) for side in ("left", "top", "right", "bottom")} for face in faces]
    assert [answer["box"] for answer in answers] == boxes[:2], "no more than are allowed"
    assert answers[0]["candidates"] != answers[1]["candidates"]


NOT_A_PHOTOGRAPH = (422, "not_a_photograph")
HOSTILE = {
    "text": (b"I am no image", NOT_A_PHOTOGRAPH),
    "nothing": (b"", NOT_A_PHOTOGRAPH),
    "truncated": (draw_noise(kind="JPEG")[:700], NOT_A_PHOTOGRAPH),
    "50,000 × 50,000 pixels": (_png(50_000, 50_000), NOT_A_PHOTOGRAPH),
    "more pixels than are allowed here": (draw_noise(size=(1001, 1000), kind="JPEG"), NOT_A_PHOTOGRAPH),
    "more passes than any photograph has": (draw_noise(kind="JPEG") + b"\xff\xda" * 200, NOT_A_PHOTOGRAPH),
    "fewer pixels than it says": (_png(900, 900), NOT_A_PHOTOGRAPH),
    "a text of 100 MB in a PNG": (
        _png(9, 9, _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))),
        NOT_A_PHOTOGRAPH,
    ),
    "10,000 frames": (_gif(10_000), NOT_A_PHOTOGRAPH),
    "a zip bomb": (_zip_bomb(), NOT_A_PHOTOGRAPH),
    "more bytes than are allowed": (draw_noise() + bytes(1_000_000), (413, "too_large")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_the_server_goes_on(address: str, name: str) -> None:
    content, expected = HOSTILE[name]
    encoded = {"photograph": base64.b64encode(content).decode()}
    for response in (_send(address, content), requests.post(f"{address}/predict", json=encoded, timeout=60)):
        assert (response.status_code, response.json()["code"]) == expected
        assert response.json()["message"].endswith(".")
    assert _send(address, draw_noise()).status_code == 200


PATH_LIKE = ["../../etc/passwd", "/etc/passwd", "a\\b.png", "a/b.png"]


@pytest.mark.parametrize("name", PATH_LIKE)
def test_a_name_that_is_a_path_is_refused(address: str, name: str) -> None:
    response = _send(address, draw_noise(), name)
    assert (response.status_code, response.json()["code"]) == (400, "malformed")
    assert "passwd" not in response.text and "path" in response.text


BOUNDARY = {"Content-Type": "multipart/form-data; boundary=x"}
MALFORMED = {
    "a form without a boundary": ({"Content-Type": "multipart/form-data"}, b"--x--", 400),
    "an empty form": (BOUNDARY, b"--x--\r\n", 400),
    "no form": (BOUNDARY, b"nothing of the kind", 400),
    "a form that ends early": (
        BOUNDARY,
        b'--x\r\nContent-Disposition: form-data; name="photograph"; filename="a"\r\n\r\nabc',
        400,
    ),
    "a field that is no file": (
        BOUNDARY,
        b'--x\r\nContent-Disposition: form-data; name="photograph"\r\n\r\na\r\n--x--\r\n',
        400,
    ),
    "another file": (
        BOUNDARY,
        b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\na\r\n--x--\r\n',
        400,
    ),
    "no JSON": ({"Content-Type": "application/json"}, b"{", 400),
    "JSON in latin-1": ({"Content-Type": "application/json"}, b'{"photograph": "\xe9"}', 400),
    "a list": ({"Content-Type": "application/json"}, b"[]", 400),
    "a number": ({"Content-Type": "application/json"}, b'{"photograph": 1}', 400),
    "more than the photograph": (
        {"Content-Type": "application/json"},
        b'{"photograph": "", "path": "/etc/passwd"}',
        400,
    ),
    "an address": ({"Content-Type": "application/json"}, b'{"photograph": "http://127.0.0.1/a.png"}', 400),
    "no type": ({}, b"abc", 415),
    "a wrong type": ({"Content-Type": "text/plain"}, b"abc", 415),
    "a photograph by itself": ({"Content-Type": "image/png"}, draw_noise(), 415),
    "a compressed body": ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"\x1f\x8b", 415),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused(address: str, name: str) -> None:
    headers, body, status = MALFORMED[name]
    response = requests.post(f"{address}/predict", data=body, headers=headers, timeout=60)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"code", "message"}


def test_a_part_that_says_it_is_no_image_is_refused(address: str) -> None:
    response = _send(address, draw_noise(), kind="text/html")
    assert (response.status_code, response.json()["code"]) == (415, "wrong_content_type")
    assert _send(address, draw_noise(), kind="application/octet-stream").status_code == 200


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"top": 0}, 422, "invalid_parameter"),
        ({"top": "x"}, 422, "invalid_parameter"),
        ({"nearest": True}, 403, "not_shown"),
    ],
)
def test_parameters_are_checked(address: str, query: dict[str, object], status: int, code: str) -> None:
    response = _send(address, draw_noise(), **query)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_other_paths_methods_and_names_are_refused_in_json(address: str) -> None:
    assert requests.get(f"{address}/nothing", timeout=60).json()["code"] == "not_found"
    response = requests.get(f"{address}/predict", timeout=60)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert requests.post(f"{address}/predict/", allow_redirects=False, timeout=60).json()["code"] == "not_found"
    for path in ("/", "/healthz", "/metrics", "/openapi.json", "/docs", "/predict", "/nothing"):
        response = requests.get(f"{address}{path}", headers={"Host": "evil.example:80"}, timeout=60)
        assert (response.status_code, response.json()["code"]) == (421, "wrong_host")
    port = address.rpartition(":")[2]
    assert requests.get(f"{address}/healthz", headers={"Host": f"localhost:{port}"}, timeout=60).json() == {
        "status": "ok",
        "people": 3,
        "waiting": 0,
    }


@pytest.mark.parametrize("chunked", [False, True])
def test_two_hundred_megabytes_are_refused_in_no_memory(address: str, chunked: bool) -> None:
    block, process, peaks = bytes(1_000_000), psutil.Process(), []

    def send() -> Iterator[bytes]:
        for number in range(200):
            yield block
            if number % 20 == 19:
                peaks.append(process.memory_info().rss)

    before = process.memory_info().rss
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    length = {} if chunked else {"Content-Length": str(200 * len(block))}
    # Unlike others, this client reads an answer only when it was allowed to send all.
    connection.request("POST", "/predict", send(), BOUNDARY | length, encode_chunked=chunked)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (413, "too_large")
    connection.close()
    assert max(*peaks, process.memory_info().rss) - before < 50_000_000


def _open(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def _form(content: bytes) -> tuple[bytes, bytes]:
    request = requests.Request("POST", "http://127.0.0.1/predict", files={"photograph": ("a.png", content)}).prepare()
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {request.headers['Content-Type']}\r\n"
    body = request.body
    assert isinstance(body, bytes)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body


def _read_answer(connection: socket.socket) -> tuple[int, dict[str, object]]:
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < int(
        re.search(rb"content-length: (\d+)", answer)[1]
    ):
        received = connection.recv(65536)
        assert received, answer
        answer += received
    return int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2])


def test_slow_and_leaving_clients_cost_the_others_nothing(model: Path) -> None:
    head, body = _form(draw_noise())
    with start_server(model, replace(LIMITS, seconds=1.0)) as address:
        with _open(address) as slow, _open(address) as leaving:
            slow.sendall(head + body[:100])
            leaving.sendall(head + body[:100])
            leaving.close()
            assert _send(address, draw_noise()).status_code == 200
            status, content = _read_answer(slow)
            assert (status, content["code"]) == (408, "too_slow")
        assert requests.get(f"{address}/healthz", timeout=60).json()["waiting"] == 0


def test_a_slow_client_is_told_what_is_wrong_beside_its_slowness(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.5)
    head, body = _form(draw_noise())
    large = re.sub(rb"Content-Length: \d+", b"Content-Length: 200000000", head)
    with _open(address) as slow:
        slow.sendall(large + body[:100])
        status, content = _read_answer(slow)
        assert (status, content["code"]) == (413, "too_large")
        with pytest.raises(ConnectionError):
            while True:  # it sends for ever what nobody wants
                slow.sendall(b"a")
                time.sleep(0.05)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost:"])
@pytest.mark.parametrize("after_a_request", [False, True])
def test_who_sends_no_whole_head_is_sent_away(
    address: str, sent: bytes, after_a_request: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.5)
    with _open(address) as silent:
        if after_a_request:
            head, body = _form(draw_noise())
            silent.sendall(head)
            time.sleep(0.7)  # a request may take longer than its head
            silent.sendall(body)
            assert _read_answer(silent)[0] == 200
        silent.sendall(sent)
        status, content = _read_answer(silent)
        assert (status, content["code"]) == (408, "too_slow")
        assert silent.recv(100) == b"", "and the connection is closed"


def test_what_is_no_http_is_refused_in_json(address: str) -> None:
    with _open(address) as other:
        other.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        status, content = _read_answer(other)
    assert (status, content["code"]) == (400, "malformed")


def test_no_more_wait_than_may(model: Path) -> None:
    head, body = _form(draw_noise())
    with start_server(model, replace(LIMITS, waiting=1)) as address, _open(address) as first:
        first.sendall(head + body[:100])
        while not requests.get(f"{address}/healthz", timeout=60).json()["waiting"]:
            time.sleep(0.01)
        response = _send(address, draw_noise())
        assert (response.status_code, response.json()["code"]) == (429, "busy")
        assert response.headers["retry-after"] == "1"
        first.sendall(body[100:])
        assert _read_answer(first)[0] == 200
        assert _send(address, draw_noise()).status_code == 200


def test_an_answer_that_takes_too_long_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_server(model, replace(LIMITS, seconds=1.0)) as address:
        going_on = threading.Event()
        extract = Predictor.extract

        def wait(*arguments: object) -> object:
            going_on.wait(60)
            return extract(*arguments)

        monkeypatch.setattr(Predictor, "extract", wait)
        response = _send(address, draw_noise())
        assert (response.status_code, response.json()["code"]) == (503, "timed_out")
        going_on.set()
        assert _send(address, draw_noise()).status_code == 200


def test_a_token_keeps_others_out(model: Path) -> None:
    with start_server(model, access=server.make_access("127.0.0.1", "secret")) as address:
        for headers in (
            {},
            {"Authorization": "Bearer secre"},
            {"Authorization": "secret"},
            {"Authorization": "Bearer é"},
        ):
            encoded = {name: value.encode("utf-8") for name, value in headers.items()}
            for response in (
                requests.post(f"{address}/predict", files={"photograph": draw_noise()}, headers=encoded, timeout=60),
                requests.get(f"{address}/metrics", headers=encoded, timeout=60),
            ):
                assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
                assert response.headers["www-authenticate"] == "Bearer"
        lower = {"Authorization": "bearer secret"}  # its case does not matter
        assert requests.post(f"{address}/predict", files={"photograph": draw_noise()}, headers=lower, timeout=60).ok
        allowed = {"Authorization": "Bearer secret"}
        assert requests.post(f"{address}/predict", files={"photograph": draw_noise()}, headers=allowed, timeout=60).ok
        assert requests.get(f"{address}/metrics", headers=allowed, timeout=60).ok
        assert requests.get(f"{address}/healthz", timeout=60).ok


@pytest.mark.parametrize(
    ("host", "token", "open_to_names"),
    [("127.0.0.1", None, False), ("localhost", None, False), ("::1", None, False), (EVERYWHERE, "secret", True)],
)
def test_names_are_checked_where_no_token_is_needed(host: str, token: str | None, open_to_names: bool) -> None:
    assert (server.make_access(host, token).hosts is None) == open_to_names


@pytest.mark.parametrize(
    ("host", "token", "message"),
    [
        (EVERYWHERE, None, "--token"),
        ("192.168.0.1", None, "--token"),
        ("::", None, "--token"),
        ("127.0.0.1", "a b", "ASCII"),
    ],
)
def test_no_server_is_open_to_anybody(host: str, token: str | None, message: str) -> None:
    with pytest.raises(CelebflowError, match=message):
        server.make_access(host, token)


def test_metrics_tell_what_was_done(model: Path) -> None:
    with start_server(model) as address:
        for content in (draw_noise(), draw_noise(1), b"nothing"):
            _send(address, content)
        requests.get(f"{address}/somewhere", timeout=60)
        response = requests.get(f"{address}/metrics", timeout=60)
    assert response.headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert found["celebflow_requests_total", "/predict", "200"] == 2
    assert found["celebflow_requests_total", "/predict", "422"] == 1
    assert found["celebflow_requests_total", "other", "404"] == 1
    assert found["celebflow_request_seconds_count", "/predict"] == 3
    assert found["celebflow_faces_total",] == found["celebflow_batch_photographs_sum",] == 2
    assert found["celebflow_waiting_requests",] == 0
    assert not any(name in response.text for name in NAMES)


def test_documentation_needs_no_network(address: str) -> None:
    described = requests.get(f"{address}/openapi.json", timeout=60).json()
    assert set(described["paths"]) == {"/predict", "/healthz", "/metrics"}
    assert set(described["paths"]["/predict"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
    }
    page = requests.get(f"{address}/docs", timeout=60).text
    linked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert linked and all(requests.get(f"{address}{link}", timeout=60).ok for link in linked)


@contextmanager
def _run(folder: Path, *arguments: str, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "celebflow.cli", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | variables
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.stdout.read()
        yield found[0], process
    finally:
        process.kill()
        process.communicate()


def test_no_photograph_is_written_or_logged(model: Path, tmp_path: Path) -> None:
    with _run(tmp_path, "--model", str(model), "--max-upload-mb", "5") as (address, process):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))  # writing to any file fails from here on
        content = draw_noise() + bytes(3_000_000)
        assert _send(address, content, "holiday.png", heat_map=True).status_code == 200
        encoded = {"photograph": base64.b64encode(content).decode()}
        assert requests.post(f"{address}/predict", json=encoded, timeout=60).status_code == 200
        assert _send(address, b"nothing", "holiday.png").status_code == 422
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert output == "terminated\n"
    assert not list(tmp_path.iterdir())


def test_sigterm_ends_the_server_when_what_is_in_flight_is_answered(model: Path, tmp_path: Path) -> None:
    head, body = _form(draw_noise())
    with _run(tmp_path, "--model", str(model)) as (address, process), _open(address) as begun:
        begun.sendall(head + body[:100])
        with concurrent.futures.ThreadPoolExecutor() as clients:
            answers = [clients.submit(_send, address, draw_noise(seed)) for seed in range(8)]
            while requests.get(f"{address}/healthz", timeout=60).json()["waiting"] < 2:
                time.sleep(0.005)
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 60
            with pytest.raises(requests.ConnectionError):
                while time.monotonic() < deadline:
                    requests.get(f"{address}/healthz", timeout=60)
            time.sleep(0.5)  # it waits for who has begun
            begun.sendall(body[100:])
            assert _read_answer(begun)[0] == 200
            assert sum(answer.exception() is None for answer in answers) >= 1
            assert all(answer.result().status_code == 200 for answer in answers if answer.exception() is None)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_what_keeps_the_server_from_starting_is_told(model: Path, tmp_path: Path) -> None:
    def fail(*arguments: str) -> str:
        command = [sys.executable, "-m", "celebflow.cli", "serve", *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        return result.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} cannot be listened on" in fail("--port", str(port), "--model", str(model))
    assert "classifier.safetensors is missing" in fail("--port", "0")
    assert "--token" in fail("--host", EVERYWHERE)
    assert "features, which is missing" in fail("--port", "0", "--model", str(model), "--show-training")


@pytest.mark.parametrize("token", [None, "secret"])
def test_schemathesis_finds_nothing(model: Path, tmp_path: Path, token: str | None) -> None:
    (tmp_path / "schemathesis.toml").write_text(
        # What conforms to the schema is bytes, of which few are a photograph.
        '[checks]\npositive_data_acceptance.expected-statuses = ["2xx", "4xx"]\n'
    )
    with start_server(model, access=server.make_access("127.0.0.1", token)) as address:
        command = [Path(sys.executable).parent / "schemathesis", "run", f"{address}/openapi.json", "--checks", "all"]
        command += ["--max-examples", "40", "--seed", "1", "--no-color"]
        command += ["--header", f"Authorization: Bearer {token}"] if token else []
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr


def test_many_clients_at_once_are_all_answered(model: Path) -> None:
    contents = [draw_noise(seed) for seed in range(64)]
    with start_server(model) as address, concurrent.futures.ThreadPoolExecutor(64) as clients:
        alone = [_send(address, content).json() for content in contents]
        together = [response.json() for response in clients.map(lambda content: _send(address, content), contents * 4)]
        batches = requests.get(f"{address}/metrics", timeout=60).text
    for answer, expected in zip(together, alone * 4, strict=True):
        found = {each["name"]: each["probability"] for each in answer["faces"][0]["candidates"]}
        (face,) = expected["faces"]
        assert found == pytest.approx({each["name"]: each["probability"] for each in face["candidates"]}, abs=1e-6)
    passes = float(re.search(r"\ncelebflow_batch_photographs_count (.+)\n", batches)[1])
    assert passes < 64 + 4 * 64 / 2, "they share passes of the classifier"
