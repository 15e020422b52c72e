"""The page of attributes shows a result in a real browser: any number of them, whatever they are called."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.support.select import Select

from celebflow import paths
from celebflow.backbone.source import UNTRAINED_WARNING
from celebflow.classifier.attribute_model import AttributeModel
from celebflow.evaluation.advice import Advice
from celebflow.evaluation.attribute_evaluation import explain_attributes
from celebflow.evaluation.results import REPORTED_SPLITS
from celebflow.report.attribute_figures import SHEET
from celebflow.report.attribute_publication import (
    AttributePage,
    publish_attributes,
)
from tests.browser import emulate_phone, has_alert, take_console, take_requests
from tests.conftest import draw_features
from tests.images import hash_photos
from tests.report.attributes import CELEBA, make_attribute_card, make_attribute_page
from tests.report.pages import (
    HOSTILE_NAMES,
    PHONE_WIDTH_PX,
    Show,
    click,
    find,
    fits_phone,
    list_tags,
    list_texts,
    show_all,
)

ROWS = "#people tbody[data-split]:not([hidden]) tr:not([hidden])"
GROUP_ROWS = "#groups tbody[data-split]:not([hidden]) tr:not([hidden])"
TILES = "#examples .tile:not([hidden])"
NAMES = (*HOSTILE_NAMES, "cost in $", "نظارة", "W" * 60, "Smiling", "Eye_glasses")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> AttributePage:
    """Return a result of eight attributes; of those in val, one has no labels, and one has only no."""
    return make_attribute_page(tmp_path_factory.mktemp("result"), NAMES, one_valued=1, without_labels=1)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> AttributePage:
    """Return a result of forty attributes, which are worse where the first one is no."""
    page = make_attribute_page(tmp_path_factory.mktemp("many"), CELEBA)
    splits = {}
    for name, split in page.report.splits.items():
        worse = [row for row in split.groups if (row.given, row.value) == (CELEBA[0], "no")]
        groups = [
            replace(
                row,
                count=50,
                balanced_difference=-0.2,
                balanced_difference_low=-0.3,
                balanced_difference_high=-0.1,
            )
            for row in worse
        ]
        splits[name] = replace(split, groups=groups)
    return replace(page, report=replace(page.report, splits=splits))


def test_page_says_what_attributes_are_not_and_counts_only_known_people(page: AttributePage) -> None:
    page = replace(page, examples=[])
    html = page.render()
    assert "8 attributes, 320 photographs" in html
    assert "gender identity" in html
    assert '<th scope="col">people</th>' in html
    unknown = replace(page, photos=[replace(photo, person="") for photo in page.photos])
    assert '<th scope="col">people</th>' not in unknown.render()
    warned = replace(page, card=make_attribute_card(NAMES, trained=False))
    assert UNTRAINED_WARNING in warned.render()


def test_advice_stands_above_the_figures(page: AttributePage) -> None:
    assert "What to do next" not in page.render()
    html = replace(page, advice=[Advice("<b>Bald</b> is guessed.", "Run `celebflow suspects`.")]).render()
    assert "<li>&lt;b&gt;Bald&lt;/b&gt; is guessed. Run <code>celebflow suspects</code>.</li>" in html


def test_page_says_where_no_group_is_at_a_disadvantage(page: AttributePage) -> None:
    splits = {name: replace(split, groups=[]) for name, split in page.report.splits.items()}
    html = replace(page, report=replace(page.report, splits=splits), examples=[]).render()
    assert all(f"In {split}, there is no such group" in html for split in REPORTED_SPLITS)
    assert "Table of groups" not in html


def test_page_lists_no_group_for_its_accuracy_alone(page: AttributePage) -> None:
    splits = {}
    for name, split in page.report.splits.items():
        (row, *_) = split.groups
        groups = [replace(row, count=50, difference_high=-0.1, balanced_difference_high=0.1)]
        splits[name] = replace(split, groups=groups)
    html = replace(page, report=replace(page.report, splits=splits), examples=[]).render()
    assert all(f"In {split}, there is no such group" in html for split in REPORTED_SPLITS)


@pytest.mark.slow
def test_publication_draws_figures_and_sheets_that_the_page_does_not_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make_attribute_page(paths.REPORTS, ["Smiling", "../Hat"], photograph_count=20, people_count=0)
    for photo in made.photos:
        file = paths.DATA / photo.path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30)).save(file)
    model = AttributeModel(made.card).eval()
    model.save(paths.CLASSIFIER)
    features = replace(draw_features(len(made.photos)), photos=hash_photos(made.photos, paths.DATA))
    explain_attributes(model, features, paths.REPORTS)
    page = publish_attributes(features, {"task": "attributes"}, 50)
    files = {file.stem for file in paths.FIGURES.iterdir()}
    assert f"test_{SHEET}1" in files and "val_average_precision" in files and "duplicates" in files
    assert set(page.figures) == {name for name in files if SHEET not in name}
    assert {example.split for example in page.examples} == set(REPORTED_SPLITS)
    before = {file: file.stat().st_mtime_ns for file in paths.FIGURES.iterdir()}
    assert publish_attributes(features, {}, None).figures == page.figures
    assert {file: file.stat().st_mtime_ns for file in paths.FIGURES.iterdir()} == before
    page.save(paths.PAGE)
    assert "Smiling" in paths.PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("names", [["Only"], CELEBA], ids=["1", "40"])
def test_page_fits_a_phone_and_loads_nothing(show: Show, many: AttributePage, tmp_path: Path, names: list[str]) -> None:
    page = many if len(names) > 1 else make_attribute_page(tmp_path, names)
    driver = show(page.render())
    assert len(find(driver, ROWS)) == len(names)
    for split in REPORTED_SPLITS:
        click(driver, f"input[value={split}]")
        with emulate_phone(driver, PHONE_WIDTH_PX):
            assert fits_phone(driver)
            assert driver.execute_script("return document.documentElement.scrollHeight") < 12_000
    assert take_console(driver) == []
    assert take_requests(driver) == {driver.current_url}


@pytest.mark.slow
def test_table_of_attributes_sorts_by_every_column_and_leaves_groups_alone(show: Show, many: AttributePage) -> None:
    driver = show(many.render())
    show_all(driver)
    attributes = many.report.splits["val"].attributes
    groups = list_texts(driver, GROUP_ROWS)
    assert groups
    fields = ["support", "yes", "accuracy", "trivial_accuracy", "balanced_accuracy", "precision", "recall", "f1"]

    def read_column(column: int) -> list[str]:
        return [text.split()[0] for text in list_texts(driver, f"{ROWS} > :nth-child({column})")]

    lowest = sorted(each.average_precision for each in attributes if each.average_precision is not None)
    assert read_column(11) == [f"{value:.3f}" for value in lowest]
    for column, field in enumerate([*fields, "auc", "average_precision"], 2):
        values = sorted(value for each in attributes if (value := getattr(each, field)) is not None)
        written = [str(value) if field in ("support", "yes") else f"{value:.3f}" for value in values]
        missing = ["–"] * (len(attributes) - len(values))
        click(driver, f"#people thead th:nth-child({column}) button")
        if field == "average_precision":  # by this, the table was sorted before any other
            assert find(driver, "th[aria-sort]")[0].get_attribute("aria-sort") == "ascending"
        assert read_column(column) == written + missing
        click(driver, f"#people thead th:nth-child({column}) button")
        assert read_column(column) == written[::-1] + missing
    assert list_texts(driver, GROUP_ROWS) == groups


@pytest.mark.slow
def test_search_finds_attributes_their_groups_and_errors(show: Show, many: AttributePage) -> None:
    driver = show(many.render())
    find(driver, "#search")[0].send_keys("wearing neck")
    assert sorted(text.split("\t")[0] for text in list_texts(driver, ROWS)) == ["Wearing Necklace", "Wearing Necktie"]
    assert list_texts(driver, "#person-count") == ["2 of 40 attributes, val"]
    assert {tile.get_attribute("data-actual") for tile in find(driver, TILES)} == {
        "Wearing_Necklace",
        "Wearing_Necktie",
    }
    find(driver, "#search")[0].clear()
    find(driver, "#search")[0].send_keys("5 o clock")  # the attribute on which the others depend
    assert find(driver, GROUP_ROWS)
    assert {row.get_attribute("data-given") for row in find(driver, GROUP_ROWS)} == {"5_o_Clock_Shadow"}


@pytest.mark.slow
def test_errors_are_filtered_by_attribute_and_kind_and_open_beside_the_heat_map(
    show: Show, page: AttributePage
) -> None:
    driver = show(page.render())
    click(driver, "input[value=test]")
    for attribute in NAMES:
        row = next(row for row in find(driver, ROWS) if row.get_attribute("data-person") == attribute)
        driver.execute_script("arguments[0].querySelector('.pick').click()", row)
        assert find(driver, "#person")[0].get_property("value") == attribute
        for kind in ("", "yes", "no"):
            Select(find(driver, "#kind")[0]).select_by_value(kind)
            expected = [
                example.prediction
                for example in page.examples
                if example.split == "test"
                and example.prediction.attribute == attribute
                and kind in ("", example.prediction.predicted)
            ]
            tiles = find(driver, TILES)
            assert len(tiles) == len(expected)
            assert all(tile.get_attribute("data-actual") == attribute for tile in tiles)
        Select(find(driver, "#kind")[0]).select_by_value("")
    click(driver, TILES)
    [text] = list_texts(driver, "dialog")
    first = next(
        each.prediction for each in page.examples if (each.split, each.prediction.attribute) == ("test", NAMES[-1])
    )
    assert first.photographs[0] in text and f"label: {first.actual}" in text
    assert f"predicted: {first.predicted}, {first.confidence:.1%}" in text
    assert len(find(driver, "dialog img")) == 2
    click(driver, ".close")
    assert take_console(driver) == []


@pytest.mark.slow
def test_hostile_names_are_only_text(show: Show, page: AttributePage, tmp_path: Path) -> None:
    plain = make_attribute_page(
        tmp_path, [f"a{number}" for number in range(len(NAMES))], one_valued=1, without_labels=1
    )
    expected = list_tags(show(plain.render()))
    driver = show(page.render())
    assert list_tags(driver) == expected
    spelled = sorted(name.replace("_", " ") for name in NAMES)
    shown = list_texts(driver, "#people tbody[data-split=val] > tr > th")
    assert sorted(text.strip("\u2068\u2069") for text in shown) == spelled
    missing = [text for text in list_texts(driver, ROWS) if text.count("–") > 6]
    assert len(missing) == 1, "the attribute without labels"
    with emulate_phone(driver, PHONE_WIDTH_PX):
        assert fits_phone(driver)
    _check_harmless(driver)


def _check_harmless(driver: Chrome) -> None:
    assert len(find(driver, "script")) == 1
    assert not find(driver, "img[src='x']")
    assert not has_alert(driver)
    assert take_console(driver) == []
    assert take_requests(driver) == {driver.current_url}
