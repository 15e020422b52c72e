"""What tests of the server's pages share."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import has_alert, take_console, take_requests

# Hands over files as a drop or a paste does: the event with the files that it transfers.
_TRANSFER = """
const [selector, kind, files] = arguments;
const transfer = new DataTransfer();
for (const [name, content] of files) {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
}
const event = kind === "paste"
  ? new ClipboardEvent(kind, { clipboardData: transfer, bubbles: true, cancelable: true })
  : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
document.querySelector(selector).dispatchEvent(event);
"""


@contextmanager
def open_page(browser: Chrome, address: str, path: str) -> Iterator[None]:
    """Open a server's page; afterwards, check that it loaded nothing from elsewhere, and that no script of a name ran.

    `path` is where the page sends photographs: the browser logs a request that is refused.
    """
    take_console(browser)
    take_requests(browser)
    browser.get(address)
    yield
    assert [each for each in take_requests(browser) if not each.startswith((address, "blob:"))] == []
    assert not [line for line in take_console(browser) if path not in line]
    assert not has_alert(browser)


def wait_for(page: Chrome, selector: str) -> None:
    """Wait until an element is shown."""

    def is_shown(driver: Chrome) -> bool:
        return any(element.is_displayed() for element in driver.find_elements(By.CSS_SELECTOR, selector))

    WebDriverWait(page, 30).until(is_shown)


def transfer_files(page: Chrome, selector: str, kind: str, *files: tuple[str, bytes]) -> None:
    """Drop or paste files on an element."""
    page.execute_script(
        _TRANSFER, selector, kind, [(name, base64.b64encode(content).decode()) for name, content in files]
    )
