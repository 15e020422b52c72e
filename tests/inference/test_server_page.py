"""The server's page is driven in a real browser: every way to hand over a photograph, and what comes of it."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.backbone.vgg19 import UNTRAINED_WARNING, Backbone
from celebflow.features import transform as transform_module
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference import server
from tests.browser import emulate_phone, has_alert, take_console, take_requests
from tests.models import LIMITS, draw_noise, make_face, save_model, start_server

PHONE_WIDTH_PX = 390
NAMES = ["Ada_Brown", "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "Björn", "Cy", "Di"]
# Hands over files as a drop or a paste does: the event with what it transfers.
TRANSFER = """
const [kind, files] = arguments;
const transfer = new DataTransfer();
for (const [name, content] of files) {
  const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
}
const event = kind === "paste"
  ? new ClipboardEvent(kind, { clipboardData: transfer, bubbles: true, cancelable: true })
  : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
document.querySelector("#drop").dispatchEvent(event);
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path) -> Path:
    transform = Transform(32, WHOLE.model_copy(update={"crop": "detect"}))
    return save_model(tmp_path_factory.mktemp("model"), backbone, backbone_file, transform, 0.0, NAMES)


@pytest.fixture
def page(model: Path, browser: Chrome, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chrome]:
    """Open the page of a server that finds two faces in what is wider than high, and none elsewhere."""

    def find(photograph: Image.Image) -> list[object]:
        wide = photograph.width > photograph.height
        return [make_face(30, 5, 50, 25), make_face(-2, 3, 14, 16)] if wide else []

    monkeypatch.setattr(transform_module, "detect_faces", find)
    with start_server(model) as address:
        take_console(browser)
        take_requests(browser)
        browser.get(address)
        yield browser
        assert all(request.startswith((address, "blob:")) for request in take_requests(browser))
        # What the server refuses, the browser notes.
        assert not [line for line in take_console(browser) if "/predict" not in line]
        assert not has_alert(browser)


def _wait(page: Chrome, selector: str) -> None:
    def shown(driver: Chrome) -> bool:
        return any(each.is_displayed() for each in driver.find_elements(By.CSS_SELECTOR, selector))

    WebDriverWait(page, 30).until(shown)


def _upload(page: Chrome, file: Path) -> None:
    page.find_element(By.ID, "file").send_keys(str(file))


def _transfer(page: Chrome, kind: str, *files: tuple[str, bytes]) -> None:
    page.execute_script(TRANSFER, kind, [(name, base64.b64encode(content).decode()) for name, content in files])


def _texts(page: Chrome, selector: str) -> list[str]:
    return [each.text for each in page.find_elements(By.CSS_SELECTOR, selector)]


def test_an_upload_shows_each_face_with_its_names_and_box(page: Chrome, tmp_path: Path) -> None:
    (tmp_path / "two.png").write_bytes(draw_noise())
    _upload(page, tmp_path / "two.png")
    _wait(page, "#answer")
    assert len(page.find_elements(By.CSS_SELECTOR, ".face")) == 2
    first = _texts(page, ".face:first-child .candidates th")
    assert len(first) == 5 and set(first) <= {name.replace("_", " ") for name in NAMES}
    assert _texts(page, ".face h2")[0] == f"1. {first[0]}"
    shares = [float(text.rstrip("% \u00a0")) for text in _texts(page, ".face:first-child .candidates td:last-child")]
    assert shares == sorted(shares, reverse=True) and all(0 < share < 100 for share in shares)
    track = page.find_element(By.CSS_SELECTOR, ".bar").size["width"]
    widths = [each.size["width"] for each in page.find_elements(By.CSS_SELECTOR, ".face:first-child .bar > div")]
    assert widths == pytest.approx([track * share / 100 for share in shares], abs=1.5)

    picture = page.find_element(By.ID, "photograph").rect
    expected = {"1": (30, 5, 50, 25), "2": (0, 3, 14, 16)}  # where the second leaves the photograph it is cut off
    boxes = {each.text: each.rect for each in page.find_elements(By.CSS_SELECTOR, ".box")}
    assert list(boxes) == list(expected)
    for number, (left, top, right, bottom) in expected.items():
        scale = picture["width"] / 60
        found = (
            boxes[number]["x"] - picture["x"],
            boxes[number]["y"] - picture["y"],
            boxes[number]["width"],
            boxes[number]["height"],
        )
        assert found == pytest.approx([scale * side for side in (left, top, right - left, bottom - top)], abs=1.5)
    for image in page.find_elements(By.CSS_SELECTOR, ".looks img"):
        assert page.execute_script("return arguments[0].naturalWidth", image) == 160
    assert not page.find_elements(By.CSS_SELECTOR, ".nearest"), "which the owner did not allow"
    assert not page.find_element(By.ID, "problem").is_displayed()
    assert page.find_element(By.ID, "status").text.startswith(f"2 faces: {first[0]}, ")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photograph_is_dropped_or_pasted(page: Chrome, kind: str) -> None:
    _transfer(page, kind, ("tall.png", draw_noise(size=(40, 60))))
    _wait(page, "#answer")
    assert len(page.find_elements(By.CSS_SELECTOR, ".face")) == 1
    assert not page.find_elements(By.CSS_SELECTOR, ".box"), "no face was found: it is the photograph as a whole"
    assert not page.find_element(By.CSS_SELECTOR, ".face h2").text.startswith("1.")


