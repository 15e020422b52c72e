"""The plots of DVC are drawn without a network, and a training without epochs has no empty curve."""

import json
import re
from pathlib import Path

import pytest
from dvc_render.vega import VegaRenderer
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from tests import REPOSITORY
from tests.browser import take_requests
from tests.repository import Repository

pytestmark = pytest.mark.slow

# How many pixels of each plot are drawn.
COUNT_DRAWN = """
return [...document.querySelectorAll(".vega-embed canvas")].filter((canvas) => canvas.width).map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, index) => index % 4 === 3 && value > 0).length;
});
"""
# The texts of a plot.
DRAW_AS_TEXT = """
const [spec, done] = arguments;
document.body.append(Object.assign(document.createElement("div"), { id: "drawn" }));
vegaEmbed("#drawn", spec, { renderer: "svg" }).then(() => done(document.querySelector("#drawn").textContent));
"""


def _open(driver: Chrome, page: Path) -> None:
    """Open a page without a network, and check that it does not ask for one."""
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    take_requests(driver)
    driver.get(page.as_uri())
    assert all(address.startswith("file:") for address in take_requests(driver))


def test_plots_are_drawn_without_a_network(template: Repository, browser: Chrome, tmp_path: Path) -> None:
    for command in (["show"], ["diff", "HEAD~1", "HEAD"]):
        out = tmp_path / command[0]
        template.run("dvc", "plots", *command, "--out", str(out))
        _open(browser, out / "index.html")

        def is_drawn(driver: Chrome) -> bool:
            drawn = driver.execute_script(COUNT_DRAWN)
            return len(drawn) == 7 and min(drawn) > 1000

        WebDriverWait(browser, 60).until(is_drawn)
        broken = "return [...document.images].filter(image => !(image.complete && image.naturalWidth)).length"
        assert browser.execute_script(broken) == 0


def test_page_of_plots_has_the_scripts_that_dvc_asks_for(browser: Chrome, tmp_path: Path) -> None:
    (tmp_path / "plots.html").write_bytes((REPOSITORY / ".dvc" / "plots.html").read_bytes())
    _open(browser, tmp_path / "plots.html")
    versions = browser.execute_script("return [vega.version, vegaLite.version, vegaEmbed.version]")
    asked = re.findall(r"npm/([\w-]+)@(\d+)\.", VegaRenderer.SCRIPTS)
    assert asked == list(
        zip(["vega", "vega-lite", "vega-embed"], [each.split(".")[0] for each in versions], strict=True)
    )


def test_a_training_without_epochs_is_a_line_across(repository: Repository, browser: Chrome, tmp_path: Path) -> None:
    history = repository.folder / "reports" / "history.csv"
    header, *epochs = history.read_text(encoding="utf-8").splitlines()
    assert len(epochs) == 3
    history.unlink()  # it may be a link into DVC's cache
    history.write_text(f"{header}\n1,0.125,0.875,0.25,0.625\n", encoding="utf-8")
    _open(browser, REPOSITORY / ".dvc" / "plots.html")
    for plot, values in (("accuracy", ["0.875", "0.625"]), ("loss", ["0.125", "0.250"])):
        spec = json.loads(repository.run("dvc", "plots", "show", "--show-vega", plot))
        text = browser.execute_async_script(DRAW_AS_TEXT, spec)
        for split, value in zip(["train", "val"], values, strict=True):
            assert f"{split}_{plot} {value}" in text
        browser.execute_script("document.querySelector('#drawn').remove()")
