"""What tests of the server's pages share."""

import base64

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

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
