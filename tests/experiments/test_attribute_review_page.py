"""Suspect labels of attributes are reviewed on a page, by keyboard or mouse, and by nobody else."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.experiments.attribute_review import AttributeReview, open_attribute_review
from tests.browser import emulate_phone, has_alert, take_console, take_requests
from tests.experiments.attribute_reviewing import make_attribute_project, read_labels
from tests.experiments.reviewing import Client, find_row, serve_review
from tests.inference.serving import read_refusal

WIDTH_PX = 360
HOSTILE = ("<script>alert(1)<", "'><img src=x onerror=alert(1)>", "Björn_" + "x" * 60, "إياد")


@pytest.fixture
def review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AttributeReview]:
    """Open the review of a project in the working directory."""
    monkeypatch.chdir(tmp_path)
    make_attribute_project(tmp_path)
    with open_attribute_review() as review:
        yield review


@pytest.fixture
def client(review: AttributeReview) -> Iterator[Client]:
    """Serve its page."""
    with serve_review(review) as client:
        yield client


def test_a_page_decides_applies_and_undoes(client: Client, tmp_path: Path) -> None:
    before = read_labels(tmp_path)
    state = client.get("state").json()
    assert len(state["items"]) == 6 and state["commands"] == [] and state["left_out"] == 0
    described = {
        "attribute": "=Beard",
        "given": "no",
        "likelier": "yes",
        "of_likelier": 0.96,
        "action": "",
        "done": False,
    }
    assert described.items() <= find_row(state, 1).items()
    assert find_row(client.post("decisions", {"row": 1, "action": "flip"}).json(), 1)["action"] == "flip"
    client.post("decisions", {"row": 2, "action": "blank"})
    content = client.post("apply", {"rows": [1]}).json()
    assert find_row(content, 1)["done"] and content["commands"][0] == "dvc add data" and content["problems"] == []
    assert read_labels(tmp_path) == [["1", "1"], *before[1:]], "what the page did not list is not applied"
    assert find_row(client.post("undo", {}).json(), 2)["action"] == ""
    assert not find_row(client.post("undo", {"row": 1}).json(), 1)["done"]
    assert read_labels(tmp_path) == before


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("decisions", {"row": 99, "action": "keep"}, 409),
        ("decisions", {"row": 0, "action": "delete"}, 422),
        ("decisions", {"row": "faces/0.png", "action": "keep"}, 422),
        ("undo", {"row": 0}, 409),
        ("apply", {"rows": [0, 99]}, 409),
        ("apply", {"rows": ["faces/0.png"]}, 422),
    ],
)
def test_what_cannot_be_done_is_refused(client: Client, tmp_path: Path, path: str, body: Any, status: int) -> None:
    before = read_labels(tmp_path)
    assert client.post(path, body).status_code == status
    assert read_labels(tmp_path) == before


def test_nobody_else_can_ask_or_change_anything(client: Client, review: AttributeReview) -> None:
    for path in ("", "state", "pictures/0/photograph", "decisions"):
        assert requests.get(f"{client.origin}/x/{path}", timeout=60).status_code == 401
    for path in ("decisions", "undo", "apply"):
        body = {"row": 0, "action": "flip"}
        assert read_refusal(client.post(path, body, "http://evil.example")) == (403, "wrong_origin")
        assert read_refusal(client.post(path, body, Host="evil.example")) == (421, "wrong_host")
    assert review.items[0].change is None


def test_pictures_are_those_of_the_suspect_and_of_what_it_resembles(client: Client) -> None:
    for kind, size in (("photograph", (40, 30)), ("small", (160, 160)), ("of_given", (160, 160))):
        response = client.get(f"pictures/3/{kind}")
        assert Image.open(io.BytesIO(response.content)).size == size
    assert read_refusal(client.get("pictures/3/of_likelier")) == (404, "not_found"), "there is none"


@contextmanager
def _open(browser: Chrome, client: Client) -> Iterator[None]:
    """Open the page; afterwards, check that it asked nobody else for anything, and that no name was markup."""
    take_console(browser)
    take_requests(browser)
    browser.get(client.address)
    _wait_for_text(browser, "#count", "decided")
    yield
    assert [each for each in take_requests(browser) if not each.startswith(client.address)] == []
    assert take_console(browser) == [] and not has_alert(browser)


def _text(browser: Chrome, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def _wait_for_text(browser: Chrome, selector: str, text: str) -> None:
    WebDriverWait(browser, 30, 0.05).until(lambda driver: text in _text(driver, selector))


@pytest.mark.slow
@pytest.mark.parametrize("on_phone", [False, True], ids=["desktop", "phone"])
def test_labels_are_reviewed_by_keyboard_alone(
    browser: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_phone: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    suspects = make_attribute_project(tmp_path, 5, HOSTILE)
    before = read_labels(tmp_path)
    phone = emulate_phone(browser, WIDTH_PX) if on_phone else nullcontext()
    with phone, open_attribute_review() as review, serve_review(review) as client, _open(browser, client):
        for number, suspect in enumerate(suspects):
            _wait_for_text(browser, "#path", f"{number + 1} of 20: {suspect.path}")
            assert suspect.attribute.replace("_", " ") in _text(browser, "#question")
            assert suspect.given in _text(browser, "#given") and suspect.likelier in _text(browser, "#flip")
            if on_phone:
                widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
                assert widths == [WIDTH_PX, WIDTH_PX]
            ActionChains(browser).send_keys("kfbs"[number % 4]).perform()
            _wait_for_text(browser, "#count", f"{number + 1} of 20 decided")
        assert browser.find_element(By.ID, "changes").is_displayed(), "after the last one"
        assert read_labels(tmp_path) == before
        assert "To do (10)" in _text(browser, "#waiting") and "Kept as right (5)" in _text(browser, "#kept")
        ActionChains(browser).send_keys("a").perform()
        _wait_for_text(browser, "#status", "Flipped 5, left blank 5.")
        assert f"{HOSTILE[1]}: no → yes" in _text(browser, "#done")
        assert _text(browser, "#commands pre").splitlines()[0] == "dvc add data"
        ActionChains(browser).send_keys("u").perform()
        _wait_for_text(browser, "#status", "Undone: ")
        ActionChains(browser).send_keys("u").perform()
        _wait_for_text(browser, "#count", "18 of 20 decided")
    flipped = {"0": "1", "1": "0"}
    expected = [[row[0], flipped[row[1]], "", row[3]] for row in before]
    expected[4][2] = before[4][2]
    assert read_labels(tmp_path) == expected


@pytest.mark.slow
def test_a_mouse_does_the_same(browser: Chrome, review: AttributeReview, client: Client, tmp_path: Path) -> None:
    with _open(browser, client):
        for number, action in enumerate(("flip", "blank", "keep", "skip")):
            browser.find_element(By.ID, action).click()
            _wait_for_text(browser, "#count", f"{number + 1} of 6 decided")
        browser.find_element(By.ID, "show-changes").click()
        browser.find_element(By.CSS_SELECTOR, "#waiting li:nth-of-type(2) .undo").click()
        _wait_for_text(browser, "#count", "3 of 6 decided")
        browser.find_element(By.ID, "apply").click()
        _wait_for_text(browser, "#status", "Flipped 1, left blank 0.")
        browser.find_element(By.CSS_SELECTOR, "#done .pick").click()
        _wait_for_text(browser, "#decision", "Flipped to no.")
        assert not browser.find_element(By.ID, "keep").is_enabled()
    assert read_labels(tmp_path)[0] == ["0", "0"] and review.items[0].is_done
