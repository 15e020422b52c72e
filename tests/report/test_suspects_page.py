"""The page of suspects shows each beside the photographs that it resembles, whatever they are called."""

from pathlib import Path

import pytest
from PIL import Image

from celebflow.errors import CelebflowError
from celebflow.evaluation.suspects import Suspect
from celebflow.features.store import Features
from celebflow.report import suspects_page
from celebflow.report.suspects_page import render_suspects
from tests.browser import emulate_phone, has_alert, take_console, take_requests
from tests.report.pages import HOSTILE_NAMES, PHONE_WIDTH_PX, Show, click, fits_phone, list_texts


def _suspect(number: int, person: str = "Ann", likelier: str = "Bo Ek", **changes: str) -> Suspect:
    return Suspect(f"{number}.jpg", "val", "0" * 64, person, likelier, 0.04, 0.87, **changes)


@pytest.mark.slow
def test_a_suspect_is_beside_photographs_of_both_people(show: Show, features: Features, folder: Path) -> None:
    suspect = _suspect(4, nearest_of_person="0.jpg", nearest_of_likelier="1.jpg")
    driver = show(render_suspects([suspect, _suspect(5)], 9, features, folder))
    [header] = list_texts(driver, "header")
    assert "2 of 9 photographs may be in the wrong folder" in header
    first, _ = list_texts(driver, ".tile")
    assert "in the folder of Ann, 4.0%" in first and "looks like Bo Ek, 87.0%" in first
    pictures = [picture.get_attribute("alt") for picture in driver.find_elements("css selector", ".tile img")]
    assert pictures == ["", "Ann", "Bo Ek", ""]
    click(driver, ".tile")
    [enlarged] = list_texts(driver, ".stage")
    assert "4.jpg" in enlarged
    assert take_console(driver) == []
    assert take_requests(driver) == {driver.current_url}


@pytest.mark.slow
def test_names_are_no_markup_and_many_suspects_fit_a_phone(show: Show, features: Features, folder: Path) -> None:
    first, second, third = HOSTILE_NAMES
    suspects = [_suspect(number % 9, first + "x" * 80, second + third) for number in range(100)]
    driver = show(render_suspects(suspects, 900, features, folder))
    with emulate_phone(driver, PHONE_WIDTH_PX):
        assert fits_phone(driver)
    assert not has_alert(driver)
    assert len([text for text in list_texts(driver, ".tile") if text]) == 60
    click(driver, ".more")
    assert len([text for text in list_texts(driver, ".tile") if text]) == 100


def test_of_very_many_suspects_the_surest_are_shown(
    features: Features, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects_page, "_MAX_SUSPECTS", 2)
    html = render_suspects([_suspect(number) for number in range(5)], 9, features, folder)
    assert "5 of 9 photographs" in html and "The surest 2 are shown" in html
    assert "1.jpg" in html and "2.jpg" not in html
    html = render_suspects([], 9, features, folder)
    assert "0 of 9 photographs" in html and "There is nothing to look at" in html


def test_a_picture_that_has_changed_since_is_not_shown_as_the_suspect(features: Features, folder: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(folder / "4.jpg")
    with pytest.raises(CelebflowError, match=r"4\.jpg has changed.*`dvc repro`"):
        render_suspects([_suspect(4)], 9, features, folder)
