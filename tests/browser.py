"""A real Chromium for tests of pages: Debian's, so that nothing is downloaded to drive it."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_PROGRAM_OF_PACKAGE = {"chromium": "chromium", "chromium-driver": "chromedriver"}


def require_browser(environment: Mapping[str, str]) -> None:
    """Skip the test where Chromium is missing, but let it fail in CI, where a skip would go unseen."""
    missing = [package for package, program in _PROGRAM_OF_PACKAGE.items() if shutil.which(program) is None]
    if missing:
        outcome = pytest.fail if environment.get("CI") else pytest.skip
        outcome(f"{' and '.join(missing)} missing: sudo apt-get install chromium chromium-driver")


@contextmanager
def start_browser(profile: Path) -> Iterator[Chrome]:
    """Start a headless Chromium whose profile is the new folder `profile`."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (
        "--headless",
        "--no-sandbox",  # which root, as in a container, cannot use
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP *.example 127.0.0.1",
        "--use-fake-device-for-media-stream",  # a camera that shows a moving test picture
        "--use-fake-ui-for-media-stream",  # and that needs no permission
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    options.accept_insecure_certs = True  # of a test's own server
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Hostile names must not open an alert. If one does, it stays open for the test to find.
    options.set_capability("unhandledPromptBehavior", "ignore")
    # With the driver's path given, Selenium does not look for one online.
    driver = Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def take_console(driver: Chrome) -> list[str]:
    """Return the console messages since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]  # type: ignore[no-untyped-call]


def take_requests(driver: Chrome) -> set[str]:
    """Return the addresses that pages requested since the last call, without data URIs and the browser's own pages."""
    addresses = set()
    for entry in driver.get_log("performance"):  # type: ignore[no-untyped-call]
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            addresses.add(event["params"]["request"]["url"])
    return {address for address in addresses if not address.startswith(("data:", "chrome:"))}


def has_alert(driver: Chrome) -> bool:
    """Return whether a script has opened an alert."""
    try:
        return bool(driver.switch_to.alert)
    except NoAlertPresentException:
        return False


@contextmanager
def emulate_phone(driver: Chrome, width_px: int) -> Iterator[None]:
    """Make the page as narrow as a phone; a headless window has a larger minimum width."""
    size = {"width": width_px, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@contextmanager
def emulate_media(driver: Chrome, media: str = "", features: Mapping[str, str] | None = None) -> Iterator[None]:
    """Show the page as in print, for example, or with features such as prefers-color-scheme."""
    pairs = [{"name": name, "value": value} for name, value in (features or {}).items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": pairs})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
