"""A result's page and comparison without a pipeline, and a look at a page in a browser, that tests share."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.calibration import Calibration
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.history import EpochResult, save_history
from celebflow.data.photos import Photo
from celebflow.evaluation.advice import Measured
from celebflow.evaluation.comparison import Change, ResultComparison
from celebflow.evaluation.evidence import Evidence, summarize_evidence
from celebflow.evaluation.learning_curve import Forecast
from celebflow.evaluation.person_sheets import FaultEffect, PersonSheet
from celebflow.evaluation.results import REPORTED_SPLITS, Prediction, load_report, save_metrics, save_split_report
from celebflow.evaluation.significance import Interval, PairedTest
from celebflow.evaluation.suspects import Suspect
from celebflow.features.transform import Transform
from celebflow.params import TaskName
from celebflow.report.comparison_page import ChangedPhotograph, ComparedResults
from celebflow.report.examples import Example, NearestExample
from celebflow.report.page import PageContent
from celebflow.report.suspects_page import ShownSuspect
from celebflow.report.why_section import Occlusion, Why
from tests.results import make_open_set

MakeContent = Callable[[tuple[str, ...]], PageContent]
Show = Callable[[str], Chrome]

PHONE_WIDTH_PX = 360
HOSTILE_NAMES = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><svg onload=alert(1)>")
FIGURES = ("accuracy", "loss", "val_confusion_matrix", "test_confusion_matrix", "val_reliability", "val_novelty")
PARAMS = {"train.hidden_units": (4096, 4096), "prepare.duplicate_distance_bits": None, "tracking.required": True}


def list_names(count: int) -> tuple[str, ...]:
    """Return long names."""
    return tuple(f"Person_{number:03}_of_the_Longest{'name' * 12}" for number in range(count))


def draw_image(number: int) -> NDArray[np.uint8]:
    """Return an image (40, 60, 3) of one color."""
    return np.full((40, 60, 3), ((37 * number) % 256, 90, 160), np.uint8)


@cache
def draw_png(number: int) -> bytes:
    """Return a PNG file as wide as a figure."""
    content = io.BytesIO()
    Image.fromarray(draw_image(number)).resize((2000, 1500)).save(content, "PNG")
    return content.getvalue()


def make_page_content(folder: Path, names: Sequence[str]) -> PageContent:
    """Make the result of a classifier that is more often right than wrong; val lacks the last person."""
    names = sorted(names)
    source = BackboneSource("imagenet", True, "0" * 64)
    calibration = Calibration(1.5, 0.99, 0.25, 0.05)
    card = ClassifierCard(tuple(names), (8,), 0.5, Transform(224), source, calibration=calibration)
    photos: list[Photo] = []
    metrics = {}
    for number, split in enumerate(REPORTED_SPLITS):
        random = np.random.default_rng(number)
        labels = np.arange(len(names) - (split == "val")).repeat(4)
        logits = random.normal(size=(len(labels), len(names))).astype(np.float32)
        logits[np.arange(len(labels)), labels] += 2
        own = [
            Photo(f"{names[label]}/{split}{row}.jpg", names[label], split, "", f"{split}{max(row, 1)}")
            for row, label in enumerate(labels)
        ]
        metrics[split] = save_split_report(
            logits, labels, own, card, folder / split, make_open_set(logits.argmax(axis=1) == labels)
        )
        photos += own
    save_metrics(metrics, source, folder / "metrics.json", folder / "all_metrics.json")
    save_history([EpochResult(1, 2.0, 0.25, 1.5, 0.5)], folder / "history.csv")
    report = load_report(folder / "history.csv", folder / "all_metrics.json", folder)
    nearest = [NearestExample(name, draw_image(number)) for number, name in enumerate(names[:2])]
    examples = [
        Example(prediction, split, draw_image(number), draw_image(number + 100), nearest)
        for split, content in report.splits.items()
        for number, prediction in enumerate(content.predictions[:60])
    ]
    figures = {name: draw_png(number) for number, name in enumerate(FIGURES)}
    return PageContent(report, card, photos, PARAMS, figures, examples)


def make_comparison(
    overall: PairedTest, missing_from_a: int = 0, missing_from_b: int = 0, task: TaskName = "recognition"
) -> ResultComparison:
    """Make a comparison of 20 photographs, or of 20 pairs for the task verification."""
    return ResultComparison(task, 20, missing_from_a, missing_from_b, 0.5, 0.5, overall, [], [], [])


def make_compared(content: PageContent, name: str = "main") -> ComparedResults:
    """Compare a result with one: B fixes two photographs of val, and breaks one that is missing."""
    first, second, *_, last = content.report.splits["val"].predictions
    wrong = content.card.class_names[-1]  # is not in val

    def change(photo: Prediction, a: str, b: str, *thumbnails: NDArray[np.uint8]) -> ChangedPhotograph:
        return ChangedPhotograph(Change(replace(photo, predicted=a), replace(photo, predicted=b)), thumbnails)

    return ComparedResults(
        name_a=name,
        name_b="workspace",
        split="val",
        metrics_a={split: {"accuracy": 0.5, "loss": 2.0} for split in REPORTED_SPLITS},
        metrics_b=content.report.metrics,
        params_a={**content.params, "train.hidden_units": (64,), "train.gone": 7},
        params_b={**content.params, "train.new": False},
        comparison=make_comparison(PairedTest(1, 2, 1.0, 0.0125, Interval(-0.02, 0.04))),
        fixed=[change(photo, wrong, photo.actual, draw_image(n)) for n, photo in enumerate((first, second))],
        broken=[change(last, last.actual, wrong)],
    )


def make_why(content: PageContent) -> Why:
    """Explain a result: everybody is taken for the next person, half of them for several reasons."""
    names = content.card.class_names
    suspects = [
        Suspect(f"{name}/{number}.jpg", "val", "0" * 64, name, names[number - 1], 0.04, 0.87)
        for number, name in enumerate(names)
    ]
    evidence = [
        Evidence(f"{name}/{number}.jpg", name, name, 0.5, 0.4, names[number - 1] if number % 2 else name, name)
        for number, name in enumerate(names)
    ]
    forecast = Forecast(80, 0.9, Interval(0.8, 0.95), 0.012, Interval(0.003, 0.021))
    measured = Measured(0.9, suspects, 500, 0.875, forecast, {}, summarize_evidence(evidence, len(names)))
    image = draw_image(1)
    reasons = ["few photographs (6, where the median is 40)", f"looks like {names[0]} (20% of the probability)"]
    return Why(
        measured,
        suspects=[ShownSuspect(each, image, [(each.person, image), (each.likelier, image)]) for each in suspects],
        learning_curve=draw_png(3),
        occlusions=[Occlusion(each, image, image, image) for each in evidence],
        effects=[FaultEffect("dark", 0.25, 0.125, 0.01), FaultEffect("small", 0.1, 0.1, 0.5)],
        sheets=[
            PersonSheet(name, 40, 3, 1, [(names[number - 1], 2)], reasons if number % 2 else [])
            for number, name in enumerate(names)
        ],
    )


def find(driver: Chrome, selector: str) -> list[WebElement]:
    """Return the elements that match a CSS selector."""
    return driver.find_elements(By.CSS_SELECTOR, selector)


def list_texts(driver: Chrome, selector: str) -> list[str]:
    """Return the visible texts of elements, in one script: one request per element would take far longer."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).map(e => e.innerText)"
    )
    texts: list[str] = driver.execute_script(script, selector)
    return texts


def list_tags(driver: Chrome) -> list[str]:
    """Return the different tags of a page, sorted."""
    script = "return [...new Set([...document.querySelectorAll('*')].map(element => element.tagName))].sort()"
    tags: list[str] = driver.execute_script(script)
    return tags


def click(driver: Chrome, selector: str) -> None:
    """Scroll to the first element that matches, and click it."""
    element = find(driver, selector)[0]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def fits_phone(driver: Chrome) -> bool:
    """Return whether nothing on the page is wider than a phone, which is emulated, nor in a part that one scrolls."""
    widths: list[int] = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    outside = (
        "return [...document.querySelectorAll('body *')].filter(element => element.checkVisibility() && "
        "element.getBoundingClientRect().right > innerWidth + 1).map(element => element.outerHTML.slice(0, 200))"
    )
    assert driver.execute_script(outside) == []
    return widths == [PHONE_WIDTH_PX, PHONE_WIDTH_PX]


def show_all(driver: Chrome) -> None:
    """Ask for all items of each list that shows only its first ones."""
    for _ in find(driver, ".more:not([hidden])"):
        click(driver, ".more:not([hidden])")
