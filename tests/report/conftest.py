"""Results, photographs and pages in a browser that tests of pages share."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome

from celebflow.features.store import Features
from celebflow.report.page import PageContent
from tests.browser import take_console, take_requests
from tests.conftest import draw_features
from tests.images import hash_photos
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


@pytest.fixture
def features(folder: Path) -> Features:
    """Return features of the photographs in the folder."""
    drawn = draw_features(9)
    return replace(drawn, photos=hash_photos(drawn.photos, folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the photographs 0.jpg to 8.jpg, each gray as its number says."""
    for number in range(9):
        Image.fromarray(np.full((40, 40, 3), 25 * number, np.uint8)).save(tmp_path / f"{number}.jpg")
    return tmp_path
