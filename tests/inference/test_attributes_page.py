"""In a real browser, the page of a model of attributes shows a bar for each, with its threshold and answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from celebflow.backbone.vgg19 import Backbone
from celebflow.features import transform as transform_module
from celebflow.features.faces import Face
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference.attribute_predictor import AttributePredictor
from tests.browser import emulate_phone
from tests.inference.pages import SIDEWAYS, check_box, draw_sideways, open_page, transfer_files, wait_for
from tests.inference.serving import start_server
from tests.models import draw_noise, make_face, save_attribute_model

pytestmark = pytest.mark.slow

HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>")
NAMES = (*HOSTILE, "Wearing_a_Very_Long_Necktie_With_Stripes", *(f"Attribute_{number}" for number in range(37)))
WIDE = ("wide.png", draw_noise())  # has two faces, see page_address
TALL = ("tall.png", draw_noise(size=(40, 60)))  # has one
SQUARE = ("square.png", draw_noise(size=(40, 40)))  # has none


@pytest.fixture(scope="module")
def page_address(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path) -> Iterator[str]:
    """Serve a model of 40 attributes that finds faces by a photograph's shape; yield the server's address."""

    def detect_faces(photograph: Image.Image) -> list[Face]:
        count = {(60, 40): 2, (40, 60): 1}.get(photograph.size, 0)
        return [make_face(30, 5, 50, 25), make_face(-2, 3, 14, 16)][:count]

    transform = Transform(32, WHOLE.model_copy(update={"crop": "detect"}))
    folder = save_attribute_model(tmp_path_factory.mktemp("model"), backbone, backbone_file, transform, NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform_module, "detect_faces", detect_faces)
        with start_server(AttributePredictor.load(folder)) as address:
            yield address


@pytest.fixture
def page(page_address: str, browser: Chrome) -> Iterator[Chrome]:
    """Open the page, and check what it did afterwards."""
    with open_page(browser, page_address, "/attributes"):
        yield browser


def _find(page: Chrome, selector: str) -> list[str]:
    return [element.text for element in page.find_elements(By.CSS_SELECTOR, selector)]


def test_every_attribute_has_a_bar_its_threshold_and_its_answer_sorted_by_probability(page: Chrome) -> None:
    transfer_files(page, "h1", "drop", TALL)
    wait_for(page, "#result")
    names = _find(page, ".candidates th")
    assert sorted(names) == sorted(name.replace("_", " ") for name in NAMES)
    for table in (".found", ".others"):
        percents = [float(text.split()[0]) for text in _find(page, f"{table} td:nth-child(3)")]
        assert percents == sorted(percents, reverse=True) and percents
    answers = _find(page, ".candidates td:last-child")
    assert set(answers) == {"yes", "no", "yes ?", "no ?"}
    for row in page.find_elements(By.CSS_SELECTOR, ".candidates tr"):
        bar = row.find_element(By.CSS_SELECTOR, ".bar").rect
        filled = row.find_element(By.CSS_SELECTOR, ".bar > div").rect
        mark = row.find_element(By.CSS_SELECTOR, ".threshold").rect
        percent = float(row.find_elements(By.TAG_NAME, "td")[1].text.split()[0])
        assert filled["width"] / bar["width"] == pytest.approx(percent / 100, abs=0.03)
        is_beyond = filled["width"] >= mark["x"] + 1 - bar["x"] - 0.5
        assert is_beyond == row.find_elements(By.TAG_NAME, "td")[2].text.startswith("yes")
    sure = page.execute_script(
        "return [...document.querySelectorAll('.candidates tr.yes th')].map((head) => head.textContent)"
    )
    assert page.find_element(By.CSS_SELECTOR, ".face h2").text == ", ".join(sure)


def test_each_face_has_its_answers_and_a_box(page: Chrome) -> None:
    transfer_files(page, "h1", "drop", WIDE)
    wait_for(page, "#result")
    headings = _find(page, ".face h2")
    assert [heading[:3] for heading in headings] == ["1. ", "2. "]
    assert len(page.find_elements(By.CSS_SELECTOR, ".box")) == 2
    assert page.find_element(By.ID, "status").text.startswith("2 faces: ")
    assert not page.find_element(By.CSS_SELECTOR, ".others").is_displayed(), "folded, or each face would take a screen"
    page.find_element(By.CSS_SELECTOR, ".face summary").click()
    wait_for(page, ".others")


@pytest.mark.parametrize("kind", SIDEWAYS)
def test_the_photograph_is_shown_upright_where_the_browser_would_not(page: Chrome, kind: str) -> None:
    transfer_files(page, "h1", "drop", ("sideways", draw_sideways(kind, (60, 40), (30, 5, 50, 25))))
    wait_for(page, "#result")
    check_box(page, "#photograph", ".box", (60, 40))


def test_without_a_face_nothing_is_predicted_until_one_asks(page: Chrome) -> None:
    transfer_files(page, "h1", "drop", SQUARE)
    wait_for(page, "#no-face")
    assert "nothing is predicted" in page.find_element(By.ID, "no-face").text
    page.find_element(By.ID, "whole").click()
    wait_for(page, ".face")
    assert len(page.find_elements(By.CSS_SELECTOR, ".candidates tr")) == len(NAMES)


@pytest.mark.parametrize("width_px", [1200, 400])
def test_forty_attributes_fit_a_desktop_and_a_phone(page: Chrome, width_px: int) -> None:
    with emulate_phone(page, width_px):
        page.refresh()
        transfer_files(page, "h1", "drop", TALL)
        wait_for(page, "#result")
        assert page.execute_script("return document.documentElement.scrollWidth") <= width_px
        for cell in page.find_elements(By.CSS_SELECTOR, ".candidates th, .candidates td"):
            assert page.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth + 1", cell)
