"""A page compares two results in plain words, with params, metrics and photographs, whatever they are called."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Keys

from celebflow.evaluation.comparison import Change, ResultComparison
from celebflow.evaluation.results import Prediction
from celebflow.evaluation.significance import Interval, PairedTest
from celebflow.report.comparison_page import ComparedResults, load_changes, render_comparison
from celebflow.report.page import render_page
from tests.browser import emulate_phone, has_alert, take_console, take_requests
from tests.report.pages import (
    HOSTILE_NAMES,
    PHONE_WIDTH_PX,
    MakeContent,
    Show,
    click,
    find,
    fits_phone,
    list_names,
    list_tags,
    list_texts,
    make_compared,
    make_comparison,
)


@pytest.fixture
def compared(make_content: MakeContent) -> ComparedResults:
    """Return a comparison of five people's results."""
    return make_compared(make_content(list_names(5)), "less-dropout")


def _render(compared: ComparedResults, comparison: ResultComparison) -> str:
    return render_comparison(replace(compared, comparison=comparison))


@pytest.mark.slow
def test_comparison_is_shown_in_plain_words(show: Show, compared: ComparedResults) -> None:
    driver = show(render_comparison(compared))
    [text] = list_texts(driver, "#comparison")
    assert "A is less-dropout, B is workspace" in text
    assert "changes by +0.013" in text
    assert "2 photographs are fixed, 1 broken" in text
    assert "in 100.0% of cases" in text
    assert "The difference may be chance." in text
    assert "both results have" not in text, "they have the same photographs"
    assert "Fixed on val: 2" in text
    assert "Broken on val: 1" in text
    [metrics] = list_texts(driver, "[aria-label='Table of metrics'] tbody")
    a, b = 2.0, compared.metrics_b["test"]["loss"]
    assert f"{a:.3f}\t{b:.3f}\t−{a - b:.3f}" in metrics
    assert "top" not in metrics.lower(), "A has no top-5 accuracy"


@pytest.mark.slow
def test_only_params_that_differ_are_listed(show: Show, compared: ComparedResults) -> None:
    rows = "[aria-label='Table of params'] tbody tr"
    driver = show(render_comparison(compared))
    assert list_texts(driver, rows) == ["train.hidden_units\t64\t4096, 4096", "train.gone\t7\t", "train.new\t\tfalse"]
    driver = show(render_comparison(replace(compared, params_a=compared.params_b)))
    assert list_texts(driver, rows) == []
    assert "No params differ." in list_texts(driver, "#comparison")[0]


@pytest.mark.slow
def test_viewer_steps_through_changed_photographs(show: Show, compared: ComparedResults) -> None:
    driver = show(render_comparison(compared))
    first, second = (shown.change.b.path for shown in compared.fixed)
    click(driver, ".tile.hit")
    [text] = list_texts(driver, "dialog")
    assert "1 of 2" in text and first in text
    assert len(find(driver, "dialog img")) == 1
    ActionChains(driver).send_keys(Keys.ARROW_RIGHT).perform()
    [text] = list_texts(driver, "dialog")
    assert "2 of 2" in text and second in text
    click(driver, "dialog [data-step='1']")
    assert first in list_texts(driver, "dialog")[0]
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    assert list_texts(driver, "dialog") == []
    assert take_console(driver) == []


@pytest.mark.slow
def test_missing_photograph_has_a_tile_without_a_picture(show: Show, compared: ComparedResults) -> None:
    driver = show(render_comparison(compared))
    assert len(find(driver, ".tile.hit img")) == 2
    assert find(driver, ".tile.error img, .tile.error .pictures") == []
    click(driver, ".tile.error")
    assert compared.broken[0].change.b.path in list_texts(driver, "dialog")[0]
    assert take_console(driver) == []


@pytest.mark.slow
def test_hostile_names_are_only_text(show: Show, make_content: MakeContent) -> None:
    hostile = HOSTILE_NAMES[1]
    expected = list_tags(show(render_comparison(make_compared(make_content(list_names(5))))))
    compared = make_compared(make_content((*HOSTILE_NAMES, "Ann")), hostile)
    compared = replace(compared, name_b=HOSTILE_NAMES[0], params_a={hostile: hostile})
    metrics = {"val": {hostile: 0.5}}
    driver = show(render_comparison(replace(compared, metrics_a=metrics, metrics_b=metrics)))
    assert list_tags(driver) == expected
    assert len(find(driver, "script")) == 1
    assert list_texts(driver, "h1") == [f"{hostile} and {HOSTILE_NAMES[0]}"]
    assert list_texts(driver, "[aria-label='Table of params'] tbody tr")[0] == f"{hostile}\t{hostile}\t"
    tiles = list_texts(driver, ".tile")
    for tile, shown in zip(tiles, [*compared.fixed, *compared.broken], strict=True):
        for name in (shown.change.b.actual, shown.change.a.predicted, shown.change.b.predicted):
            assert name in tile
    click(driver, ".tile")
    assert compared.fixed[0].change.b.actual in list_texts(driver, "dialog")[0]
    assert not find(driver, "img[src='x']")
    assert not has_alert(driver)
    assert take_console(driver) == []
    assert take_requests(driver) == {driver.current_url}


