"""In a real browser, the server's page takes a photograph in every way, and shows the prediction or the reason."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.backbone.source import UNTRAINED_WARNING
from celebflow.backbone.vgg19 import Backbone
from celebflow.features import transform as transform_module
from celebflow.features.faces import Face
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference.access import make_access
from celebflow.inference.enrolling import enroll
from celebflow.inference.predictor import Predictor
from tests.browser import emulate_phone, take_requests
from tests.inference.pages import SIDEWAYS, check_box, draw_sideways, open_page, transfer_files, wait_for
from tests.inference.serving import LIMITS, start_server
from tests.models import draw_noise, make_face, save_model

pytestmark = pytest.mark.slow

PHONE_WIDTH_PX = 390
NAMES = ["Ada_Brown", "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "Björn", "Cy", "Di"]
WIDE_SIZE, TALL_SIZE = (60, 40), (40, 60)
WIDE = draw_noise(size=WIDE_SIZE)  # two faces, see page_predictor
TALL = draw_noise(size=TALL_SIZE)  # one face
SQUARE = draw_noise(size=(40, 40))  # no face


@pytest.fixture(scope="module")
def page_predictor(
    tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path
) -> Iterator[Predictor]:
    """Load a model that detects two faces in a wide photograph, one in a tall one, and none in a square."""

    def detect_faces(photograph: Image.Image) -> list[Face]:
        count = {WIDE_SIZE: 2, TALL_SIZE: 1}.get(photograph.size, 0)
        return [make_face(30, 5, 50, 25), make_face(-2, 3, 14, 16)][:count]

    transform = Transform(32, WHOLE.model_copy(update={"crop": "detect"}))
    folder = save_model(tmp_path_factory.mktemp("model"), backbone, backbone_file, transform, 0.0, NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform_module, "detect_faces", detect_faces)
        yield Predictor.load(folder)


@pytest.fixture(scope="module")
def page_address(page_predictor: Predictor) -> Iterator[str]:
    """Serve it; yield the server's address."""
    with start_server(page_predictor) as address:
        yield address


@pytest.fixture
def page(page_address: str, browser: Chrome) -> Iterator[Chrome]:
    """Open the page, and check what it did afterwards."""
    with open_page(browser, page_address, "/predict"):
        yield browser


def _upload(page: Chrome, folder: Path, content: bytes) -> None:
    (folder / "photograph.png").write_bytes(content)
    page.find_element(By.ID, "file").send_keys(str(folder / "photograph.png"))


def _drop(page: Chrome, content: bytes) -> None:
    transfer_files(page, "#drop", "drop", ("photograph.png", content))


def _texts(page: Chrome, selector: str) -> list[str]:
    return [element.text for element in page.find_elements(By.CSS_SELECTOR, selector)]


def test_without_a_face_nobody_is_guessed_until_one_asks(page: Chrome, tmp_path: Path) -> None:
    _upload(page, tmp_path, SQUARE)
    wait_for(page, "#no-face")
    assert page.find_element(By.ID, "status").text == "No face found."
    assert not page.find_elements(By.CSS_SELECTOR, ".face")
    page.find_element(By.ID, "whole").click()
    wait_for(page, ".face")
    assert not page.find_element(By.ID, "no-face").is_displayed()
    assert not page.find_elements(By.CSS_SELECTOR, ".box"), "the prediction is for the photograph as a whole"
    assert len(_texts(page, ".face:first-child .candidates th")) == 5


def test_an_upload_shows_the_candidates_of_each_face(page: Chrome, tmp_path: Path) -> None:
    _upload(page, tmp_path, WIDE)
    wait_for(page, "#result")
    assert len(page.find_elements(By.CSS_SELECTOR, ".face")) == 2
    first = _texts(page, ".face:first-child .candidates th")
    assert len(first) == 5
    assert set(first) <= {name.replace("_", " ") for name in NAMES}
    assert _texts(page, ".face h2")[0] == f"1. {first[0]}"
    percents = [float(text.rstrip("% \u00a0")) for text in _texts(page, ".face:first-child .candidates td:last-child")]
    assert percents == sorted(percents, reverse=True)
    assert all(0 < percent < 100 for percent in percents)
    track = page.find_element(By.CSS_SELECTOR, ".bar").size["width"]
    bars = [element.size["width"] for element in page.find_elements(By.CSS_SELECTOR, ".face:first-child .bar > div")]
    assert bars == pytest.approx([track * percent / 100 for percent in percents], abs=1.5)
    for image in page.find_elements(By.CSS_SELECTOR, ".views img"):
        assert page.execute_script("return arguments[0].naturalWidth", image) == 160
    assert not page.find_elements(By.CSS_SELECTOR, ".nearest"), "the owner did not allow it"
    assert not page.find_element(By.ID, "error").is_displayed()
    assert page.find_element(By.ID, "status").text.startswith(f"2 faces: {first[0]}, ")


