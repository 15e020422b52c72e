"""Results and their pages in a browser that tests of pages share."""

from functools import cache
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from celebflow.report.page import PageContent
from tests.browser import take_console, take_requests
from tests.report.pages import MakeContent, Show, make_page_content


@pytest.fixture(scope="session")
def make_content(tmp_path_factory: pytest.TempPathFactory) -> MakeContent:
    """Return a function that makes the content of a page for people with these names, once for all tests."""

    @cache
    def make(names: tuple[str, ...]) -> PageContent:
        return make_page_content(tmp_path_factory.mktemp("result"), names)

    return make


@pytest.fixture
def show(browser: Chrome, tmp_path: Path) -> Show:
    """Return a function that opens a page in the browser."""

    def open_page(html: str) -> Chrome:
        file = tmp_path / "index.html"
        file.write_text(html, encoding="utf-8")
        take_console(browser)
        take_requests(browser)
        browser.get(file.as_uri())
        return browser

    return open_page
