"""A server with a verifier compares two photographs as the command line does, and refuses what it cannot compare."""

import base64
import csv
import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import pytest
import requests
from click.testing import CliRunner
from PIL import Image

from celebflow.cli import main
from celebflow.data.decoding import decode_photograph
from celebflow.errors import CelebflowError
from celebflow.features import transform as transform_module
from celebflow.features.faces import Face
from celebflow.inference.access import make_access
from celebflow.inference.extractor import Extractor
from celebflow.inference.pair_verifier import PairVerifier
from tests.inference.serving import (
    FORM,
    LIMITS,
    get,
    post_form,
    post_pair,
    read_refusal,
    run_server,
    start_server,
)
from tests.models import draw_blue, draw_noise, make_face

ANSWERS = [(draw_noise(), draw_noise(1), "same"), (draw_noise(), draw_blue(), "different")]


@pytest.mark.parametrize(("first", "second", "answer"), ANSWERS, ids=["same", "different"])
def test_form_and_base64_get_the_answer_of_the_verifier(
    verifier_address: str, pair_verifier: PairVerifier, first: bytes, second: bytes, answer: str
) -> None:
    coordinates = [pair_verifier.embed(decode_photograph(content), whole=True) for content in (first, second)]
    expected = pair_verifier.compare(*coordinates)
    assert expected.answer == answer
    texts = {"first": base64.b64encode(first).decode(), "second": base64.b64encode(second).decode()}
    for response in (
        post_pair(verifier_address, first, second, query="whole=true"),
        requests.post(f"{verifier_address}/verify?whole=true", json=texts, timeout=60),
    ):
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        found = response.json()
        assert found["answer"] == answer
        assert found["log_odds"] == pytest.approx(expected.log_odds, abs=1e-3)
        assert found["probability"] == pytest.approx(expected.probability, abs=1e-3)
        assert (found["false_match_rate"], found["false_non_match_rate"]) == (0.125, 0.25)
        assert found["warning"].startswith("UNTRAINED") and found["note"] is None
        whole = {"width_px": 60, "height_px": 40, "compared": "whole photograph", "box": None}
        assert found["first"] == found["second"] == whole


def test_the_subjects_are_compared_and_each_photograph_is_extracted_once(
    verifier_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detected = {(60, 40): [make_face(30, 5, 50, 25), make_face(0, 3, 14, 16)], (40, 60): [make_face(5, 5, 25, 30)]}
    monkeypatch.setattr(transform_module, "detect_faces", lambda photograph: detected[photograph.size])
    extract = Extractor.extract
    extracted: list[tuple[tuple[int, int], int]] = []  # a photograph's size, and the faces that are extracted

    def count(self: Extractor, photograph: Image.Image, max_faces: int | None = None, *, whole: bool = False) -> object:
        faces = list(extract(self, photograph, max_faces, whole=whole))
        extracted.append((photograph.size, len(faces)))
        return iter(faces)

    monkeypatch.setattr(Extractor, "extract", count)
    found = post_pair(verifier_address, draw_noise(), draw_noise(size=(40, 60))).json()
    assert found["first"]["box"] == {"left": 30, "top": 5, "right": 50, "bottom": 25}
    assert found["second"]["box"] == {"left": 5, "top": 5, "right": 25, "bottom": 30}
    assert (found["second"]["width_px"], found["second"]["compared"]) == (40, "face")
    assert sorted(extracted) == [((40, 60), 1), ((60, 40), 1)]
    assert "the most prominent was compared: first. Crop" in found["note"]


def test_the_command_tells_of_which_photographs_one_face_of_several_was_compared(
    verifier_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, one = [make_face(30, 5, 50, 25), make_face(0, 3, 14, 16)], [make_face(5, 5, 25, 30)]
    monkeypatch.setattr(transform_module, "detect_faces", lambda photograph: two if photograph.width == 60 else one)
    for name, size in (("group.png", (60, 40)), ("portrait.png", (40, 60))):
        (tmp_path / name).write_bytes(draw_noise(size=size))
    monkeypatch.chdir(tmp_path)
    arguments = ["verify", "--model", str(verifier_model), "portrait.png", "group.png", "group.png", "portrait.png"]
    result = CliRunner().invoke(main, arguments)
    assert "the most prominent was compared: group.png. Crop" in result.stderr
    assert not CliRunner().invoke(main, [*arguments[:3], "portrait.png", "portrait.png"]).stderr


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (False, False)])
def test_without_a_face_nothing_is_compared_unless_the_client_wants_it(
    verifier_address: str, monkeypatch: pytest.MonkeyPatch, first: bool, second: bool
) -> None:
    def detect(photograph: Image.Image) -> list[Face]:
        return [make_face(5, 5, 25, 25)] if photograph.width > photograph.height else []

    monkeypatch.setattr(transform_module, "detect_faces", detect)
    contents = [draw_noise(size=(60, 40) if has_face else (40, 60)) for has_face in (first, second)]
    found = post_pair(verifier_address, *contents).json()
    assert (found["answer"], found["probability"], found["log_odds"]) == ("no face found", None, None)
    for name, has_face in (("first", first), ("second", second)):
        assert (found[name]["compared"] == "face") == (found[name]["box"] is not None) == has_face
        assert (name in found["note"]) == (not has_face)
    whole = post_pair(verifier_address, *contents, query="whole=true").json()
    assert whole["answer"] in ("same", "different") and whole["note"] is None