def test_a_photograph_is_taken(page: Chrome) -> None:
    page.find_element(By.ID, "take").click()
    _wait(page, "video")
    WebDriverWait(page, 30).until(lambda driver: driver.find_element(By.ID, "shoot").is_enabled())
    page.find_element(By.ID, "shoot").click()
    _wait(page, "#answer")
    assert not page.find_element(By.CSS_SELECTOR, "video").is_displayed()
    assert page.execute_script("return find('video').srcObject") is None, "the camera is off"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("notes.txt", b"nothing of the kind")], "is no JPEG, PNG, WEBP or BMP image"),
        ([("huge.png", bytes(1_500_000))], "huge.png has 1.5 MB; 1 MB are the most."),
        ([("big.png", b"BM" + bytes(60)), ("other.png", b"")], "One photograph at a time"),
        ([], "holds no file"),
    ],
)
def test_what_is_no_photograph_is_told(page: Chrome, files: list[tuple[str, bytes]], message: str) -> None:
    _transfer(page, "drop", ("tall.png", draw_noise(size=(40, 60))))
    _wait(page, "#answer")
    _transfer(page, "drop", *files)
    _wait(page, "#problem")
    assert message in page.find_element(By.ID, "problem").text
    assert not page.find_element(By.ID, "answer").is_displayed()
    assert not page.find_element(By.ID, "status").text
    _transfer(page, "drop", ("tall.png", draw_noise(size=(40, 60))))
    _wait(page, "#answer")
    assert not page.find_element(By.ID, "problem").is_displayed()


def test_the_last_of_two_photographs_is_answered(page: Chrome) -> None:
    _transfer(page, "drop", ("two.png", draw_noise()))
    _transfer(page, "drop", ("tall.png", draw_noise(size=(40, 60))))
    _wait(page, "#answer")
    assert len(page.find_elements(By.CSS_SELECTOR, ".face")) == 1


def test_an_answer_that_comes_too_late_is_not_shown(page: Chrome) -> None:
    page.execute_script("photograph.decode = () => new Promise((resolve) => { window.goOn = resolve; });")
    _transfer(page, "drop", ("two.png", draw_noise()))
    WebDriverWait(page, 30).until(lambda driver: driver.execute_script("return Boolean(window.goOn)"))
    page.execute_script("delete photograph.decode")
    _transfer(page, "drop", ("tall.png", draw_noise(size=(40, 60))))
    page.execute_script("goOn()")
    _wait(page, "#answer")
    assert len(page.find_elements(By.CSS_SELECTOR, ".face")) == 1
    assert not page.find_elements(By.CSS_SELECTOR, ".box")


def test_it_is_as_narrow_as_a_phone(page: Chrome, tmp_path: Path) -> None:
    (tmp_path / "two.png").write_bytes(draw_noise())
    with emulate_phone(page, PHONE_WIDTH_PX):
        page.refresh()
        _upload(page, tmp_path / "two.png")
        _wait(page, "#answer")
        assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE_WIDTH_PX
        tops = [page.find_element(By.CSS_SELECTOR, each).rect["y"] for each in ("#photograph", "#faces")]
        assert tops[1] > tops[0], "the answers stand below the photograph"


def test_the_backbone_s_warning_is_told(page: Chrome) -> None:
    assert page.find_element(By.CSS_SELECTOR, ".warning").text == UNTRAINED_WARNING
    assert page.title.startswith("UNTRAINED")


def test_who_is_below_the_threshold_is_unknown(
    backbone: Backbone, backbone_file: Path, browser: Chrome, tmp_path: Path
) -> None:
    with start_server(save_model(tmp_path, backbone, backbone_file, Transform(32), 1.0)) as address:
        browser.get(address)
        _transfer(browser, "drop", ("tall.png", draw_noise(size=(40, 60))))
        _wait(browser, "#answer")
        assert _texts(browser, ".face h2") == ["Unknown"]
        assert "None of these is probable enough" in browser.find_element(By.CSS_SELECTOR, ".verdict").text


def test_a_token_is_asked_for(model: Path, browser: Chrome) -> None:
    with start_server(model, access=server.make_access("127.0.0.1", "secret")) as address:
        browser.get(address)
        _transfer(browser, "drop", ("tall.png", draw_noise(size=(40, 60))))
        _wait(browser, "#problem")
        assert "token" in browser.find_element(By.ID, "problem").text
        browser.find_element(By.ID, "token").send_keys("s\u00e9cret")
        _transfer(browser, "drop", ("tall.png", draw_noise(size=(40, 60))))
        _wait(browser, "#problem")
        assert "token" in browser.find_element(By.ID, "problem").text
        browser.find_element(By.ID, "token").clear()
        browser.find_element(By.ID, "token").send_keys("secret")
        _transfer(browser, "drop", ("tall.png", draw_noise(size=(40, 60))))
        _wait(browser, "#answer")


def test_a_server_that_is_gone_is_told(model: Path, browser: Chrome) -> None:
    with start_server(model, replace(LIMITS, seconds=1.0)) as address:
        browser.get(address)
    _transfer(browser, "drop", ("tall.png", draw_noise(size=(40, 60))))
    _wait(browser, "#problem")
    assert "does not answer" in browser.find_element(By.ID, "problem").text