@pytest.mark.slow
def test_page_is_no_wider_than_a_phone(show: Show, compared: ComparedResults) -> None:
    long = {f"train.{'long' * 20}": "x" * 80}
    driver = show(render_comparison(replace(compared, name_a="a" * 80, params_a=long)))
    with emulate_phone(driver, PHONE_WIDTH_PX):
        assert fits_phone(driver)


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (PairedTest(0, 0, 1.0, 0.0, Interval(0, 0)), "correct on the same photographs"),
        (PairedTest(2, 12, 0.0129, 0.03, Interval(0.01, 0.05)), "in 1.3% of cases"),
        (PairedTest(0, 40, 1e-12, 0.1, Interval(0.05, 0.15)), "in less than 0.1% of cases"),
    ],
)
def test_p_value_is_put_into_words(compared: ComparedResults, test: PairedTest, expected: str) -> None:
    assert expected in _render(compared, make_comparison(test))


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (PairedTest(2, 12, 0.0129, 0.03, Interval(0.01, 0.05)), "B is better than A."),
        (PairedTest(12, 2, 0.0129, -0.03, Interval(-0.05, -0.01)), "B is worse than A."),
        # One large group of near-duplicates changed: the test alone would call it better.
        (PairedTest(2, 12, 0.0129, 0.03, Interval(-0.01, 0.07)), "The difference may be chance."),
        (PairedTest(5, 12, 0.143, 0.03, Interval(0.01, 0.05)), "The difference may be chance."),
    ],
)
def test_pages_and_command_judge_by_one_rule(
    make_content: MakeContent, compared: ComparedResults, test: PairedTest, expected: str
) -> None:
    comparison = make_comparison(test)
    content = replace(make_content(list_names(5)), compared=replace(compared, comparison=comparison))
    verdicts = ["B is better than A.", "B is worse than A.", "The difference may be chance."]
    assert comparison.verdict() == expected
    for html in (_render(compared, comparison), render_page(content)):
        assert [verdict for verdict in verdicts if verdict in html] == [expected]


@pytest.mark.parametrize(("missing_from_a", "missing_from_b"), [(7, 0), (0, 9), (7, 9)])
def test_page_counts_photographs_that_only_one_result_has(
    compared: ComparedResults, missing_from_a: int, missing_from_b: int
) -> None:
    test = PairedTest(1, 2, 1.0, 0.0, Interval(0, 0))
    html = " ".join(_render(compared, make_comparison(test, missing_from_a, missing_from_b)).split())
    assert "20 photographs of val that both results have" in html
    assert f"A lacks {missing_from_a} of B's, B lacks {missing_from_b} of A's" in html


def test_page_counts_photographs_that_changed(compared: ComparedResults) -> None:
    same = make_comparison(PairedTest(1, 2, 1.0, 0.0, Interval(0, 0)))
    assert "changed." not in _render(compared, same)
    html = " ".join(_render(compared, replace(same, changed_count=3)).split())
    assert "3 are left out because their labels or photographs changed." in html


def test_first_changes_are_loaded_and_the_page_counts_all(tmp_path: Path, compared: ComparedResults) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    changes = []
    for number in range(30):
        a = Prediction(f"{number}.png", str(number), "Ann", "Bo", 0.5, 0.5)
        changes.append(Change(a, replace(a, predicted="Ann")))
    loaded = load_changes(changes, tmp_path, {})
    assert [shown.change for shown in loaded] == changes[:24]
    assert [len(shown.thumbnails) for shown in loaded] == [1] + [0] * 23
    comparison = make_comparison(PairedTest(0, 30, 0.5, 0.1, Interval(0, 1)))
    html = render_comparison(replace(compared, comparison=comparison, fixed=loaded))
    assert "Fixed on val: 30" in html
    assert "The first 24" in html
    assert html.count("<img") == 1


def test_of_a_photograph_that_has_changed_since_there_is_no_picture(tmp_path: Path) -> None:
    for name in ("same.png", "other.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    sha256_of = {"same.png": hashlib.sha256((tmp_path / "same.png").read_bytes()).hexdigest(), "other.png": "0" * 64}
    changes = []
    for name in sha256_of:
        a = Prediction(name, name, "Ann", "Bo", 0.5, 0.5)
        changes.append(Change(a, replace(a, predicted="Ann")))
    assert [len(shown.thumbnails) for shown in load_changes(changes, tmp_path, sha256_of)] == [1, 0]


def test_pairs_are_called_pairs_and_show_both_photographs(tmp_path: Path, compared: ComparedResults) -> None:
    (tmp_path / "Ann").mkdir()
    for number in range(2):
        Image.new("RGB", (20, 20)).save(tmp_path / "Ann" / f"{number}.png")
    a = Prediction("Ann/0.png\tAnn/1.png", "Ann", "same", "different", 0.5, 0.5)
    loaded = load_changes([Change(a, replace(a, predicted="same"))], tmp_path, {})
    assert len(loaded[0].thumbnails) == 2
    comparison = make_comparison(PairedTest(0, 1, 0.5, 0.1, Interval(0, 1)), 7, 0, task="verification")
    html = render_comparison(replace(compared, comparison=comparison, fixed=loaded, broken=[]))
    assert "Ann/0.png | Ann/1.png" in html and "20 pairs of val" in html
    section = html.partition('<section id="comparison">')[2].partition("</section>")[0]
    assert section.count("<img src=") == 2 and "photographs" not in section