def test_many_clients_at_once_get_what_each_gets_alone(verifier_address: str) -> None:
    seconds = [draw_noise(1), draw_blue(), draw_noise(2), draw_noise(3)]
    first = draw_noise()

    def ask(second: bytes) -> float:
        return float(post_pair(verifier_address, first, second, query="whole=true").json()["log_odds"])

    alone = [ask(second) for second in seconds]
    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(ask, seconds * 2))
    assert together == pytest.approx(alone * 2, abs=1e-3)


def _make_part(name: str, content: bytes) -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode() + content + b"\r\n"


@pytest.mark.parametrize(
    ("names", "field"),
    [(["first"], "second"), (["second"], "first"), (["first", "first"], "second"), (["first", "second", "first"], "")],
)
def test_a_form_without_one_file_in_each_field_is_refused(verifier_address: str, names: list[str], field: str) -> None:
    body = b"".join(_make_part(name, draw_noise()) for name in names) + b"--x--\r\n"
    response = requests.post(f"{verifier_address}/verify", data=body, headers=FORM, timeout=60)
    assert read_refusal(response) == (400, "malformed")
    assert field in response.json()["message"]


@pytest.mark.parametrize("body", [{"first": ""}, {"first": "", "second": 1}, {"first": "", "second": "", "third": ""}])
def test_json_with_other_fields_is_refused(verifier_address: str, body: dict[str, object]) -> None:
    response = requests.post(
        f"{verifier_address}/verify", data=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=60
    )
    assert read_refusal(response) == (400, "malformed")
    assert '"first"' in response.json()["message"] and '"second"' in response.json()["message"]


@pytest.mark.parametrize("which", ["first", "second"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"nothing", (422, "not_a_photograph")),
        (draw_noise(size=(1001, 1000), kind="JPEG"), (422, "not_a_photograph")),
        (draw_noise() + bytes(LIMITS.upload_bytes), (413, "too_large")),
    ],
    ids=["text", "pixels", "bytes"],
)
def test_one_bad_file_of_two_is_refused_and_named(
    verifier_address: str, which: str, content: bytes, expected: tuple[int, str]
) -> None:
    contents = [content, draw_noise()] if which == "first" else [draw_noise(), content]
    response = post_pair(verifier_address, *contents)
    assert read_refusal(response) == expected
    assert expected[0] == 413 or f"{which} file" in response.json()["message"]


def test_a_token_is_required(pair_verifier: PairVerifier) -> None:
    with start_server(pair_verifier, access=make_access("127.0.0.1", "secret")) as address:
        assert read_refusal(post_pair(address, draw_noise(), draw_noise())) == (401, "unauthorized")
        headers: dict[str, str | bytes] = {"Authorization": "Bearer secret"}
        assert post_pair(address, draw_noise(), draw_noise(), query="whole=true", headers=headers).status_code == 200


