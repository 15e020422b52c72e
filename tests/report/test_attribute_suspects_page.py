"""The page of suspect labels shows each attribute's beside photographs with both labels, whatever it is called."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_suspects import AttributeCount, AttributeSuspect
from celebflow.features.store import Features
from celebflow.report import attribute_suspects_page
from celebflow.report.attribute_suspects_page import choose_shown, render_attribute_suspects
from tests.browser import emulate_phone, has_alert, take_console, take_requests
from tests.report.pages import HOSTILE_NAMES, PHONE_WIDTH_PX, Show, click, fits_phone, list_texts


def _suspect(number: int, attribute: str = "Glasses", rank: int = 1) -> AttributeSuspect:
    return AttributeSuspect(f"{number}.jpg", "val", "0" * 64, attribute, "yes", "no", 0.04, 0.96, rank)


@pytest.mark.slow
def test_a_suspect_is_beside_photographs_with_both_labels(show: Show, features: Features, folder: Path) -> None:
    shown = [
        (_suspect(4), {"yes": "0.jpg", "no": "1.jpg"}),
        (_suspect(6, "Hat", 2), {"no": "1.jpg"}),
        (_suspect(5, "Hat"), {}),
    ]
    counts = [AttributeCount("Glasses", 60, 1, 0), AttributeCount("Beard", 50, 0, 0), AttributeCount("Hat", 40, 2, 1)]
    driver = show(render_attribute_suspects(shown, counts, features, folder))
    [header] = list_texts(driver, "header")
    assert "4 of 150 labels may be wrong" in header
    rows = [text.split() for text in list_texts(driver, "tbody tr")]
    assert rows == [["Hat", "3", "2", "1", "7.5%"], ["Glasses", "1", "1", "0", "1.7%"]]
    assert list_texts(driver, "h2") == ["Hat", "Glasses"]
    of_hat, of_glasses = list_texts(driver, "section")
    assert "The surest 2 of 3 are shown" in of_hat and "surest" not in of_glasses
    first, second, third = list_texts(driver, ".tile")
    assert "similar" not in first and "similar, labeled no:" in second and "similar, labeled yes and no:" in third
    assert "labeled yes, 4.0%" in third and "looks like no, 96.0%" in third
    pictures = [picture.get_attribute("alt") for picture in driver.find_elements("css selector", ".tile img")]
    assert pictures == ["", "", "labeled no", "", "labeled yes", "labeled no"], "by rank"
    click(driver, ".tile")
    [enlarged] = list_texts(driver, ".stage")
    assert "5.jpg" in enlarged and "Hat" in enlarged
    click(driver, ".close")
    click(driver, "tbody tr:last-child a")
    assert driver.current_url.endswith("#attribute-2")
    assert driver.find_elements("css selector", "section:target h2")[0].text == "Glasses"
    assert take_console(driver) == []
    assert len(take_requests(driver)) == 1


@pytest.mark.slow
def test_names_are_no_markup_and_many_suspects_fit_a_phone(show: Show, features: Features, folder: Path) -> None:
    names = [name + "x" * 80 for name in HOSTILE_NAMES]
    shown = [(_suspect(number % 9, names[number % 3], 1 + number // 3), {"yes": "1.jpg"}) for number in range(90)]
    counts = [AttributeCount(name, 300, 10, 20) for name in names]
    driver = show(render_attribute_suspects(shown, counts, features, folder))
    with emulate_phone(driver, PHONE_WIDTH_PX):
        assert fits_phone(driver)
        assert list_texts(driver, "thead") == [], "each number has its title"
    assert not has_alert(driver)
    assert driver.find_elements("css selector", "main :is(script, svg, [onerror])") == []
    assert len([text for text in list_texts(driver, ".tile") if text]) == 3 * 12
    click(driver, ".more")
    assert len([text for text in list_texts(driver, ".tile") if text]) == 30 + 2 * 12


def test_of_very_many_suspects_the_surest_of_each_attribute_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribute_suspects_page, "_MAX_SUSPECTS", 5)
    suspects = [replace(_suspect(rank, "Glasses", rank), probability_of_given=0.001 * rank) for rank in range(1, 9)]
    suspects += [replace(_suspect(rank, "Hat", rank), probability_of_given=0.1 * rank) for rank in range(1, 3)]
    assert [(each.attribute, each.rank) for each in choose_shown(suspects)] == [
        ("Glasses", 1),
        ("Hat", 1),
        ("Glasses", 2),
        ("Hat", 2),
        ("Glasses", 3),
    ]


def test_without_suspects_the_page_says_so(features: Features, folder: Path) -> None:
    html = render_attribute_suspects([], [AttributeCount("Glasses", 60, 0, 0)], features, folder)
    assert "0 of 60 labels" in html and "There is nothing to look at" in html
    assert features.origin.backbone.warning() in html


def test_a_picture_that_has_changed_since_is_not_shown_as_the_suspect(features: Features, folder: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(folder / "4.jpg")
    with pytest.raises(CelebflowError, match=r"4\.jpg has changed.*`dvc repro`"):
        render_attribute_suspects([(_suspect(4), {})], [AttributeCount("Glasses", 60, 1, 0)], features, folder)
