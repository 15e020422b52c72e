"""The documented example for nginx serves celebflow below a path; see `make test-services`."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.cli import serve
from tests import REPOSITORY
from tests.browser import take_requests
from tests.documentation import list_blocks, list_commands
from tests.inference.serving import get, head, post_form, read_refusal, run_server
from tests.models import draw_noise

pytestmark = pytest.mark.services

PAGE = REPOSITORY / "docs" / "prediction.md"
NAME = "faces.example"
MAX_UPLOAD_BYTES = 5_000_000
HEADERS: dict[str, str | bytes] = {"Host": NAME, "Authorization": "Bearer secret"}
# What Debian's nginx.conf has around the example, but all files are in a folder of the test's own.
CONFIGURATION = """
pid nginx.pid;
error_log error.log warn;
events {}
http {
    access_log off;
    client_body_temp_path requests;
    proxy_temp_path responses;
    include example.conf;
}
"""


@dataclass(frozen=True)
class Proxy:
    """A running nginx: its port, the address of the server through it, and its folder."""

    port: int
    address: str
    folder: Path


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the documented command; yield the server's own address."""
    (command,) = [command.text for command in list_commands(PAGE) if "--root-path" in command.text]
    options = shlex.split(command.partition("celebflow serve ")[2])
    options += ["--model", str(model), "--max-upload-mb", str(MAX_UPLOAD_BYTES / 1e6)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELEBFLOW_TOKEN", "secret")
        with run_server(tmp_path_factory.mktemp("server"), *options) as (address, _):
            yield address


@pytest.fixture(scope="module", params=["", "/"], ids=["path kept", "path removed"])
def proxy(server: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """Run nginx with the documented example, as it is and as the page says that it may be changed."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    assert program, "nginx is missing: sudo apt-get install nginx"
    folder = tmp_path_factory.mktemp("nginx")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", f"/CN={NAME}"]
    command += ["-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (example,) = list_blocks(PAGE, "nginx")
    for documented, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/faces.example.pem", str(certificate)),
        ("/etc/ssl/faces.example.key", str(key)),
        ("proxy_pass http://127.0.0.1:8000;", f"proxy_pass {server}{request.param};"),
    ):
        assert example.count(documented) == 1
        example = example.replace(documented, here)
    (folder / "example.conf").write_text(example)
    # A worker of root's nginx would run as a user who has no access to the folder.
    (folder / "nginx.conf").write_text(("user root;" if os.geteuid() == 0 else "") + CONFIGURATION)
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process, folder / "error.log")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
            yield Proxy(port, f"https://127.0.0.1:{port}/faces", folder)
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def test_programs_get_through_with_the_name_and_the_token(proxy: Proxy) -> None:
    assert get(proxy.address, "/healthz", HEADERS).json()["status"] == "ok"
    health = head(proxy.address, "/healthz", HEADERS)
    assert (health.status_code, health.content) == (200, b"")
    assert get(proxy.address, "/openapi.json", HEADERS).json()["servers"] == [{"url": "/faces"}]
    assert post_form(proxy.address, draw_noise(), headers=HEADERS).status_code == 200
    assert read_refusal(post_form(proxy.address, draw_noise(), headers={"Host": NAME})) == (401, "unauthorized")
    assert read_refusal(get(proxy.address, "/healthz", {"Host": "evil.example"})) == (421, "wrong_host")


def test_uploads_up_to_the_limit_get_through_and_nothing_of_them_is_stored(proxy: Proxy) -> None:
    photograph = draw_noise(size=(900, 900), kind="JPEG")
    content = photograph + bytes(MAX_UPLOAD_BYTES - len(photograph))
    assert post_form(proxy.address, content, headers=HEADERS, query="heat_map=true").status_code == 200
    request = requests.Request("POST", f"{proxy.address}/predict", HEADERS, {"photograph": content}).prepare()
    assert isinstance(request.body, bytes)
    blocks = (request.body[start : start + 100_000] for start in range(0, len(request.body), 100_000))
    headers = {**HEADERS, "Content-Type": request.headers["Content-Type"]}
    chunked = requests.post(f"{proxy.address}/predict", data=blocks, headers=headers, timeout=60)
    assert chunked.status_code == 200
    for excess in (1, 95_000_000):
        refused = post_form(proxy.address, content + bytes(excess), headers=HEADERS)
        assert read_refusal(refused) == (413, "too_large")
    assert "temporary file" not in (proxy.folder / "error.log").read_text()


def test_the_server_gives_up_on_a_prediction_before_the_proxy_does() -> None:
    (example,) = list_blocks(PAGE, "nginx")
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", example)
    defaults = {option.name: option.default for option in serve.params}
    assert float(seconds) > defaults["timeout"]  # type: ignore[operator]


def test_people_use_the_page_below_the_path(proxy: Proxy, browser: Chrome, tmp_path: Path) -> None:
    def wait_for(selector: str) -> None:
        WebDriverWait(browser, 30).until(lambda driver: driver.find_element(By.CSS_SELECTOR, selector).is_displayed())

    (tmp_path / "photograph.png").write_bytes(draw_noise())
    take_requests(browser)
    browser.get(f"https://{NAME}:{proxy.port}/faces/")
    browser.find_element(By.ID, "token").send_keys("secret")
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "photograph.png"))
    wait_for("#result")
    assert browser.execute_script("return isSecureContext"), "the camera needs it"
    browser.find_element(By.LINK_TEXT, "For programs").click()
    WebDriverWait(browser, 30).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".opblock"))
    requested = [address for address in take_requests(browser) if not address.startswith("blob:")]
    assert f"https://{NAME}:{proxy.port}/faces/openapi.json" in requested
    assert all(address.startswith(f"https://{NAME}:{proxy.port}/faces/") for address in requested), requested
