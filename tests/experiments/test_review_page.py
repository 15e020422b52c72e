"""In a real browser, somebody reviews a hundred suspects by keyboard alone, on a desktop and at a phone's width."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import uvicorn
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.experiments.review import Review, open_review
from celebflow.experiments.review_server import HOST, make_app, make_page_access
from celebflow.inference import connections
from tests.browser import emulate_phone, has_alert, take_console, take_requests
from tests.experiments.reviewing import list_photographs, make_project

pytestmark = pytest.mark.slow

WIDTH_PX = 360
HOSTILE = ("<script>alert(1)<", '"><img src=x onerror=alert(1)>', "Björn " + "x" * 80, "إياد")


@contextmanager
def _serve(browser: Chrome, is_refused: bool = False) -> Iterator[Review]:
    """Open the page of a review of the working directory; afterwards, check that it asked nobody else for anything.

    The browser logs a request that is refused.
    """
    access = make_page_access()
    with open_review() as review, connections.listen(HOST, 0) as listening:
        running = uvicorn.Server(connections.configure(make_app(review, access), 5.0))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            address = f"{connections.describe_address(HOST, listening)}/{access.token}/"
            take_console(browser)
            take_requests(browser)
            browser.get(address)
            _wait_for_text(browser, "#count", "decided")
            yield review
            assert [each for each in take_requests(browser) if not each.startswith(address)] == []
            assert [line for line in take_console(browser) if not (is_refused and "409" in line)] == []
            assert not has_alert(browser)
        finally:
            running.should_exit = True
            thread.join()


def _press(browser: Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def _text(browser: Chrome, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def _wait_for_text(browser: Chrome, selector: str, text: str) -> None:
    WebDriverWait(browser, 30, 0.05).until(lambda driver: text in _text(driver, selector))


def _wait_for_picture(browser: Chrome, selector: str, width_px: int) -> None:
    script = "return document.querySelector(arguments[0]).naturalWidth"
    WebDriverWait(browser, 30, 0.05).until(lambda driver: driver.execute_script(script, selector) == width_px)


def _is_shown(browser: Chrome, selector: str) -> bool:
    return browser.find_element(By.CSS_SELECTOR, selector).is_displayed()


def _check_width(browser: Chrome) -> None:
    """Assert that nothing is wider than a phone."""
    widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths == [WIDTH_PX, WIDTH_PX]


@pytest.mark.parametrize("on_phone", [False, True], ids=["desktop", "phone"])
def test_a_hundred_suspects_are_reviewed_by_keyboard_alone(
    browser: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_phone: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    suspects = make_project(tmp_path, 25, ("Ann", "Bo_Ek", "Cy", "Di"))
    before = list_photographs(tmp_path)
    with emulate_phone(browser, WIDTH_PX) if on_phone else nullcontext(), _serve(browser):
        for number in range(100):
            _wait_for_text(browser, "#path", f"{number + 1} of 100: {suspects[number].path}")
            _wait_for_text(browser, "#count", f"{number} of 100 decided")
            if number % 5:
                _press(browser, "kmds"[number % 4])
            else:
                _press(browser, "o", "cy" if suspects[number].person == "Di" else "di", Keys.ENTER)
            if on_phone and number % 25 == 1:
                _check_width(browser)
        _wait_for_text(browser, "#count", "100 of 100 decided")
        assert _is_shown(browser, "#changes"), "after the last one, the list of what would change"
        assert list_photographs(tmp_path) == before
        for title in ("#waiting", "To do (60)"), ("#kept", "Kept as right (20)"), ("#skipped", "Skipped (20)"):
            assert title[1] in _text(browser, title[0])
        if on_phone:
            _check_width(browser)
        _press(browser, "a")
        _wait_for_text(browser, "#status", "Moved 40, deleted 20.")
        assert "Done (60)" in _text(browser, "#done")
        assert _text(browser, "#commands pre").splitlines()[0] == "dvc add data"
        _press(browser, "u")  # the last was skipped, the one before deleted
        _wait_for_text(browser, "#status", f"Undone: {suspects[99].path}")
        _press(browser, "u")
        _wait_for_text(browser, "#status", f"Undone: {suspects[98].path}")
        _wait_for_text(browser, "#count", "98 of 100 decided")
    after = list_photographs(tmp_path)
    assert Counter(after.values()) == Counter(before.values())
    for number, suspect in enumerate(suspects):
        place = {0: suspect.person, 1: suspect.likelier, 2: "deleted", 3: suspect.person}[number % 4]
        if number % 5 == 0:
            place = "Cy" if suspect.person == "Di" else "Di"
        if number >= 98:
            place = suspect.person
        assert [Path(path).parent.name for path, sha256 in after.items() if sha256 == suspect.sha256] == [place]


def test_names_are_no_markup_and_the_page_fits_a_phone(
    browser: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, 1, HOSTILE)
    with emulate_phone(browser, WIDTH_PX), _serve(browser):
        for number, name in enumerate(HOSTILE):
            assert name in _text(browser, "#given")
            assert HOSTILE[(number + 1) % len(HOSTILE)] in _text(browser, "#move")
            _check_width(browser)
            _press(browser, "m")
            _wait_for_text(browser, "#count", f"{number + 1} of 4 decided")
        assert _text(browser, "#waiting li:first-of-type .pick").startswith(f"{HOSTILE[0]}/0.png → {HOSTILE[1]}/0.png")
        _press(browser, "a")
        _wait_for_text(browser, "#status", "Moved 4")
        assert "(the name was taken)" in _text(browser, "#done")
        _check_width(browser)
        _press(browser, "?")
        assert _is_shown(browser, "#help")
        _check_width(browser)


def test_keys_do_only_what_they_say(browser: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suspects = make_project(tmp_path, 2)
    with _serve(browser, is_refused=True) as review:
        _press(browser, "?")
        _press(browser, "k", "d", "a")
        assert _is_shown(browser, "#help") and review.items[0].change is None
        _press(browser, Keys.ESCAPE)
        assert not _is_shown(browser, "#help")
        _press(browser, Keys.ARROW_LEFT)
        _wait_for_text(browser, "#path", "6 of 6")
        _press(browser, Keys.ARROW_RIGHT)
        _wait_for_text(browser, "#path", "1 of 6")
        # A key that does nothing comes before one that counts: had it done something, the other would come too late.
        ActionChains(browser).key_down(Keys.CONTROL).send_keys("k").key_up(Keys.CONTROL).perform()
        browser.execute_script("dispatchEvent(new KeyboardEvent('keydown', {key: 'k', repeat: true}))")
        _press(browser, "d")
        _wait_for_text(browser, "#count", "1 of 6 decided")
        assert review.items[0].waits, "neither a shortcut of the browser nor a key that is held has kept it"
        _press(browser, "a", "s")
        _wait_for_text(browser, "#count", "2 of 6 decided")
        assert not review.items[0].is_moved, "only where the changes are listed"
        _press(browser, "o", "nobody", Keys.ENTER)
        _wait_for_text(browser, "#error", "“nobody” is not the name of exactly one person")
        assert review.items[2].change is None
        _press(browser, Keys.ESCAPE, "u")
        for suspect in suspects[1::-1]:
            _wait_for_text(browser, "#status", f"Undone: {suspect.path}")
            _press(browser, "u")
        _wait_for_text(browser, "#error", "nothing to undo")


def test_a_mouse_does_the_same_and_a_loaded_page_continues(
    browser: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suspects = make_project(tmp_path, 1)
    with _serve(browser):
        _wait_for_picture(browser, "#photograph", 40)
        _wait_for_picture(browser, "#given img", 160)
        browser.find_element(By.ID, "move").click()
        _wait_for_text(browser, "#count", "1 of 3 decided")
        browser.find_element(By.ID, "delete").click()
        _wait_for_text(browser, "#count", "2 of 3 decided")
        browser.refresh()
        _wait_for_text(browser, "#path", "3 of 3")
        _wait_for_text(browser, "#count", "2 of 3 decided")
        browser.find_element(By.ID, "show-changes").click()
        browser.find_element(By.CSS_SELECTOR, "#waiting li:nth-of-type(2) .undo").click()
        _wait_for_text(browser, "#count", "1 of 3 decided")
        browser.find_element(By.ID, "apply").click()
        _wait_for_text(browser, "#status", "Moved 1, deleted 0.")
        browser.find_element(By.CSS_SELECTOR, "#done .pick").click()
        _wait_for_text(browser, "#decision", "Moved to Bo Ek.")
        assert not browser.find_element(By.ID, "keep").is_enabled()
    assert (tmp_path / "data" / "Bo_Ek" / "0-2.png").exists() and suspects[0].person == "Ann"
    browser.execute_script("document.querySelector('#next').click(); document.querySelector('#keep').click()")
    _wait_for_text(browser, "#error", "does not respond")
