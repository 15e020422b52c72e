"""Only requests with the token, and by a host name of the server's own, get through."""

import pytest

from celebflow.errors import CelebflowError
from celebflow.inference.access import make_access
from celebflow.inference.predictor import Predictor
from tests.inference.serving import get, post_form, read_refusal, start_server
from tests.models import draw_noise

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there: the tests only check that a token is required


def test_a_token_keeps_others_out(predictor: Predictor) -> None:
    with start_server(predictor, access=make_access("127.0.0.1", "secret")) as address:
        for wrong in (None, b"Bearer secre", b"secret", "Bearer é".encode()):
            headers = {} if wrong is None else {"Authorization": wrong}
            for response in (
                post_form(address, draw_noise(), headers=headers),
                get(address, "/metrics", headers=headers),
            ):
                assert read_refusal(response) == (401, "unauthorized")
                assert response.headers["www-authenticate"] == "Bearer"
        for scheme in ("Bearer", "bearer"):  # upper and lower case are alike
            headers = {"Authorization": f"{scheme} secret".encode()}
            assert post_form(address, draw_noise(), headers=headers).ok
            assert get(address, "/metrics", headers=headers).ok
        assert get(address, "/healthz").ok


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/openapi.json", "/docs", "/predict", "/nothing"])
def test_another_host_name_is_refused(address: str, path: str) -> None:
    assert read_refusal(get(address, path, headers={"Host": "evil.example:80"})) == (421, "wrong_host")


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:PORT", "localhost.:PORT", "127.0.0.1:PORT", "[::1]", "[::1]:PORT"]
)
def test_localhost_is_a_name_of_the_server(address: str, host: str) -> None:
    port = address.rpartition(":")[2]
    assert get(address, "/healthz", headers={"Host": host.replace("PORT", port)}).ok


def test_an_allowed_name_gets_through_and_others_do_not(predictor: Predictor) -> None:
    access = make_access("127.0.0.1", None, ["Faces.Example", "fd00::0001"])
    with start_server(predictor, access=access) as address:
        for host in ("faces.example", "FACES.example.:8443", "[fd00::1]:8000", "[FD00:0::1]", "localhost"):
            assert get(address, "/healthz", headers={"Host": host}).ok
        for host in ("example", "evil.faces.example", "faces.example.evil", "faces.example@evil", "[fd00::2]"):
            assert read_refusal(get(address, "/healthz", headers={"Host": host})) == (421, "wrong_host")
        forwarded = {"Host": "evil.example", "X-Forwarded-Host": "faces.example", "Forwarded": "host=faces.example"}
        refusal = get(address, "/healthz", headers=forwarded)
        assert read_refusal(refusal) == (421, "wrong_host"), "anybody can send these headers"
        assert "--allow-host" in refusal.json()["message"]


@pytest.mark.parametrize(
    "name",
    ["", ".", "http://faces.example", "faces.example/", "faces.example:443", "[::1]:80", "*.example", "a b", "fäces"],
)
@pytest.mark.parametrize(("host", "token"), [("127.0.0.1", None), (EVERYWHERE, "secret")])
def test_an_allowed_name_must_be_a_host_name(name: str, host: str, token: str | None) -> None:
    with pytest.raises(CelebflowError, match="--allow-host") as error:
        make_access(host, token, [name])
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("host", "token", "allows_any_host"),
    [("127.0.0.1", None, False), ("localhost", None, False), ("::1", None, False), (EVERYWHERE, "secret", True)],
)
def test_host_names_are_limited_on_loopback_addresses(host: str, token: str | None, allows_any_host: bool) -> None:
    assert make_access(host, token).allows_host("evil.example") == allows_any_host


@pytest.mark.parametrize(
    ("host", "token", "message"),
    [
        (EVERYWHERE, None, "--token"),
        ("192.168.0.1", None, "--token"),
        ("::", None, "--token"),
        ("127.0.0.1", "a b", "ASCII"),
    ],
)
def test_a_server_that_others_can_reach_needs_a_valid_token(host: str, token: str | None, message: str) -> None:
    with pytest.raises(CelebflowError, match=message):
        make_access(host, token)
