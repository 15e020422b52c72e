"""In a real browser, the page of a verifier takes two photographs in every way, and shows the answer or the reason."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.backbone.source import UNTRAINED_WARNING
from celebflow.classifier.pair_calibration import format_probability
from celebflow.features import transform as transform_module
from celebflow.features.faces import Face
from celebflow.inference.access import make_access
from celebflow.inference.pair_verifier import PairVerifier
from tests.browser import emulate_phone
from tests.inference.pages import SIDEWAYS, check_box, draw_sideways, open_page, transfer_files, wait_for
from tests.inference.serving import start_server
from tests.models import draw_noise, make_face

pytestmark = pytest.mark.slow

PHONE_WIDTH_PX = 390
WIDE = ("wide.png", draw_noise())  # has a face, see page_address
OTHER = ("other.png", draw_noise(1))
TALL = ("tall.png", draw_noise(size=(40, 60)))  # has none
FIRST, SECOND = ".slot[data-name=first]", ".slot[data-name=second]"


@pytest.fixture(scope="module")
def page_address(pair_verifier: PairVerifier) -> Iterator[str]:
    """Serve a verifier that finds a face in wide photographs; yield the server's address."""

    def detect_faces(photograph: Image.Image) -> list[Face]:
        return [make_face(-2, 5, 20, 25)] if photograph.width > photograph.height else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform_module, "detect_faces", detect_faces)
        with start_server(pair_verifier) as address:
            yield address


@pytest.fixture
def page(page_address: str, browser: Chrome) -> Iterator[Chrome]:
    """Open the page, and check what it did afterwards."""
    with open_page(browser, page_address, "/verify"):
        yield browser


def _text(page: Chrome, name: str) -> str:
    return page.find_element(By.ID, name).text


def test_two_photographs_dropped_on_their_places_are_compared_and_boxed(page: Chrome) -> None:
    transfer_files(page, SECOND, "drop", OTHER)
    assert "first photograph" in _text(page, "status")
    transfer_files(page, FIRST, "drop", WIDE)
    wait_for(page, "#result")
    percent = _text(page, "answer").removeprefix("The same person: ").removesuffix("%")
    assert 50 < float(percent) < 100
    assert f"{percent}%" in _text(page, "probability")
    assert "12.5% of the pairs of two people" in _text(page, "errors") and "25.0%" in _text(page, "errors")
    for selector in (FIRST, SECOND):
        photograph = page.find_element(By.CSS_SELECTOR, f"{selector} img").rect
        box = page.find_element(By.CSS_SELECTOR, f"{selector} .box").rect
        scale = photograph["width"] / 60
        found = (box["x"] - photograph["x"], box["y"] - photograph["y"], box["width"], box["height"])
        assert found == pytest.approx([0, scale * 5, scale * 20, scale * 20], abs=1.5), "cut off at the edge"


@pytest.mark.parametrize("kind", SIDEWAYS)
def test_photographs_are_shown_upright_where_the_browser_would_not(page: Chrome, kind: str) -> None:
    sideways = ("sideways", draw_sideways(kind, (60, 40), (0, 5, 20, 25)))
    transfer_files(page, "h1", "drop", sideways, sideways)
    wait_for(page, "#result")
    for selector in (FIRST, SECOND):
        check_box(page, f"{selector} img", f"{selector} .box", (60, 40))


def test_two_photographs_at_once_and_one_after_the_other_fill_both_places(page: Chrome) -> None:
    transfer_files(page, "h1", "drop", WIDE, OTHER)
    wait_for(page, "#result")
    together = _text(page, "answer")
    page.refresh()
    for file in (WIDE, OTHER):
        transfer_files(page, "body", "paste", file)
    wait_for(page, "#result")
    assert _text(page, "answer") == together


