"""The page shows a result in a real browser: all of it, at any number of people, whatever they are called."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from celebflow.backbone.vgg19 import UNTRAINED_WARNING, BackboneSource
from celebflow.classifier.calibration import Calibration
from celebflow.classifier.history import EpochResult, save_history
from celebflow.classifier.model import ClassifierCard
from celebflow.data.photos import Photo
from celebflow.evaluation.comparison import Change, ResultComparison
from celebflow.evaluation.results import REPORTED_SPLITS, Prediction, load_report, save_metrics, save_split_report
from celebflow.evaluation.significance import Interval, PairedTest
from celebflow.features.transform import Transform
from celebflow.report.page import ChangedPhotograph, Example, PageContent, Previous, render_page
from tests.browser import emulate_phone, has_alert, take_console, take_requests
from tests.conftest import REPOSITORY

PHONE_WIDTH_PX = 390
HOSTILE_NAMES = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><svg onload=alert(1)>"]
FIGURES = ["accuracy", "loss", "val_confusion_matrix", "test_confusion_matrix", "val_reliability", "val_novelty"]
CURRENT_ROWS = "tbody[data-split]:not([hidden]) tr:not([hidden])"
CURRENT_TILES = "#examples .tile:not([hidden])"


def _draw(kind: str, number: int, size: tuple[int, int] = (60, 40)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, ((37 * number) % 256, 90, 160)).save(content, kind)
    return content.getvalue()


def _make_content(folder: Path, names: Sequence[str], *, trained: bool = True) -> PageContent:
    """Make the result of a classifier that is right more often than not, the last person absent from val."""
    names = sorted(names)
    source = BackboneSource("imagenet" if trained else "untrained", trained, "0" * 64)
    card = ClassifierCard(tuple(names), (8,), 0.5, Transform(224), source, Calibration(1.5, 0.25, 0.05))
    photos, metrics = [], {}
    for number, split in enumerate(REPORTED_SPLITS):
        random = np.random.default_rng(number)
        labels = np.arange(len(names) - (split == "val")).repeat(4)
        logits = random.normal(size=(len(labels), len(names))).astype(np.float32)
        logits[np.arange(len(labels)), labels] += 2
        own = [
            Photo(f"{names[label]}/{split}{row}.jpg", names[label], split, "", f"{split}{max(row, 1)}")
            for row, label in enumerate(labels)
        ]
        metrics[split] = save_split_report(logits, labels, own, card, folder / split)
        photos += own
    save_metrics(metrics, source, folder / "metrics.json")
    save_history([EpochResult(1, 2.0, 0.25, 1.5, 0.5)], folder / "history.csv")
    report = load_report(folder / "history.csv", folder / "metrics.json", folder)
    examples = [
        Example(prediction, split, _draw("JPEG", number), None if number % 3 == 0 else _draw("JPEG", number + 100))
        for split, content in report.splits.items()
        for number, prediction in enumerate(content.predictions[:60])
    ]
    return PageContent(
        report=report,
        card=card,
        photos=photos,
        params={"train.hidden_units": (4096, 4096), "prepare.duplicate_distance_bits": None, "tracking.required": True},
        figures={name: _draw("PNG", number, (2000, 1500)) for number, name in enumerate(FIGURES)},
        examples=examples,
        previous=None,
        not_compared="",
    )


def _make_comparison(overall: PairedTest, missing_from_a: int = 0, missing_from_b: int = 0) -> ResultComparison:
    return ResultComparison(20, missing_from_a, missing_from_b, 0.5, 0.5, overall, [], [], [])


def _compare(content: PageContent, name: str = "main") -> PageContent:
    """Add a previous result, in which two photographs were mistaken that no longer are, and one was not that is."""
    hits = [p for p in content.report.splits["val"].predictions if p.is_hit]
    mistakes = [p for p in content.report.splits["val"].predictions if not p.is_hit]
    wrong = content.card.class_names[-1]
    metrics = {split: {"accuracy": 0.5, "loss": 2.0} for split in REPORTED_SPLITS}
    previous = Previous(
        name=name,
        metrics=metrics,
        comparison=_make_comparison(PairedTest(1, 2, 1.0, 0.0125, Interval(-0.02, 0.04))),
        fixed=[
            ChangedPhotograph(Change(replace(hit, predicted=wrong), hit), _draw("JPEG", number))
            for number, hit in enumerate(hits[:2])
        ],
        broken=[
            ChangedPhotograph(Change(replace(mistake, predicted=mistake.actual), mistake), None)
            for mistake in mistakes[:1]
        ],
    )
    return replace(content, previous=previous)


def _name_people(count: int) -> list[str]:
    return [f"Person_{number:03}_of_the_Longest{'name' * 12}" for number in range(count)]


@pytest.fixture
def show(browser: Chrome, tmp_path: Path) -> Callable[[PageContent], Chrome]:
    """Return a function that opens a result's page in the browser."""

    def open_page(content: PageContent) -> Chrome:
        file = tmp_path / "index.html"
        file.write_text(render_page(content), encoding="utf-8")
        take_console(browser), take_requests(browser)
        browser.get(file.as_uri())
        return browser

    return open_page


