"""The page shows a result in a real browser: all of it, at any number of people, whatever they are called."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.backbone.source import UNTRAINED_WARNING, BackboneSource
from celebflow.evaluation.advice import Advice
from celebflow.evaluation.results import REPORTED_SPLITS, Prediction
from celebflow.report.page import PageContent, render_page
from tests.browser import emulate_media, emulate_phone, has_alert, require_browser, take_console, take_requests
from tests.report.pages import (
    FIGURES,
    HOSTILE_NAMES,
    PHONE_WIDTH_PX,
    MakeContent,
    Show,
    click,
    draw_png,
    find,
    fits_phone,
    list_names,
    list_tags,
    list_texts,
    make_compared,
    make_why,
    show_all,
)

CURRENT_ROWS = "tbody[data-split]:not([hidden]) tr:not([hidden])"
CURRENT_TILES = "#examples .tile:not([hidden])"
pytestmark = pytest.mark.slow


def _add_all(content: PageContent) -> PageContent:
    """Add a comparison, what explains the result, and advice."""
    advice = [Advice(f"{content.card.class_names[0]} is hard.", "Look: `celebflow suspects`.")]
    return replace(content, compared=make_compared(content), why=make_why(content), advice=advice)


def _choose_split(driver: Chrome, split: str) -> None:
    click(driver, f"input[value={split}]")


@pytest.mark.parametrize("count", [2, 31, 200])
def test_page_is_complete_and_loads_nothing_at_any_number_of_people(
    show: Show, make_content: MakeContent, count: int
) -> None:
    driver = show(render_page(_add_all(make_content(list_names(count)))))
    assert len(find(driver, CURRENT_ROWS)) == count
    assert len(find(driver, "img")) > len(FIGURES)
    broken = "return [...document.images].filter(image => !(image.complete && image.naturalWidth)).length"
    assert driver.execute_script(broken) == 0
    for split in REPORTED_SPLITS:
        _choose_split(driver, split)
        with emulate_phone(driver, PHONE_WIDTH_PX):
            assert fits_phone(driver)
    assert take_console(driver) == []
    assert take_requests(driver) == {driver.current_url}


def test_more_people_do_not_make_the_page_longer(show: Show, make_content: MakeContent) -> None:
    heights = []
    for count in (31, 200):
        driver = show(render_page(make_content(list_names(count))))
        with emulate_phone(driver, PHONE_WIDTH_PX):
            heights.append(driver.execute_script("return document.documentElement.scrollHeight"))
    assert heights[1] < 1.1 * heights[0]


def test_long_lists_show_their_first_items_until_asked_for_all(show: Show, make_content: MakeContent) -> None:
    content = make_content(list_names(200))
    driver = show(render_page(content))
    tiles = [example for example in content.examples if example.split == "val"]
    assert [len(list_texts(driver, items)) for items in (CURRENT_ROWS, CURRENT_TILES)] == [24, 12]
    assert list_texts(driver, ".more") == ["Show all 200", f"Show all {len(tiles)}"]
    lowest = list_texts(driver, f"{CURRENT_ROWS} > :nth-child(1)")
    click(driver, ".people thead th:nth-child(3) button")  # the highest recall first
    assert len(list_texts(driver, CURRENT_ROWS)) == 24
    assert not set(list_texts(driver, f"{CURRENT_ROWS} > :nth-child(1)")) & set(lowest)
    find(driver, "#search")[0].send_keys("person 19")
    assert len(list_texts(driver, CURRENT_ROWS)) == 10, "for so few, there is nothing to ask for"
    find(driver, "#search")[0].send_keys(Keys.BACKSPACE * len("person 19"))
    click(driver, CURRENT_TILES)
    click(driver, "dialog [data-step='-1']")
    assert f"{len(tiles)} of {len(tiles)}" in list_texts(driver, "dialog")[0], "the viewer shows all of them"
    click(driver, ".close")
    assert len(list_texts(driver, CURRENT_TILES)) == 13, "that which the viewer has moved to can be seen"
    show_all(driver)
    assert len(list_texts(driver, CURRENT_ROWS)) == 200
    assert len(list_texts(driver, CURRENT_TILES)) == len(tiles)
    assert list_texts(driver, ".more") == []
    assert take_console(driver) == []


def test_headlines_have_both_splits_and_their_intervals(show: Show, make_content: MakeContent) -> None:
    content = make_content(list_names(5))
    driver = show(render_page(content))
    shown = list_texts(driver, ".headline")
    assert [text.split("\n")[0] for text in shown] == [
        *("Accuracy", "Balanced accuracy", "Macro AUC", "Coverage (the others are “unknown”)"),
        "False acceptance rate (FAR) of unknown people, cross-validated (lower is better)",
    ]
    for split, report in content.report.splits.items():
        interval = report.intervals["accuracy"]
        for number in (content.report.metrics[split]["accuracy"], interval.low, interval.high):
            assert f"{number:.3f}" in shown[0]
    table = list_texts(driver, "#result table")[0]
    assert f"{content.report.metrics['test']['loss']:.3f}" in table
    assert "Coverage at a FAR of 1%\t0.750 (0.740–0.760)" in table
    assert (
        "Of photographs of known people, 25.0% would be called “unknown” (95% interval 24.0% to 26.0%, test)"
        in (list_texts(driver, "#result p")[0])
    )


def test_page_warns_of_an_untrained_backbone(show: Show, make_content: MakeContent) -> None:
    for trained in (True, False):
        content = make_content(list_names(5))
        backbone = BackboneSource("imagenet" if trained else "untrained", trained, "0" * 64)
        driver = show(render_page(replace(content, card=replace(content.card, backbone=backbone))))
        count = len(content.report.splits["val"].predictions)
        expected = [f"Val has only {count} photographs: confidences and intervals say little."]
        assert list_texts(driver, ".warning") == ([] if trained else [UNTRAINED_WARNING]) + expected
        assert driver.title.startswith("UNTRAINED") is not trained


def test_table_of_people_sorts_by_every_column(show: Show, make_content: MakeContent) -> None:
    content = make_content(("Zoë", "ann", "Bo_10", "Bo_9", "Cy"))
    driver = show(render_page(content))
    people = content.report.splits["val"].people
    fields = ["support", "recall", "precision", "f1", "auc", "average_precision"]

    def read_column(column: int) -> list[str]:
        return list_texts(driver, f"{CURRENT_ROWS} > :nth-child({column})")

    click(driver, ".people thead th:nth-child(7) button")  # by recall it is sorted already
    for column, field in enumerate(fields, 2):
        values = sorted(value for person in people if (value := getattr(person, field)) is not None)
        missing = ["–"] * (len(people) - len(values))
        written = [str(value) if field == "support" else f"{value:.3f}" for value in values]
        header = f".people thead th:nth-child({column})"
        for direction, expected in (("ascending", written), ("descending", written[::-1])):
            click(driver, f"{header} button")
            assert [text.split()[0] for text in read_column(column)] == expected + missing
            sorted_headers = find(driver, "th[aria-sort]")
            assert [each.get_attribute("aria-sort") for each in sorted_headers] == [direction]
            assert sorted_headers[0] == find(driver, header)[0]
    click(driver, ".people thead th:nth-child(1) button")
    assert read_column(1) == ["ann", "Bo 9", "Bo 10", "Cy", "Zoë"]


def test_table_shows_people_with_the_lowest_recall_first(show: Show, make_content: MakeContent) -> None:
    content = make_content(list_names(31))
    driver = show(render_page(content))
    recalls = sorted(each.recall for each in content.report.splits["val"].people if each.recall is not None)
    shown = list_texts(driver, f"{CURRENT_ROWS} > :nth-child(3)")
    assert [text.split()[0] for text in shown] == [*(f"{recall:.3f}" for recall in recalls), "–"]
    assert find(driver, ".people thead th:nth-child(3)")[0].get_attribute("aria-sort") == "ascending"


def test_search_filters_people_and_examples(show: Show, make_content: MakeContent) -> None:
    content = make_content(("Björn_Dahl", "Ada_Brown", "Ann", "Cy"))
    driver = show(render_page(content))
    show_all(driver)
    everything = list_texts(driver, CURRENT_TILES)
    search = find(driver, "#search")[0]
    search.send_keys("bjorn d", Keys.ENTER)
    assert [text.split("\n")[0].split("\t")[0] for text in list_texts(driver, CURRENT_ROWS)] == ["Björn Dahl"]
    shown = list_texts(driver, CURRENT_TILES)
    assert shown == [text for text in everything if "Björn Dahl" in text]
    assert 0 < len(shown) < len(everything)
    assert list_texts(driver, "#person-count, #example-count") == [
        "1 of 4 people, val",
        f"{len(shown)} of {len(everything)} photographs, val",
    ]
    search.clear()
    search.send_keys("nobody at all")
    assert list_texts(driver, f"{CURRENT_ROWS}, {CURRENT_TILES}") == []


def test_examples_are_filtered_by_person_kind_and_split(show: Show, make_content: MakeContent) -> None:
    content = make_content(tuple("A" * length for length in range(1, 9)))  # each name begins the next
    driver = show(render_page(content))
    show_all(driver)
    person = next(each.prediction.predicted for each in content.examples if not each.prediction.is_hit)
    other = next(name for name in content.card.class_names if name != person)

    def check(keep: Callable[[Prediction], bool], split: str) -> None:
        kept = [each.prediction for each in content.examples if each.split == split and keep(each.prediction)]
        tiles = find(driver, CURRENT_TILES)
        shown = [(tile.get_attribute("data-actual"), tile.get_attribute("data-predicted")) for tile in tiles]
        assert kept
        assert shown == [(prediction.actual, prediction.predicted) for prediction in kept]
        assert len(list_texts(driver, CURRENT_TILES)) == len(kept)

    def is_of(prediction: Prediction, name: str) -> bool:
        return name in (prediction.actual, prediction.predicted)

    check(lambda p: True, "val")
    Select(find(driver, "#person")[0]).select_by_value(person)
    check(lambda p: is_of(p, person), "val")
    Select(find(driver, "#kind")[0]).select_by_value("error")
    check(lambda p: is_of(p, person) and not p.is_hit, "val")
    Select(find(driver, "#kind")[0]).select_by_value("hit")
    check(lambda p: is_of(p, person) and p.is_hit, "val")
    _choose_split(driver, "test")
    check(lambda p: is_of(p, person) and p.is_hit, "test")
    for kind in ("", "error", "hit"):
        Select(find(driver, "#kind")[0]).select_by_value(kind)
        click(driver, f"{CURRENT_ROWS}[data-person='{other}'] .pick")
        check(lambda p: is_of(p, other), "test")
        assert find(driver, "#kind")[0].get_property("value") == ""


def test_split_switch_changes_figures_and_people(show: Show, make_content: MakeContent) -> None:
    content = make_content(list_names(5))
    driver = show(render_page(content))
    both = ["Accuracy, train and val", "Loss, train and val"]
    assert list_texts(driver, ".figure") == [*both, "Confusion matrix, val", "Reliability, val", "Novelty, val"]
    absent = f"{CURRENT_ROWS}:last-child > :nth-child(3)"
    assert list_texts(driver, absent) == ["–"]
    _choose_split(driver, "test")
    assert list_texts(driver, ".figure") == [*both, "Confusion matrix, test"]
    assert list_texts(driver, absent) != ["–"]
    assert list_texts(driver, "#figures h3") == ["Training", "Errors"]


def test_example_opens_moves_with_arrows_and_closes_with_escape(show: Show, make_content: MakeContent) -> None:
    content = make_content(list_names(5))
    driver = show(render_page(content))
    Select(find(driver, "#kind")[0]).select_by_value("error")
    errors = [each for each in content.examples if each.split == "val" and not each.prediction.is_hit]
    assert len(errors) > 2

    def press(key: str) -> None:
        ActionChains(driver).send_keys(key).perform()

    def check(number: int) -> None:
        example = errors[number]
        [text] = list_texts(driver, "dialog")
        assert f"{number + 1} of {len(errors)}" in text
        assert example.prediction.path in text
        for probability in (example.prediction.confidence, example.prediction.probability_of_actual):
            assert f", {100 * probability:.1f}%" in text
        images = find(driver, "dialog img")
        assert len(images) == 4, "the photograph, its heat map, and the two most similar photographs of train"
        assert all(image.get_property("naturalWidth") == 60 for image in images)

    assert list_texts(driver, "dialog") == []
    click(driver, CURRENT_TILES)
    check(0)
    press(Keys.ARROW_RIGHT)
    check(1)
    press(Keys.ARROW_LEFT)
    press(Keys.ARROW_LEFT)
    check(len(errors) - 1)
    click(driver, "dialog [data-step='1']")
    press(Keys.ARROW_RIGHT)
    check(1)
    press(Keys.ESCAPE)
    assert list_texts(driver, "dialog") == []
    shown = find(driver, CURRENT_TILES)[1]
    # The browser tells the page of the closing a moment later.
    WebDriverWait(driver, 5).until(lambda driver: driver.switch_to.active_element == shown)
    assert take_console(driver) == []


def test_figure_opens_to_its_full_size(show: Show, make_content: MakeContent) -> None:
    driver = show(render_page(make_content(list_names(5))))
    click(driver, ".figure")
    assert find(driver, "dialog img")[0].get_property("src") == find(driver, ".figure img")[0].get_property("src")
    assert find(driver, "dialog img")[0].size["width"] < 2000
    click(driver, ".size")
    assert find(driver, "dialog img")[0].size["width"] == 2000
    assert find(driver, ".size")[0].get_attribute("aria-pressed") == "true"
    click(driver, ".close")
    assert list_texts(driver, "dialog") == []


def test_what_explains_a_result_is_shown_on_request(show: Show, make_content: MakeContent) -> None:
    content = make_content(list_names(31))
    driver = show(render_page(content))
    assert not find(driver, "#why") and not find(driver, ".advice") and not find(driver, ".change")
    driver = show(render_page(_add_all(content)))
    assert len(find(driver, ".advice li")) == 1
    assert [each.text for each in find(driver, ".advice code")] == ["celebflow suspects"]
    [change] = list_texts(driver, ".change")
    assert (
        "Against main" in change
        and "train.hidden_units: 64 → 4096, 4096; train.gone: 7 → –" in change
        and "+0.013" in change
    )
    [text] = list_texts(driver, "#why")
    for part in (
        "500 photographs",
        "87.5% are right",
        "judge labels by a better recipe",
        "+0.012 (+0.003 to +0.021)",
        "40.0% of the evidence",
    ):
        assert part in text
    assert list_texts(driver, "#why .plain tbody tr") == ["dark\t25.0%\t12.5%\tyes", "small\t10.0%\t10.0%\tno"]
    assert len(list_texts(driver, ".sheets tbody tr")) == 12
    tiles = list_texts(driver, "#why .tile")
    assert len(tiles) == 6 + 6, "evidence and suspects"
    first = content.card.class_names[0].replace("_", " ")
    assert f"face hidden: {first}" in tiles[0], "what is recognized without a face comes first"
    click(driver, "#why .tile")
    assert "40.0% of the evidence outside of the face" in list_texts(driver, ".stage")[0]


def test_data_and_recipe_are_listed(show: Show, make_content: MakeContent) -> None:
    driver = show(render_page(make_content(list_names(5))))
    [text] = list_texts(driver, "#data")
    assert "val\t16\t4" in text
    assert "test\t20\t5" in text
    assert "4 photographs are near-duplicates, in 2 groups" in text
    rows = [text.split("\n") for text in list_texts(driver, ".recipe > div")]
    assert rows == [
        ["train.hidden_units", "4096, 4096"],
        ["prepare.duplicate_distance_bits", "null"],
        ["tracking.required", "true"],
    ]


def test_hostile_names_are_only_text(show: Show, make_content: MakeContent) -> None:
    hostile = HOSTILE_NAMES[1]
    expected = list_tags(show(render_page(_add_all(make_content(list_names(5))))))
    content = _add_all(make_content((*HOSTILE_NAMES, "Ann")))
    driver = show(render_page(replace(content, params={hostile: hostile}, figures={f"val_{hostile}": draw_png(1)})))
    assert list_tags(driver) == expected
    assert len(find(driver, "script")) == 1
    assert sorted(list_texts(driver, "tbody[data-split=val] > tr > th")) == sorted([*HOSTILE_NAMES, "Ann"])
    assert list_texts(driver, ".recipe > div") == [f"{hostile}\n{hostile}"]
    for name in HOSTILE_NAMES:
        Select(find(driver, "#person")[0]).select_by_value(name)
        assert list_texts(driver, CURRENT_TILES)
        assert all(name in text for text in list_texts(driver, CURRENT_TILES))
        click(driver, CURRENT_TILES)
        assert name in list_texts(driver, "dialog")[0]
        click(driver, ".close")
    assert not find(driver, "img[src='x']")
    assert not has_alert(driver)
    assert take_console(driver) == []
    assert take_requests(driver) == {driver.current_url}


@pytest.mark.parametrize(
    "intruder",
    [
        "const e = document.createElement('script'); e.textContent = 'window.intruded = true'; document.body.append(e)",
        "document.body.innerHTML += `<img src='data:,' onerror='window.intruded = true'>`",
        "const e = new Image(); e.onload = () => {}; e.src = 'http://127.0.0.1:9/x.png'; document.body.append(e)",
        "document.body.innerHTML += `<p style='color: red'>`",
        "fetch('http://127.0.0.1:9/x').catch(() => {})",
    ],
    ids=["script", "handler", "image", "style", "fetch"],
)
def test_policy_refuses_what_is_not_in_the_page(show: Show, make_content: MakeContent, intruder: str) -> None:
    driver = show(render_page(make_content(list_names(5))))
    assert take_console(driver) == []
    driver.execute_script(intruder)
    driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert driver.execute_script("return window.intruded") is None
    assert any("Content Security Policy" in message for message in take_console(driver))


def test_comparison_is_a_section_of_the_page_only_where_there_is_one(show: Show, make_content: MakeContent) -> None:
    content = make_content(list_names(5))
    for each, sections in ((content, 0), (_add_all(content), 1)):
        driver = show(render_page(each))
        assert len(find(driver, "#comparison")) == sections
        assert list_texts(driver, "nav a").count("Comparison") == sections
    click(driver, "#comparison .tile")
    assert "1 of 2" in list_texts(driver, "dialog")[0]


def test_colors_follow_the_system(show: Show, make_content: MakeContent) -> None:
    driver = show(render_page(make_content(list_names(5))))
    script = (
        "const style = getComputedStyle(document.documentElement);"
        "return [style.backgroundColor, style.color].map(color => color.match(/\\d+/g).reduce((a, b) => a + +b, 0))"
    )
    ground, text = driver.execute_script(script)
    assert ground > text + 500
    with emulate_media(driver, features={"prefers-color-scheme": "dark"}):
        ground, text = driver.execute_script(script)
        assert ground + 500 < text


def test_print_has_all_rows_and_no_controls(show: Show, make_content: MakeContent) -> None:
    driver = show(render_page(make_content(list_names(200))))
    with emulate_media(driver, media="print"):
        assert list_texts(driver, "nav, .controls, .filters, .more, dialog") == []
        assert len(list_texts(driver, CURRENT_ROWS)) == 200
        assert (
            driver.execute_script("return getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
        )


def test_page_needs_neither_examples_nor_figures(show: Show, make_content: MakeContent) -> None:
    content = replace(make_content(list_names(5)), examples=[], figures={})
    driver = show(render_page(content))
    assert list_texts(driver, "h2") == ["Result", "People", "Data", "Recipe"]
    assert list_texts(driver, "nav a") == ["Result", "People", "Data", "Recipe"]
    find(driver, "#search")[0].send_keys("person 001")
    assert len(list_texts(driver, CURRENT_ROWS)) == 1
    assert take_console(driver) == []


@pytest.mark.parametrize(("variables", "raised"), [({}, pytest.skip.Exception), ({"CI": "1"}, pytest.fail.Exception)])
def test_missing_browser_skips_the_tests_and_is_an_error_in_ci(
    variables: Mapping[str, str], raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(raised, match="chromium and chromium-driver missing: sudo apt-get install"):
        require_browser(variables)