def test_an_upload_shows_the_box_of_each_face(page: Chrome, tmp_path: Path) -> None:
    _upload(page, tmp_path, WIDE)
    wait_for(page, "#result")
    photograph = page.find_element(By.ID, "photograph").rect
    scale = photograph["width"] / 60
    boxes = {element.text: element.rect for element in page.find_elements(By.CSS_SELECTOR, ".box")}
    expected = {"1": (30, 5, 20, 20), "2": (0, 3, 14, 13)}  # the second is cut off at the photograph's edge
    assert list(boxes) == list(expected)
    for number, sides in expected.items():
        box = boxes[number]
        found = (box["x"] - photograph["x"], box["y"] - photograph["y"], box["width"], box["height"])
        assert found == pytest.approx([scale * side for side in sides], abs=1.5)


@pytest.mark.parametrize("kind", SIDEWAYS)
def test_the_photograph_is_shown_upright_where_the_browser_would_not(page: Chrome, kind: str) -> None:
    _drop(page, draw_sideways(kind, WIDE_SIZE, (30, 5, 50, 25)))
    wait_for(page, "#result")
    check_box(page, "#photograph", ".box", WIDE_SIZE)


def test_an_enrolled_person_has_a_label_and_no_heat_map(
    page_predictor: Predictor, browser: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_predictor, "enrolled_file", tmp_path / "enrolled.safetensors")
    name = "<b>Eve</b>_Smith"
    enroll(name, ["tall.png"], lambda _: TALL, page_predictor, lambda _: None)
    with start_server(page_predictor) as address, open_page(browser, address, "/predict"):
        assert "or 1 enrolled" in browser.find_element(By.TAG_NAME, "body").text
        _upload(browser, tmp_path, TALL)
        wait_for(browser, "#result")
        assert _texts(browser, ".face h2") == ["<b>Eve</b> Smith enrolled"]
        first, *others = _texts(browser, ".candidates th")
        assert first == "<b>Eve</b> Smith enrolled"
        assert not any("enrolled" in other for other in others)
        assert len(browser.find_elements(By.CSS_SELECTOR, ".views img")) == 1
        assert _texts(browser, ".views figcaption") == ["What the network saw."]


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photograph_is_dropped_or_pasted(page: Chrome, kind: str) -> None:
    transfer_files(page, "#drop", kind, ("tall.png", TALL))
    wait_for(page, "#result")
    assert len(page.find_elements(By.CSS_SELECTOR, ".face")) == 1
    assert len(page.find_elements(By.CSS_SELECTOR, ".box")) == 1
    assert not page.find_element(By.CSS_SELECTOR, ".face h2").text.startswith("1.")


def test_a_photograph_is_taken(page: Chrome) -> None:
    page.find_element(By.ID, "open-camera").click()
    wait_for(page, "video")
    WebDriverWait(page, 30).until(lambda driver: driver.find_element(By.ID, "capture").is_enabled())
    page.find_element(By.ID, "capture").click()
    wait_for(page, "#result")
    assert not page.find_element(By.CSS_SELECTOR, "video").is_displayed()
    assert page.execute_script("return find('video').srcObject") is None, "the camera is off"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("notes.txt", b"nothing of the kind")], "JPEG, PNG, WebP"),
        ([("huge.png", bytes(1_500_000))], "huge.png has 1.5 MB; the limit is 1 MB."),
        ([("big.png", b"BM" + bytes(60)), ("other.png", b"")], "one photograph at a time"),
        ([], "no file"),
    ],
)
def test_an_error_is_shown_until_the_next_photograph(
    page: Chrome, files: list[tuple[str, bytes]], message: str
) -> None:
    _drop(page, TALL)
    wait_for(page, "#result")
    transfer_files(page, "#drop", "drop", *files)
    wait_for(page, "#error")
    assert message in page.find_element(By.ID, "error").text
    assert not page.find_element(By.ID, "result").is_displayed()
    assert not page.find_element(By.ID, "status").text
    _drop(page, TALL)
    wait_for(page, "#result")
    assert not page.find_element(By.ID, "error").is_displayed()