def test_each_server_says_what_it_does_instead_of_the_other_task(address: str, verifier_address: str) -> None:
    for response, task, path in (
        (post_form(verifier_address, draw_noise()), "verification", "/verify"),
        (get(verifier_address, "/predict"), "verification", "/verify"),
        (post_pair(address, draw_noise(), draw_noise()), "recognition", "/predict"),
    ):
        assert read_refusal(response) == (404, "other_task")
        assert task in response.json()["message"] and path in response.json()["message"]
    assert get(verifier_address, "/healthz").json() == {
        "status": "ok",
        "task": "verification",
        "people": 20,
        "waiting": 0,
    }
    described = get(verifier_address, "/openapi.json").json()
    assert set(described["paths"]) == {"/verify", "/healthz", "/metrics"}


def test_comparisons_are_counted(verifier_address: str) -> None:
    def count(sample: str) -> float:
        lines = get(verifier_address, "/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(sample)), 0.0)

    samples = ('celebflow_requests_total{path="/verify",status="200"}', "celebflow_faces_total ")
    before = [count(sample) for sample in samples]
    post_pair(verifier_address, draw_noise(), draw_noise(1), query="whole=true")
    assert [count(sample) for sample in samples] == [before[0] + 1, before[1] + 2]


@pytest.mark.slow
def test_the_command_line_and_a_server_process_agree_and_nothing_is_written(
    verifier_model: Path, tmp_path: Path
) -> None:
    names = ["noise.png", "other.png", "blue.png"]
    for name, content in zip(names, (draw_noise(), draw_noise(1), draw_blue()), strict=True):
        (tmp_path / name).write_bytes(content)
    pairs = [("noise.png", "other.png"), ("noise.png", "blue.png")]
    files = [str(tmp_path / name) for pair in pairs for name in pair]
    output = CliRunner().invoke(main, ["verify", "--model", str(verifier_model), "--whole", "--json", *files])
    expected = json.loads(output.stdout)
    with run_server(tmp_path, "--model", str(verifier_model)) as (address, process):
        found = [
            post_pair(address, *[(tmp_path / name).read_bytes() for name in pair], query="whole=true").json()
            for pair in pairs
        ]
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "terminated\n"
    assert [each["answer"] for each in found] == [each["answer"] for each in expected] == ["same", "different"]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["log_odds"] == pytest.approx(theirs["log_odds"], abs=1e-3)
        for rate in ("false_match_rate", "false_non_match_rate"):
            assert mine[rate] == theirs[rate] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_the_command_also_reads_standard_input_and_pipes_that_it_is_given(verifier_model: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.png").write_bytes(draw_noise())
    os.mkfifo(tmp_path / "pipe")
    Thread(target=(tmp_path / "pipe").write_bytes, args=(draw_blue(),)).start()
    command = ["verify", "--model", str(verifier_model), "--whole", "--csv"]
    files = ["-", str(tmp_path / "noise.png"), str(tmp_path / "pipe"), "-"]
    output = CliRunner().invoke(main, [*command, *files], input=draw_noise())
    assert [row["answer"] for row in csv.DictReader(output.stdout.splitlines())] == ["same", "different"]


@pytest.mark.parametrize("arguments", [["-", "-"], ["--pairs", "-", "a.jpg", "-"]])
def test_standard_input_holds_one_thing_only(verifier_model: Path, arguments: list[str]) -> None:
    output = CliRunner().invoke(main, ["verify", "--model", str(verifier_model), *arguments], input=draw_noise())
    assert isinstance(output.exception, CelebflowError) and "Standard input (-)" in str(output.exception)
    assert output.stdout == ""


def test_rows_of_a_table_name_files_alone_and_one_that_is_none_is_refused_by_name(
    verifier_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "noise.png").write_bytes(draw_noise())
    os.mkfifo(tmp_path / "pipe")
    rows = ["noise.png,noise.png", "noise.png,pipe", "noise.png,-", "a\0.png,noise.png"]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second", *rows]), encoding="utf-8")
    command = ["verify", "--model", str(verifier_model), "--whole", "--csv", "--pairs", str(tmp_path / "pairs.csv")]
    output = CliRunner().invoke(main, command, input=draw_noise())
    assert isinstance(output.exception, CelebflowError) and "3 files" in str(output.exception)
    for name, reason in (("pipe", "not a regular file"), ("-", "No such file"), ("a\\u0000.png", "null character")):
        assert re.search(rf"{re.escape(str(tmp_path / name))}: .*{reason}", output.stderr)
    assert len(output.stdout.splitlines()) == 2
