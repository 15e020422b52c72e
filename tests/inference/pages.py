"""What tests of the server's pages share."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import ExifTags, Image
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

# Returns the size of the picture that an element shows, and where in it the red part is, in fractions.
_FIND_RED = """
const [image] = arguments;
const { naturalWidth: width, naturalHeight: height } = image;
if (!width) return [0, 0, null];
const canvas = Object.assign(document.createElement("canvas"), { width, height });
const context = canvas.getContext("2d");
context.drawImage(image, 0, 0);
const { data } = context.getImageData(0, 0, width, height);
const columns = [], rows = [];
for (let pixel = 0; pixel < width * height; pixel++) {
  if (data[4 * pixel] < 128 || data[4 * pixel + 1] > 128) continue;
  columns.push(pixel % width);
  rows.push(Math.floor(pixel / width));
}
const [left, top] = [Math.min(...columns) / width, Math.min(...rows) / height];
const [right, bottom] = [(Math.max(...columns) + 1) / width, (Math.max(...rows) + 1) / height];
return [width, height, [left, top, right, bottom]];
"""

# Photographs that are stored sideways, or that the browser cannot show; see draw_sideways.
SIDEWAYS = ["WEBP", "JPEG", "TIFF"]


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


def draw_sideways(kind: str, size: tuple[int, int], face: tuple[int, int, int, int]) -> bytes:
    """Return a file of a photograph that is red where its face is, and that browsers do not show upright.

    It is stored sideways: the Exif of WebP says so, and the XMP of JPEG. Chromium reads neither, and no TIFF at all.
    """
    photograph = Image.new("RGB", size, "white")
    photograph.paste("red", face)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    told = {"xmp": b'<rdf:Description tiff:Orientation="6"/>'} if kind == "JPEG" else {"exif": exif.tobytes()}
    content = io.BytesIO()
    photograph.transpose(Image.Transpose.ROTATE_90).save(content, kind, **told)
    return content.getvalue()


def check_box(page: Chrome, photograph: str, box: str, size: tuple[int, int]) -> None:
    """Check that an element shows the upright photograph that draw_sideways drew, and a box the face in it."""
    image = page.find_element(By.CSS_SELECTOR, photograph)
    width, height, red = page.execute_script(_FIND_RED, image)
    assert (width, height) == size
    inner, outer = page.find_element(By.CSS_SELECTOR, box).rect, image.rect
    assert outer["width"] / outer["height"] == pytest.approx(size[0] / size[1], abs=0.02)
    left, top = (inner["x"] - outer["x"]) / outer["width"], (inner["y"] - outer["y"]) / outer["height"]
    right, bottom = left + inner["width"] / outer["width"], top + inner["height"] / outer["height"]
    assert (left, top, right, bottom) == pytest.approx(red, abs=0.03)