def test_the_later_of_two_photographs_is_shown(page: Chrome) -> None:
    _drop(page, WIDE)
    _drop(page, TALL)
    wait_for(page, "#result")
    assert len(page.find_elements(By.CSS_SELECTOR, ".face")) == 1


def test_a_response_that_comes_too_late_is_not_shown(page: Chrome) -> None:
    page.execute_script("photograph.decode = () => new Promise((resolve) => { window.finish = resolve; });")
    _drop(page, WIDE)
    WebDriverWait(page, 30).until(lambda driver: driver.execute_script("return Boolean(window.finish)"))
    page.execute_script("delete photograph.decode")
    _drop(page, TALL)
    page.execute_script("finish()")
    wait_for(page, "#result")
    assert len(page.find_elements(By.CSS_SELECTOR, ".face")) == 1
    assert len(page.find_elements(By.CSS_SELECTOR, ".box")) == 1


def test_the_page_fits_a_phone(page: Chrome, tmp_path: Path) -> None:
    with emulate_phone(page, PHONE_WIDTH_PX):
        page.refresh()
        _upload(page, tmp_path, WIDE)
        wait_for(page, "#result")
        assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE_WIDTH_PX
        photograph, faces = (page.find_element(By.ID, name).rect for name in ("photograph", "faces"))
        assert faces["y"] > photograph["y"], "the faces are listed below the photograph"


def test_the_warning_of_an_untrained_backbone_is_shown(page: Chrome) -> None:
    assert page.find_element(By.CSS_SELECTOR, ".warning").text == UNTRAINED_WARNING
    assert page.title.startswith("UNTRAINED")


def test_a_face_below_the_threshold_is_unknown(predictor: Predictor, browser: Chrome) -> None:
    strict = copy(predictor)
    strict.card = replace(predictor.card, calibration=replace(predictor.card.calibration, threshold=1e6))
    with start_server(strict) as address:
        browser.get(address)
        _drop(browser, TALL)
        wait_for(browser, "#result")
        assert _texts(browser, ".face h2") == ["Unknown"]
        assert "none of these people" in browser.find_element(By.CSS_SELECTOR, ".verdict").text


def test_a_token_is_required(page_predictor: Predictor, browser: Chrome) -> None:
    with start_server(page_predictor, access=make_access("127.0.0.1", "secret")) as address:
        browser.get(address)
        _drop(browser, TALL)
        wait_for(browser, "#error")
        assert "token" in browser.find_element(By.ID, "error").text
        browser.find_element(By.ID, "token").send_keys("s\u00e9cret")
        _drop(browser, TALL)
        wait_for(browser, "#error")
        assert "token" in browser.find_element(By.ID, "error").text
        browser.find_element(By.ID, "token").clear()
        browser.find_element(By.ID, "token").send_keys("secret")
        _drop(browser, TALL)
        wait_for(browser, "#result")


def test_a_response_of_a_proxy_is_not_taken_for_the_server_s(page: Chrome) -> None:
    proxy = 'async () => new Response("<h1>Too large</h1>", {status: 413, headers: {"Content-Type": "text/html"}})'
    page.execute_script(f"window.fetch = {proxy}")
    _drop(page, TALL)
    wait_for(page, "#error")
    assert "413" in page.find_element(By.ID, "error").text
    assert not page.find_element(By.ID, "status").text


@pytest.mark.parametrize("path", ["/faces", "/"])
def test_the_page_works_below_the_path_of_a_proxy(page_predictor: Predictor, browser: Chrome, path: str) -> None:
    with start_server(page_predictor, root_path="/faces") as address:
        browser.get(f"{address}{path}")  # "/" is what arrives if the proxy removes its path
        take_requests(browser)
        _drop(browser, TALL)
        wait_for(browser, "#result")
        browser.find_element(By.LINK_TEXT, "For programs").click()
        wait_for(browser, ".opblock")
        requested = [each for each in take_requests(browser) if not each.startswith("blob:")]
        assert all(each.startswith(f"{address}/faces/") for each in requested), requested
        assert len(requested) > 3


def test_a_server_that_does_not_respond_is_an_error(page_predictor: Predictor, browser: Chrome) -> None:
    with start_server(page_predictor, replace(LIMITS, seconds=1.0)) as address:
        browser.get(address)
    _drop(browser, TALL)
    wait_for(browser, "#error")
    assert "does not respond" in browser.find_element(By.ID, "error").text
