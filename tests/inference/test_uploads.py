"""Every upload is read in memory alone, and hostile, malformed and large ones are refused."""

import asyncio
import base64
import http.client
import io
import json
import random
import resource
import signal
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import requests
from fastapi import Request
from PIL import Image
from starlette.types import Message

from celebflow.inference import uploads
from celebflow.inference.refusals import RefusalError
from celebflow.inference.uploads import read_photographs
from tests.images import make_chunk, repeat_last_scan
from tests.inference.serving import FORM, LIMITS, post_form, post_json, read_refusal, run_server
from tests.models import draw_noise

JSON = {"Content-Type": "application/json"}


def _make_png(width: int, height: int, *chunks: bytes) -> bytes:
    head = make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = make_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + make_chunk(b"IEND", b"")


def _make_gif(frames: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    control = b"\x21\xf9\x04\x00\x00\x00\x00\x00"
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + (control + image) * frames + b";"


def _make_zip_bomb() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(50_000_000))
    return content.getvalue()


def _repeat_scans(kind: str) -> bytes:
    """Return a photograph whose last scan is there 200 times."""
    content = io.BytesIO()
    photograph = Image.open(io.BytesIO(draw_noise()))
    photograph.save(content, kind, progressive=True)
    return repeat_last_scan(content.getvalue(), 200)


NOT_A_PHOTOGRAPH = (422, "not_a_photograph")
HOSTILE = {
    "text": (b"I am not an image", NOT_A_PHOTOGRAPH),
    "nothing": (b"", NOT_A_PHOTOGRAPH),
    "truncated": (draw_noise(kind="JPEG")[:700], NOT_A_PHOTOGRAPH),
    "50,000 × 50,000 pixels": (_make_png(50_000, 50_000), NOT_A_PHOTOGRAPH),
    "more pixels than the limit": (draw_noise(size=(1001, 1000), kind="JPEG"), NOT_A_PHOTOGRAPH),
    "more scans than any photograph has": (_repeat_scans("JPEG"), NOT_A_PHOTOGRAPH),
    "as many in a file of several pictures": (_repeat_scans("MPO"), NOT_A_PHOTOGRAPH),
    "very many empty parts": (_make_png(9, 9, *[make_chunk(b"teSt", b"")] * 80_000)[:900_000], NOT_A_PHOTOGRAPH),
    "fewer pixels than its head says": (_make_png(900, 900), NOT_A_PHOTOGRAPH),
    "10,000 frames": (_make_gif(10_000), NOT_A_PHOTOGRAPH),
    "a zip bomb": (_make_zip_bomb(), NOT_A_PHOTOGRAPH),
    "more bytes than the limit": (draw_noise() + bytes(1_000_000), (413, "too_large")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_the_server_keeps_working(address: str, name: str) -> None:
    content, expected = HOSTILE[name]
    for response in (post_form(address, content), post_json(address, content)):
        assert read_refusal(response) == expected
        assert response.json()["message"].endswith(".")
    assert post_form(address, draw_noise()).status_code == 200


def test_large_texts_around_a_photograph_cost_nothing(address: str) -> None:
    text = make_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))
    assert post_form(address, _make_png(9, 9, text)).status_code == 200


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b.png", "a/b.png"])
def test_a_file_name_that_is_a_path_is_refused(address: str, name: str) -> None:
    response = post_form(address, draw_noise(), name=name)
    assert read_refusal(response) == (400, "malformed")
    assert "passwd" not in response.text
    assert "path" in response.text


def _make_part(disposition: bytes, content: bytes, end: bytes = b"\r\n--x--\r\n") -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + content + end


MALFORMED = {
    "a form without a boundary": ({"Content-Type": "multipart/form-data"}, b"--x--", 400),
    "an empty form": (FORM, b"--x--\r\n", 400),
    "not a form": (FORM, b"nothing of the kind", 400),
    "a form that ends early": (FORM, _make_part(b'name="photograph"; filename="a"', b"abc", end=b""), 400),
    "a field that is not a file": (FORM, _make_part(b'name="photograph"', b"a"), 400),
    "another field": (FORM, _make_part(b'name="other"; filename="a"', b"a"), 400),
    "a form of what resembles its boundary": (
        FORM,
        _make_part(b'name="photograph"; filename="a"', b"\r\n--x-" * 9000),
        400,
    ),
    "not JSON": (JSON, b"{", 400),
    "JSON in latin-1": (JSON, b'{"photograph": "\xe9"}', 400),
    "a list": (JSON, b"[]", 400),
    "a number": (JSON, b'{"photograph": 1}', 400),
    "more than the photograph": (JSON, b'{"photograph": "", "path": "/etc/passwd"}', 400),
    "a photograph twice": (JSON, b'{"photograph": "", "photograph": ""}', 400),
    "a broken name": (JSON, b'{"photo\\ngraph": ""}', 400),
    "a data URL without base64": (JSON, b'{"photograph": "data:image/png,abcd"}', 400),
    "a URL": (JSON, b'{"photograph": "http://127.0.0.1/a.png"}', 400),
    "no type": ({}, b"abc", 415),
    "a wrong type": ({"Content-Type": "text/plain"}, b"abc", 415),
    "a bare photograph": ({"Content-Type": "image/png"}, draw_noise(), 415),
    "a compressed body": (JSON | {"Content-Encoding": "gzip"}, b"\x1f\x8b", 415),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused(address: str, name: str) -> None:
    headers, body, status = MALFORMED[name]
    response = requests.post(f"{address}/predict", data=body, headers=headers, timeout=60)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"code", "message"}


