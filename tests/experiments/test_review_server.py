"""Only the page of the review itself can change anything, and only what it has an address for."""

import errno
import io
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from celebflow.evaluation.suspects import Suspect
from celebflow.experiments.review import Review, open_review
from tests.experiments.reviewing import Client, find_row, list_photographs, make_project, serve_review
from tests.inference.serving import read_refusal


@pytest.fixture
def suspects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Suspect]:
    """Return the suspects of a project in the working directory."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, 2)


@pytest.fixture
def review(suspects: list[Suspect]) -> Iterator[Review]:
    """Open the review."""
    with open_review() as review:
        yield review


@pytest.fixture
def client(review: Review) -> Iterator[Client]:
    """Serve its page from a thread of this process."""
    with serve_review(review) as client:
        yield client


def test_the_page_loads_nothing_from_elsewhere_and_nobody_frames_it(client: Client) -> None:
    response = client.get("")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "img-src 'self' data:" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"\son\w+=", response.text), "no handler that the policy would stop"


@pytest.mark.parametrize("path", ["", "state", "pictures/0/photograph", "decisions", "nothing", "docs", "openapi.json"])
def test_nothing_is_answered_without_the_token(client: Client, path: str) -> None:
    token = client.address.split("/")[-2]
    assert len(token) > 40
    for wrong in ("/", "//", f"/{token[:-1]}/", f"/{token}x/", "/%00/", "/é/", f"/?token={token}&", f"/{token}?"):
        for method in ("GET", "POST", "HEAD", "OPTIONS"):
            response = requests.request(
                method, f"{client.origin}{wrong}{path}", headers={"Origin": client.origin}, timeout=60
            )
            assert response.status_code == 401, (method, wrong)
    assert client.get(path).status_code in ((405,) if path == "decisions" else (200, 404))


def test_pages_of_others_can_neither_ask_nor_change_anything(client: Client, review: Review) -> None:
    port = client.origin.rpartition(":")[2]
    body = {"row": 0, "action": "delete"}
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
        assert read_refusal(client.get("state", Host=host)) == (421, "wrong_host")
        refusal = client.post("decisions", body, origin=f"http://{host}", Host=host)
        assert read_refusal(refusal) == (421, "wrong_host")
    for origin in ("http://evil.example", "null", "http://127.0.0.1", f"https://127.0.0.1:{port}", "", "http://"):
        for path in ("decisions", "undo", "apply"):
            assert read_refusal(client.post(path, body, origin)) == (403, "wrong_origin"), origin
    response = requests.options(f"{client.address}decisions", headers={"Origin": "http://evil.example"}, timeout=60)
    assert response.status_code == 403 and "Access-Control-Allow-Origin" not in response.headers
    assert review.items[0].change is None
    local = {"Host": f"localhost:{port}", "origin": f"http://localhost:{port}"}
    assert client.post("decisions", body, **local).ok


def test_reading_changes_nothing(client: Client, tmp_path: Path) -> None:
    before = list_photographs(tmp_path)
    for path in ("decisions", "undo", "apply"):
        assert read_refusal(client.get(path)) == (405, "method_not_allowed")
    for path in ("", "state", "pictures/0/photograph"):
        assert client.post(path, {}).status_code == 405
        assert client.get(path).ok
    assert list_photographs(tmp_path) == before
    assert (tmp_path / ".celebflow" / "review" / "journal.jsonl").read_text() == ""


def test_a_page_decides_applies_and_undoes(client: Client, tmp_path: Path) -> None:
    before = list_photographs(tmp_path)
    state = client.get("state").json()
    assert state["people"] == ["Ann", "Bo_Ek", "Cy"] and len(state["items"]) == 6 and state["commands"] == []
    content = client.post("decisions", {"row": 0, "action": "move", "person": "Cy"}).json()
    assert find_row(content, 0)["to"] == "Cy" and content["commands"] == []
    client.post("decisions", {"row": 1, "action": "delete"})
    content = client.post("apply", {"rows": [0]}).json()
    assert find_row(content, 0)["place"] == "data/Cy/0-2.png"
    assert content["commands"][0] == "dvc add data" and content["problems"] == []
    assert len(list_photographs(tmp_path)) == len(before), "what the page did not list is not applied"
    assert (tmp_path / "data" / "Bo_Ek" / "0.png").exists()
    assert find_row(client.post("undo", {}).json(), 1)["action"] == ""
    assert find_row(client.post("undo", {"row": 0}).json(), 0)["place"] == ""
    assert list_photographs(tmp_path) == before


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("decisions", {"row": 0, "action": "move", "person": "../Cy"}, 409),
        ("decisions", {"row": 0, "action": "move", "person": "\ud800"}, 409),  # half a character, as JSON can have it
        ("decisions", {"row": 99, "action": "keep"}, 409),
        ("decisions", {"row": "data/Ann/0.png", "action": "keep"}, 422),
        ("decisions", {"row": 0, "action": "unlink"}, 422),
        ("decisions", [], 422),
        ("undo", {"row": 0}, 409),
        ("apply", {"rows": [0, 99]}, 409),
        ("apply", {"rows": ["Ann/0.png"]}, 422),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    client: Client, tmp_path: Path, path: str, body: Any, status: int
) -> None:
    before = list_photographs(tmp_path)
    response = client.post(path, body)
    assert response.status_code == status
    assert response.json()["message"]
    assert list_photographs(tmp_path) == before


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 507), (errno.EACCES, 507), (errno.EIO, 409)])
def test_what_the_system_refuses_is_a_message_too(
    client: Client, review: Review, tmp_path: Path, code: int, status: int
) -> None:
    before = list_photographs(tmp_path)

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        response = client.post("decisions", {"row": 0, "action": "delete"})
    assert response.status_code == status
    assert "journal.jsonl" in response.json()["message"] and os.strerror(code) in response.json()["message"]
    assert client.post("decisions", {"row": 0, "action": "delete"}).status_code == 200
    review.apply([0])
    (tmp_path / "data" / "Ann").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "Ann").touch()  # a file in the place of the folder
    response = client.post("undo", {"row": 0})
    assert (response.status_code, "data/Ann" in response.json()["message"]) == (409, True)
    (tmp_path / "data" / "Ann").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "data" / "Ann")
    assert client.post("undo", {"row": 0}).status_code == 200
    assert list_photographs(tmp_path) == before


def test_pictures_are_jpegs_of_known_rows_alone(client: Client, tmp_path: Path) -> None:
    for kind, size in (("photograph", (40, 30)), ("small", (160, 160)), ("of_given", (160, 160))):
        response = client.get(f"pictures/1/{kind}")
        assert response.headers["Content-Type"] == "image/jpeg" and response.headers["Cache-Control"] == "no-store"
        assert Image.open(io.BytesIO(response.content)).size == size
    for path in ("99/photograph", "-1/photograph", "1/of_likelier"):
        assert read_refusal(client.get(f"pictures/{path}")) == (404, "not_found")
    for path in ("1/other", "..%2f/photograph", "1/..%2f..%2fparams.yaml"):
        assert client.get(f"pictures/{path}").status_code in (404, 422)
    client.post("decisions", {"row": 1, "action": "delete"})
    client.post("apply", {"rows": [1]})
    assert client.get("pictures/1/photograph").ok, "what was deleted can still be seen, to undo it"
    (tmp_path / "data" / "Ann" / "0.png").write_bytes(b"something else")
    assert read_refusal(client.get("pictures/0/photograph")) == (404, "not_found")


def test_requests_at_once_change_it_one_after_the_other(client: Client, review: Review) -> None:
    threads = [
        threading.Thread(target=client.post, args=("decisions", {"row": row % 6, "action": "delete"}))
        for row in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [item.change.number for item in review.items if item.change]
    assert len(set(numbers)) == 6 and set(numbers) == set(review.journal.changes)