def test_files_are_chosen_and_a_photograph_is_taken(page: Chrome, tmp_path: Path) -> None:
    (tmp_path / "wide.png").write_bytes(WIDE[1])
    page.execute_script("document.querySelector('#file').click = () => {}")  # a dialog of the system
    page.find_element(By.CSS_SELECTOR, f"{SECOND} .choose").click()
    page.find_element(By.ID, "file").send_keys(str(tmp_path / "wide.png"))
    wait_for(page, f"{SECOND} img")
    page.find_element(By.CSS_SELECTOR, f"{FIRST} .open-camera").click()
    wait_for(page, "video")
    WebDriverWait(page, 30).until(lambda driver: driver.find_element(By.ID, "capture").is_enabled())
    page.find_element(By.ID, "capture").click()
    wait_for(page, "#result")
    assert page.find_element(By.CSS_SELECTOR, f"{FIRST} img").is_displayed()


def test_without_a_face_nothing_is_compared_until_one_asks(page: Chrome) -> None:
    transfer_files(page, "h1", "drop", WIDE, TALL)
    wait_for(page, "#no-face")
    assert _text(page, "answer") == "No face found in the second photograph"
    assert not page.find_element(By.ID, "errors").is_displayed()
    assert len(page.find_elements(By.CSS_SELECTOR, ".box")) == 1
    page.find_element(By.ID, "whole").click()
    wait_for(page, "#errors")
    assert not page.find_element(By.ID, "no-face").is_displayed()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([WIDE, ("notes.txt", b"nothing of the kind")], "second file"),
        ([WIDE, ("huge.png", bytes(1_500_000))], "huge.png has 1.5 MB; the limit is 1 MB."),
        ([WIDE, OTHER, TALL], "two photographs at most"),
        ([], "no file"),
    ],
)
def test_an_error_is_shown_until_the_next_photograph(
    page: Chrome, files: list[tuple[str, bytes]], message: str
) -> None:
    transfer_files(page, "h1", "drop", WIDE, OTHER)
    wait_for(page, "#result")
    transfer_files(page, "h1", "drop", *files)
    wait_for(page, "#error")
    assert message in _text(page, "error")
    assert not page.find_element(By.ID, "result").is_displayed()
    transfer_files(page, SECOND, "drop", OTHER)
    wait_for(page, "#result")
    assert not page.find_element(By.ID, "error").is_displayed()


def test_probabilities_are_written_as_the_command_line_writes_them(page: Chrome) -> None:
    values = [-30.0, -12.0, -9.0, -2.0, -0.1, 0.0, 2.0, 7.0, 9.0, 12.56, 14.0, 30.0]
    assert [page.execute_script(f"return formatProbability({value})") for value in values] == [
        format_probability(value) for value in values
    ]


def test_two_people_are_called_so_with_the_probability_of_that(page: Chrome) -> None:
    page.execute_script(
        "showComparison({answer: 'different', probability: 0.000123, log_odds: -9, false_match_rate: 0.01, "
        "false_non_match_rate: 0.02, first: {compared: 'whole photograph'}, second: {compared: 'whole photograph'}})"
    )
    assert _text(page, "answer") == "Two different people: 99.99%"
    assert "0.01%" in _text(page, "probability")


def test_the_page_fits_a_phone_and_warns(page: Chrome) -> None:
    with emulate_phone(page, PHONE_WIDTH_PX):
        page.refresh()
        transfer_files(page, "h1", "drop", WIDE, OTHER)
        wait_for(page, "#result")
        assert page.execute_script("return document.documentElement.scrollWidth") <= PHONE_WIDTH_PX
    assert page.find_element(By.CSS_SELECTOR, ".warning").text == UNTRAINED_WARNING
    assert page.title.startswith("UNTRAINED")


def test_a_token_is_required(pair_verifier: PairVerifier, browser: Chrome) -> None:
    with start_server(pair_verifier, access=make_access("127.0.0.1", "secret")) as address:
        browser.get(address)
        transfer_files(browser, "h1", "drop", TALL, TALL)
        wait_for(browser, "#error")
        assert "token" in _text(browser, "error")
        browser.find_element(By.ID, "token").send_keys("secret")
        transfer_files(browser, "h1", "drop", TALL, TALL)
        wait_for(browser, "#result")