@pytest.mark.parametrize("repeated", [b'"":1,', b'"":[],', b'"":{},', b"1,"])
def test_json_of_many_values_is_refused_before_it_is_parsed(repeated: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parser:
        def validate_json(self, body: bytes, **options: object) -> None:
            raise AssertionError("it is parsed")

    async def receive() -> Message:
        start = b'{"photograph": [' if repeated == b"1," else b"{"
        return {"type": "http.request", "body": start + repeated * 10_000 + b'"photograph": ""}'}

    monkeypatch.setattr(uploads, "_TEXTS", Parser())
    scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(RefusalError) as refusal:
        asyncio.run(read_photographs(Request(scope, receive), ["photograph"], LIMITS.upload_bytes))
    assert refusal.value.code == "malformed"


def test_a_body_that_is_not_compressed_may_say_so(address: str) -> None:
    headers = {"Content-Encoding": "Identity"}
    response = requests.post(f"{address}/predict", files={"photograph": draw_noise()}, headers=headers, timeout=60)
    assert response.status_code == 200


def test_the_name_of_a_file_in_its_place_is_refused_with_the_remedy(address: str) -> None:
    response = requests.post(f"{address}/predict", files={"photograph": (None, "me.jpg")}, timeout=60)
    assert read_refusal(response) == (400, "malformed")
    assert "a text, not a file (curl -F photograph=@FILE)" in response.json()["message"]


def _post_text(address: str, text: str) -> requests.Response:
    return requests.post(f"{address}/predict", data=text.encode(), headers=JSON, timeout=60)


@pytest.mark.parametrize("line_break", [r"\n", r"\r\n", "\n", "\r\n"], ids=repr)
def test_base64_in_lines_and_a_data_url_is_predicted_up_to_the_limit(address: str, line_break: str) -> None:
    photograph = draw_noise()
    content = photograph + random.Random(0).randbytes(LIMITS.upload_bytes - len(photograph))
    expected = post_form(address, content).json()

    def send(content: bytes) -> requests.Response:
        digits = base64.b64encode(content).decode()
        lines = line_break.join(digits[start : start + 64] for start in range(0, len(digits), 64))
        lines = lines.replace("/", r"\/")  # as PHP writes them
        return _post_text(address, f'{{"photograph": "data:image\\/png;base64,{lines}"}}')

    assert send(content).json() == expected
    assert read_refusal(send(content + b"a")) == (413, "too_large")


def test_a_file_of_another_type_is_refused(address: str) -> None:
    response = post_form(address, draw_noise(), media_type="text/html")
    assert read_refusal(response) == (415, "wrong_content_type")
    assert post_form(address, draw_noise(), media_type="application/octet-stream").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("close", [{}, {"Connection": "close"}], ids=["kept", "closed"])
def test_a_client_that_sends_200_megabytes_gets_to_read_the_refusal(
    address: str, close: dict[str, str], chunked: bool
) -> None:
    block = bytes(1_000_000)
    length = {} if chunked else {"Content-Length": str(200 * len(block))}
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    # Unlike other clients, this one reads a response only after it has sent everything.
    connection.request("POST", "/predict", (block for _ in range(200)), FORM | length | close, encode_chunked=chunked)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (413, "too_large")
    connection.close()


@pytest.mark.parametrize("content_type", [FORM["Content-Type"], "application/json"])
def test_no_more_of_a_large_body_is_read_than_the_limit(content_type: str) -> None:
    chunk_bytes = 50_000
    received_bytes = 0

    async def receive() -> Message:
        nonlocal received_bytes
        received_bytes += chunk_bytes
        assert received_bytes < 1.6 * LIMITS.upload_bytes
        return {"type": "http.request", "body": bytes(chunk_bytes), "more_body": True}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
    with pytest.raises(RefusalError) as refusal:
        asyncio.run(read_photographs(Request(scope, receive), ["photograph"], LIMITS.upload_bytes))
    assert refusal.value.status == 413


def test_a_body_that_states_its_size_is_refused_before_it_is_read() -> None:
    async def receive() -> Message:
        raise AssertionError("the body is read")

    headers = [(b"content-type", b"application/json"), (b"content-length", b"200000000")]
    with pytest.raises(RefusalError) as refusal:
        request = Request({"type": "http", "headers": headers}, receive)
        asyncio.run(read_photographs(request, ["photograph"], LIMITS.upload_bytes))
    assert refusal.value.status == 413


@pytest.mark.slow
def test_no_photograph_is_written_or_logged(model: Path, tmp_path: Path) -> None:
    with run_server(tmp_path, "--model", str(model), "--max-upload-mb", "5") as (address, process):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))  # from here on, writing to any file fails
        content = draw_noise() + bytes(3_000_000)
        assert post_form(address, content, name="holiday.png", query="heat_map=true").status_code == 200
        assert post_json(address, content).status_code == 200
        assert post_form(address, b"nothing", name="holiday.png").status_code == 422
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert output == "terminated\n"
    assert not list(tmp_path.iterdir())