def _find(driver: Chrome, selector: str) -> list[WebElement]:
    return driver.find_elements(By.CSS_SELECTOR, selector)


def _texts(driver: Chrome, selector: str) -> list[str]:
    """Return what can be seen of elements, which takes far longer when asked one by one."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).map(e => e.innerText)"
    )
    return driver.execute_script(script, selector)


def _click(driver: Chrome, selector: str, text: str = "") -> None:
    element = next(element for element in _find(driver, selector) if text in element.text)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def _choose_split(driver: Chrome, split: str) -> None:
    _click(driver, f"input[value={split}]")


@pytest.mark.parametrize("count", [2, 31, pytest.param(200, marks=pytest.mark.slow)])
def test_page_is_whole_and_keeps_to_itself_at_any_number_of_people(
    show: Callable[[PageContent], Chrome], tmp_path: Path, count: int
) -> None:
    driver = show(_compare(_make_content(tmp_path, _name_people(count))))
    assert len(_texts(driver, CURRENT_ROWS)) == count
    assert len(_find(driver, "img")) > len(FIGURES)
    broken = "return [...document.images].filter(image => !(image.complete && image.naturalWidth)).length"
    assert driver.execute_script(broken) == 0
    for split in REPORTED_SPLITS:
        _choose_split(driver, split)
        with emulate_phone(driver, PHONE_WIDTH_PX):
            width, visible = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
            assert (width, visible) == (PHONE_WIDTH_PX, PHONE_WIDTH_PX)
    assert take_console(driver) == []
    assert take_requests(driver) == {driver.current_url}


def test_headlines_have_both_splits_and_their_intervals(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    content = _make_content(tmp_path, _name_people(5))
    driver = show(content)
    shown = _texts(driver, ".headline")
    assert [text.split("\n")[0] for text in shown] == ["Accuracy", "Balanced accuracy", "Macro AUC"]
    for split, report in content.report.splits.items():
        interval = report.intervals["accuracy"]
        for number in (content.report.metrics[split]["accuracy"], interval.low, interval.high):
            assert f"{number:.3f}" in shown[0]
    assert f"{content.report.metrics['test']['loss']:.3f}" in _texts(driver, "#result table")[0]


def test_untrained_backbone_is_told_on_the_page(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    for trained in (True, False):
        content = _make_content(tmp_path / str(trained), _name_people(3), trained=trained)
        driver = show(content)
        assert _texts(driver, ".warning") == ([] if trained else [UNTRAINED_WARNING])
        assert driver.title.startswith("UNTRAINED") is not trained


def test_table_of_people_sorts_by_every_column(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    content = _make_content(tmp_path, ["Zoë", "ann", "Bo_10", "Bo_9", "Cy"])
    driver = show(content)
    people = content.report.splits["val"].people
    fields = ["support", "recall", "precision", "f1", "auc", "average_precision"]

    def read_column(column: int) -> list[str]:
        return _texts(driver, f"{CURRENT_ROWS} > :nth-child({column})")

    _click(driver, ".people thead th:nth-child(7) button")  # by recall it is sorted already
    for column, field in enumerate(fields, 2):
        values = sorted(value for person in people if (value := getattr(person, field)) is not None)
        missing = ["–"] * (len(people) - len(values))
        written = [str(value) if field == "support" else f"{value:.3f}" for value in values]
        header = f".people thead th:nth-child({column})"
        for direction, expected in (("ascending", written), ("descending", written[::-1])):
            _click(driver, f"{header} button")
            assert [text.split()[0] for text in read_column(column)] == expected + missing
            sorted_headers = _find(driver, "th[aria-sort]")
            assert [each.get_attribute("aria-sort") for each in sorted_headers] == [direction]
            assert sorted_headers[0] == _find(driver, header)[0]
    _click(driver, ".people thead th:nth-child(1) button")
    assert read_column(1) == ["ann", "Bo 9", "Bo 10", "Cy", "Zoë"]


def test_table_first_shows_whom_the_classifier_knows_worst(
    show: Callable[[PageContent], Chrome], tmp_path: Path
) -> None:
    content = _make_content(tmp_path, _name_people(12))
    driver = show(content)
    recalls = sorted(each.recall for each in content.report.splits["val"].people if each.recall is not None)
    shown = _texts(driver, f"{CURRENT_ROWS} > :nth-child(3)")
    assert [text.split()[0] for text in shown] == [*(f"{recall:.3f}" for recall in recalls), "–"]
    assert _find(driver, ".people thead th:nth-child(3)")[0].get_attribute("aria-sort") == "ascending"


def test_search_filters_people_and_examples(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    content = _make_content(tmp_path, ["Björn_Dahl", "Ada_Brown", "Ann", "Cy"])
    driver = show(content)
    everything = _texts(driver, CURRENT_TILES)
    search = _find(driver, "#search")[0]
    search.send_keys("bjorn d", Keys.ENTER)
    assert [text.split("\n")[0].split("\t")[0] for text in _texts(driver, CURRENT_ROWS)] == ["Björn Dahl"]
    shown = _texts(driver, CURRENT_TILES)
    assert shown == [text for text in everything if "Björn Dahl" in text]
    assert 0 < len(shown) < len(everything)
    assert _texts(driver, "#person-count, #example-count") == [
        "1 of 4 people, val",
        f"{len(shown)} of {len(everything)} photographs, val",
    ]
    search.clear()
    search.send_keys("nobody at all")
    assert _texts(driver, f"{CURRENT_ROWS}, {CURRENT_TILES}") == []


def test_examples_are_filtered_by_person_kind_and_split(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    content = _make_content(tmp_path, ["A" * length for length in range(1, 9)])  # each name begins the next
    driver = show(content)
    person = next(each.prediction.predicted for each in content.examples if not each.prediction.is_hit)
    other = next(name for name in content.card.class_names if name != person)

    def check(keep: Callable[[Prediction], bool], split: str) -> None:
        kept = [each.prediction for each in content.examples if each.split == split and keep(each.prediction)]
        tiles = _find(driver, CURRENT_TILES)
        shown = [(tile.get_attribute("data-actual"), tile.get_attribute("data-named")) for tile in tiles]
        assert kept
        assert shown == [(prediction.actual, prediction.predicted) for prediction in kept]
        assert len(_texts(driver, CURRENT_TILES)) == len(kept)

    def is_of(prediction: Prediction, name: str) -> bool:
        return name in (prediction.actual, prediction.predicted)

    check(lambda p: True, "val")
    Select(_find(driver, "#person")[0]).select_by_value(person)
    check(lambda p: is_of(p, person), "val")
    Select(_find(driver, "#kind")[0]).select_by_value("mistake")
    check(lambda p: is_of(p, person) and not p.is_hit, "val")
    Select(_find(driver, "#kind")[0]).select_by_value("hit")
    check(lambda p: is_of(p, person) and p.is_hit, "val")
    _choose_split(driver, "test")
    check(lambda p: is_of(p, person) and p.is_hit, "test")
    for kind in ("", "mistake", "hit"):
        Select(_find(driver, "#kind")[0]).select_by_value(kind)
        _click(driver, f"{CURRENT_ROWS}[data-person='{other}'] .pick")
        check(lambda p: is_of(p, other), "test")
        assert _find(driver, "#kind")[0].get_property("value") == ""


def test_split_switch_changes_figures_and_people(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    content = _make_content(tmp_path, _name_people(4))
    driver = show(content)
    both = ["Accuracy over the epochs", "Loss over the epochs"]
    assert _texts(driver, ".figure") == [*both, "Confusion matrix, val", "Reliability, val", "Novelty, val"]
    absent = f"{CURRENT_ROWS}:last-child > :nth-child(3)"
    assert _texts(driver, absent) == ["–"]
    _choose_split(driver, "test")
    assert _texts(driver, ".figure") == [*both, "Confusion matrix, test"]
    assert _texts(driver, absent) != ["–"]
    assert _texts(driver, "#figures h3") == ["Training", "Errors"]


def test_example_opens_moves_with_arrows_and_closes_with_escape(
    show: Callable[[PageContent], Chrome], tmp_path: Path
) -> None:
    content = _make_content(tmp_path, _name_people(5))
    driver = show(content)
    Select(_find(driver, "#kind")[0]).select_by_value("mistake")
    mistakes = [each for each in content.examples if each.split == "val" and not each.prediction.is_hit]
    assert len(mistakes) > 2

    def press(key: str) -> None:
        ActionChains(driver).send_keys(key).perform()

    def check(number: int) -> None:
        example = mistakes[number]
        [text] = _texts(driver, "dialog")
        assert f"{number + 1} of {len(mistakes)}" in text
        assert example.prediction.path in text
        for probability in (example.prediction.probability, example.prediction.probability_of_actual):
            assert f", {100 * probability:.1f}\N{NO-BREAK SPACE}%" in text
        images = _find(driver, "dialog img")
        assert len(images) == 1 + (example.heat_map is not None)
        assert all(int(image.get_property("naturalWidth")) == 60 for image in images)

    assert _texts(driver, "dialog") == []
    _click(driver, CURRENT_TILES)
    check(0)
    press(Keys.ARROW_RIGHT)
    check(1)
    press(Keys.ARROW_LEFT)
    press(Keys.ARROW_LEFT)
    check(len(mistakes) - 1)
    _click(driver, "dialog [data-step='1']")
    press(Keys.ARROW_RIGHT)
    check(1)
    press(Keys.ESCAPE)
    assert _texts(driver, "dialog") == []
    shown = _find(driver, CURRENT_TILES)[1]
    # The browser tells the page of the closing a moment later.
    WebDriverWait(driver, 5).until(lambda driver: driver.switch_to.active_element == shown)
    assert take_console(driver) == []


def test_figure_opens_to_its_full_size(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    driver = show(_make_content(tmp_path, _name_people(2)))
    _click(driver, ".figure")
    assert _find(driver, "dialog img")[0].get_property("src") == _find(driver, ".figure img")[0].get_property("src")
    assert _find(driver, "dialog img")[0].size["width"] < 2000
    _click(driver, ".size")
    assert _find(driver, "dialog img")[0].size["width"] == 2000
    assert _find(driver, ".size")[0].get_attribute("aria-pressed") == "true"
    _click(driver, ".close")
    assert _texts(driver, "dialog") == []


def test_comparison_is_shown_in_plain_words(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    content = _make_content(tmp_path, _name_people(5))
    assert _texts(show(content), "#comparison") == []
    [text] = _texts(show(_compare(content, "less-dropout")), "#comparison")
    assert "PairedTest with less-dropout" in text
    assert "+0.013" in text
    assert "2 photographs fixed, 1 broken" in text
    assert "in 100.0\N{NO-BREAK SPACE}% of cases" in text
    assert "The difference may be chance." in text
    assert "both results have" not in text, "they have the same photographs"
    change = content.report.metrics["test"]["loss"] - 2.0
    assert f"−{-change:.3f}" in text
    assert "Fixed in val: 2" in text
    assert "Broken in val: 1" in text


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (PairedTest(0, 0, 1.0, 0.0, Interval(0, 0)), "name the same photographs rightly"),
        (PairedTest(2, 12, 0.0129, 0.03, Interval(0.01, 0.05)), "in 1.3\N{NO-BREAK SPACE}% of cases"),
        (PairedTest(0, 40, 1e-12, 0.1, Interval(0.05, 0.15)), "in less than 0.1\N{NO-BREAK SPACE}% of cases"),
    ],
)
def test_p_value_is_put_into_words(tmp_path: Path, comparison: PairedTest, expected: str) -> None:
    assert expected in render_page(_compare_by(_make_content(tmp_path, _name_people(3)), _make_comparison(comparison)))


def _compare_by(content: PageContent, comparison: ResultComparison) -> PageContent:
    previous = _compare(content).previous
    assert previous
    return replace(content, previous=replace(previous, comparison=comparison))


@pytest.mark.parametrize(
    ("comparison", "page", "command"),
    [
        (PairedTest(2, 12, 0.0129, 0.03, Interval(0.01, 0.05)), "This result is better.", "B is better than A."),
        (PairedTest(12, 2, 0.0129, -0.03, Interval(-0.05, -0.01)), "This result is worse.", "B is worse than A."),
        # One large group of near-duplicates changed: the test alone would call it better.
        (PairedTest(2, 12, 0.0129, 0.03, Interval(-0.01, 0.07)), *["The difference may be chance."] * 2),
        (PairedTest(5, 12, 0.143, 0.03, Interval(0.01, 0.05)), *["The difference may be chance."] * 2),
    ],
)
def test_page_and_command_judge_by_one_rule(tmp_path: Path, comparison: PairedTest, page: str, command: str) -> None:
    compared = _make_comparison(comparison)
    html = render_page(_compare_by(_make_content(tmp_path, _name_people(3)), compared))
    assert compared.verdict() == command
    verdicts = ["This result is better.", "This result is worse.", "The difference may be chance."]
    assert [verdict for verdict in verdicts if verdict in html] == [page]


@pytest.mark.parametrize(("missing_from_a", "missing_from_b"), [(7, 0), (0, 9), (7, 9)])
def test_comparison_tells_how_many_photographs_both_results_have(
    show: Callable[[PageContent], Chrome], tmp_path: Path, missing_from_a: int, missing_from_b: int
) -> None:
    compared = _make_comparison(PairedTest(1, 2, 1.0, 0.0, Interval(0, 0)), missing_from_a, missing_from_b)
    [text] = _texts(show(_compare_by(_make_content(tmp_path, _name_people(3)), compared)), "#comparison")
    expected = (
        f"20 photographs of val that both results have; {missing_from_a} only this one has, {missing_from_b} only"
    )
    assert expected in text


def test_an_earlier_result_that_cannot_be_read_is_told(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    reason = f"The result of commit 1234567 is not compared with: {HOSTILE_NAMES[0]} {'a' * 80}"
    driver = show(replace(_make_content(tmp_path, _name_people(3)), not_compared=reason))
    assert _texts(driver, "#comparison") == [f"PairedTest\n\n{reason}"]
    assert _texts(driver, "nav a")[:2] == ["Result", "PairedTest"]
    with emulate_phone(driver, PHONE_WIDTH_PX):
        assert driver.execute_script("return document.documentElement.scrollWidth") == PHONE_WIDTH_PX
    assert take_console(driver) == []


def test_data_and_recipe_are_listed(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    driver = show(_make_content(tmp_path, _name_people(3)))
    [text] = _texts(driver, "#data")
    assert "val\t8\t2" in text
    assert "test\t12\t3" in text
    assert "4 photographs are near-duplicates, in 2 groups" in text
    rows = [text.split("\n") for text in _texts(driver, ".recipe > div")]
    assert rows == [
        ["train.hidden_units", "4096, 4096"],
        ["prepare.duplicate_distance_bits", "null"],
        ["tracking.required", "true"],
    ]


def test_hostile_names_are_only_text(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    hostile = HOSTILE_NAMES[1]
    tags = "return [...new Set([...document.querySelectorAll('*')].map(element => element.tagName))].sort()"
    (tmp_path / "harmless").mkdir()
    harmless = _compare(_make_content(tmp_path / "harmless", ["Ann", "Bo", "Cy", "Di"]))
    expected = show(harmless).execute_script(tags)
    content = _compare(_make_content(tmp_path, [*HOSTILE_NAMES, "Ann"]), hostile)
    content = replace(content, params={hostile: hostile}, figures={f"val_{hostile}": _draw("PNG", 1)})
    driver = show(content)
    assert driver.execute_script(tags) == expected
    assert len(_find(driver, "script")) == 1
    assert sorted(_texts(driver, "tbody[data-split=val] > tr > th")) == sorted([*HOSTILE_NAMES, "Ann"])
    assert _texts(driver, ".recipe > div") == [f"{hostile}\n{hostile}"]
    assert _texts(driver, "#comparison h2") == [f"PairedTest with {hostile}"]
    for name in HOSTILE_NAMES:
        Select(_find(driver, "#person")[0]).select_by_value(name)
        assert _texts(driver, CURRENT_TILES)
        assert all(name in text for text in _texts(driver, CURRENT_TILES))
        _click(driver, CURRENT_TILES)
        assert name in _texts(driver, "dialog")[0]
        _click(driver, ".close")
    assert not _find(driver, "img[src='x']")
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
def test_policy_refuses_what_the_page_does_not_hold(
    show: Callable[[PageContent], Chrome], tmp_path: Path, intruder: str
) -> None:
    driver = show(_make_content(tmp_path, _name_people(2)))
    assert take_console(driver) == []
    driver.execute_script(intruder)
    driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert driver.execute_script("return window.intruded") is None
    assert any("Content Security Policy" in message for message in take_console(driver))


def test_page_needs_neither_examples_nor_figures(show: Callable[[PageContent], Chrome], tmp_path: Path) -> None:
    content = replace(_make_content(tmp_path, _name_people(3)), examples=[], figures={})
    driver = show(content)
    assert _texts(driver, "h2") == ["Result", "People", "Data", "Recipe"]
    _find(driver, "#search")[0].send_keys("person 001")
    assert len(_texts(driver, CURRENT_ROWS)) == 1
    assert take_console(driver) == []


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"CI": "true"}], ids=["at_home", "in_ci"])
def test_missing_browser_is_told_and_is_an_error_in_ci(environment: Mapping[str, str]) -> None:
    name = "tests/test_page.py::test_data_and_recipe_are_listed"
    variables: dict[str, Any] = {key: value for key, value in os.environ.items() if key not in ("CI", "PATH")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", name]
    run = subprocess.run(
        command, cwd=REPOSITORY, env={**variables, **environment, "PATH": ""}, capture_output=True, text=True
    )
    assert "chromium and chromium-driver missing: sudo apt-get install chromium chromium-driver" in run.stdout
    assert f"{'ERROR' if environment else 'SKIPPED'} {name}" in run.stdout
    assert run.returncode == (1 if environment else 0)
