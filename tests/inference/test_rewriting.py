"""HEAD gets what GET gets but for the body, and a reverse proxy may serve everything below a path."""

import re

import pytest
import requests

from celebflow.errors import CelebflowError
from celebflow.inference.access import make_access
from celebflow.inference.predictor import Predictor
from celebflow.inference.rewriting import parse_root_path
from tests.inference.serving import get, head, post_form, read_refusal, start_server
from tests.models import draw_noise

VARYING = {"date", "content-length"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/healthz", 200),
        ("/metrics", 200),
        ("/docs", 200),
        ("/openapi.json", 200),
        ("/static-offline-docs/swagger-ui.css", 200),
        ("/predict", 405),
        ("/nothing", 404),
    ],
)
def test_head_gets_what_get_gets_without_the_body(address: str, path: str, status: int) -> None:
    with requests.Session() as session:  # one connection: a body would be taken for the next response
        without = session.head(f"{address}{path}", timeout=60)
        whole = session.get(f"{address}{path}", timeout=60)
    assert without.status_code == whole.status_code == status
    assert without.content == b""
    assert without.headers.keys() == whole.headers.keys()
    for name in without.headers.keys() - VARYING:
        assert without.headers[name] == whole.headers[name]
    if path != "/metrics":  # it counts the first request
        assert int(without.headers["content-length"]) == len(whole.content)


def test_head_needs_the_host_name_and_the_token_that_get_needs(predictor: Predictor) -> None:
    with start_server(predictor, access=make_access("127.0.0.1", "secret")) as address:
        assert head(address, "/healthz", {"Host": "evil.example"}).status_code == 421
        assert head(address, "/metrics").status_code == 401
        assert head(address, "/metrics", {"Authorization": "Bearer secret"}).ok


def test_a_request_to_a_whole_address_gets_what_one_to_its_path_gets(address: str) -> None:
    port = address.rpartition(":")[2]
    with requests.Session() as session:
        session.trust_env = False
        session.proxies = {"http": address}  # so the request line has the whole address
        for url, path in ((f"HTTP://LocalHost:{port}/docs?a=b", "/docs"), ("http://127.0.0.1", "/")):
            assert session.get(url, timeout=60).text == get(address, path).text
        assert session.head("http://localhost/healthz", timeout=60).ok
        files = {"photograph": draw_noise()}
        assert session.post("http://localhost/predict", files=files, timeout=60).ok
        for other in ("http://evil.example/healthz", "http://a%2Flocalhost/healthz"):
            refused = session.get(other, headers={"Host": "localhost"}, timeout=60)
            assert read_refusal(refused) == (421, "wrong_host")
    counted = get(address, "/metrics").text
    assert 'path="/docs",status="200"' in counted and 'path="/predict",status="200"' in counted


def test_everything_is_below_the_path_of_a_proxy_whether_it_removes_it_or_not(predictor: Predictor) -> None:
    with start_server(predictor, root_path="/faces") as address:
        for removed in ("", "/faces"):
            page = get(address, f"{removed}/")
            assert 'data-base="/faces/"' in page.text
            assert 'href="/faces/docs"' in page.text
            assert get(address, f"{removed}/healthz").ok
            assert head(address, f"{removed}/healthz").ok
            assert get(address, f"{removed}/openapi.json").json()["servers"] == [{"url": "/faces"}]
            linked = re.findall(r'(?:src|href|url: )=?[\'"](/[^\'"]+)[\'"]', get(address, f"{removed}/docs").text)
            assert "/faces/openapi.json" in linked
            for link in linked:
                assert get(address, link).ok
                assert get(address, removed + link.removeprefix("/faces")).ok
            assert post_form(f"{address}{removed}", draw_noise()).ok
        assert get(address, "/faces").text == page.text
        assert re.search(r'requests_total\{path="/predict",status="200"\} 2', get(address, "/metrics").text)
        for other in ("/facesx", "/face", "/faces/faces/healthz", "/faces/nothing"):
            assert read_refusal(get(address, other)) == (404, "not_found")


def test_without_the_path_of_a_proxy_the_page_s_addresses_are_relative(address: str) -> None:
    page = get(address, "/").text
    assert 'data-base=""' in page
    assert 'href="docs"' in page


@pytest.mark.parametrize(
    ("path", "expected"), [("/", ""), ("", ""), ("/faces", "/faces"), ("/a/B-1.x_~/", "/a/B-1.x_~")]
)
def test_a_path_has_no_slash_at_its_end(path: str, expected: str) -> None:
    assert parse_root_path(path) == expected


@pytest.mark.parametrize(
    "path",
    ["faces", "//", "/faces//", "//faces", "/a/../b", "/.", "/a?b", "/a b", "/ä", "http://a/b", "/predict", "/docs/"],
)
def test_a_path_that_is_not_valid_or_the_server_s_own_is_refused(path: str) -> None:
    with pytest.raises(CelebflowError, match="--root-path") as error:
        parse_root_path(path)
    assert repr(path) in str(error.value)
