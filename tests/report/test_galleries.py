"""Galleries show the right photographs, in order, with what the classifier predicts for them."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from celebflow.backbone.source import UNTRAINED_WARNING
from celebflow.report.galleries import draw_all, draw_galleries
from celebflow.report.style import BLUE, ORANGE
from tests.report.photographs import PhotographedResult, find_row, make_result
from tests.results import draw_logits, find_overlaps

KINDS = ["confused_pairs", "errors", "low_confidence_hits"]


def _draw(result: PhotographedResult) -> dict[str, Figure]:
    return draw_galleries(result.report, result.examples, result.classifier.card, result.features, result.folder)


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def _images(figure: Figure) -> list[NDArray[np.uint8]]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


@pytest.fixture(scope="module")
def make_random_result(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], PhotographedResult]:
    """Return a function that makes a result of this many people, of whom one has no photographs, once for all tests."""

    @cache
    def make(count: int) -> PhotographedResult:
        return make_result(tmp_path_factory.mktemp("result"), *draw_logits(count, absent=1))

    return make


@pytest.fixture
def result(make_random_result: Callable[[int], PhotographedResult]) -> PhotographedResult:
    """Return a result of 31 people."""
    return make_random_result(31)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5, 31, 200])
def test_galleries_are_drawn_and_legible_at_any_number_of_people(
    make_random_result: Callable[[int], PhotographedResult], count: int
) -> None:
    figures = _draw(make_random_result(count))
    kinds = KINDS if count > 2 else ["low_confidence_hits"]  # the only person in the split is always recognized
    assert sorted(figures) == [f"{split}_{kind}" for split in ("test", "val") for kind in kinds]
    for name, figure in figures.items():
        assert find_overlaps(figure) == [], name
        assert figure.get_suptitle() == ""


def test_near_duplicates_have_a_figure_only_where_there_are_some(tmp_path: Path) -> None:
    result = make_result(tmp_path, *draw_logits(3))
    photos = result.features.photos
    copied = replace(result.features, photos=[photos[0], replace(photos[1], group=photos[0].group), *photos[2:]])
    for features, expected in ((result.features, False), (copied, True)):
        figures = draw_all(result.report, result.examples, result.classifier.card, features, result.folder)
        assert ("duplicates" in figures) == expected
        assert {"accuracy", "val_roc", "test_errors"} <= figures.keys()


def test_every_gallery_warns_of_an_untrained_backbone(tmp_path: Path) -> None:
    figures = _draw(make_result(tmp_path, *draw_logits(3), trained=False))
    assert {figure.get_suptitle().replace("\n", " ") for figure in figures.values()} == {UNTRAINED_WARNING}


@pytest.mark.parametrize("kind", ["errors", "low_confidence_hits"])
def test_errors_and_hits_are_those_of_the_report_in_their_order(result: PhotographedResult, kind: str) -> None:
    figure = _draw(result)[f"val_{kind}"]
    predictions = result.report.splits["val"].predictions
    if kind == "errors":
        chosen = sorted((p for p in predictions if p.actual != p.predicted), key=lambda p: -p.confidence)
        caption = f"predicted: {chosen[0].predicted}, {chosen[0].confidence:.1%}"
        title = f"Errors, val: 20 of {len(chosen)}, most confident first"
    else:
        chosen = sorted((p for p in predictions if p.actual == p.predicted), key=lambda p: p.confidence)
        caption = f"confidence {chosen[0].confidence:.1%}"
        title = f"Hits, val: 20 of {len(chosen)}, least confident first"
    assert len(chosen) > 20, "there are more than are shown"
    shown = [result.features.photos[find_row(image)].path for image in _images(figure)]
    assert shown == [prediction.path for prediction in chosen[:20]]
    text = " ".join(_texts(figure))
    assert text.startswith(title)
    assert f"{chosen[0].actual} {caption}".replace("_", " ") in text


def test_heat_map_stands_beside_each_error(result: PhotographedResult) -> None:
    images = _images(_draw(result)["val_errors"])
    expected = {example.prediction.path: example for example in result.examples if example.split == "val"}
    for image in images:
        example = expected[result.features.photos[find_row(image)].path]
        assert np.array_equal(image, np.concatenate([example.image, example.heat_map], axis=1))


def test_pairs_are_ranked_by_count_and_shown_beside_the_predicted_person(tmp_path: Path) -> None:
    labels = np.array([0] * 8 + [1] * 4 + [2] * 4)
    predicted = np.array([1] * 7 + [0] + [1] * 4 + [1, 1, 2, 2])  # person 1 for 7 of 8 of 0, and for 2 of 4 of 2
    logits = np.zeros((16, 3), np.float32)
    logits[np.arange(16), predicted] = 2 + np.arange(16) / 10
    result = make_result(tmp_path, logits, labels)
    figure = _draw(result)["val_confused_pairs"]
    text = " ".join(_texts(figure))
    most_frequent = text.index("Person 0 $x^2$ predicted as Person 1 $x^2$, 7 of 8")
    assert most_frequent < text.index("Person 2 $x^2$ predicted as Person 1 $x^2$, 2 of 4")
    shown = [result.features.photos[find_row(image)] for image in _images(figure)]
    frames = [to_hex(frame.get_edgecolor()).upper() for frame in figure.axes[0].patches]
    assert frames == [ORANGE] * 4 + [BLUE] + [ORANGE] * 2 + [BLUE] * 2
    assert [photo.path.split("/")[1] for photo in shown[:4]] == [f"val_{row}.png" for row in (6, 5, 4, 3)]
    compared = [photo for photo, frame in zip(shown, frames, strict=True) if frame == BLUE]
    assert {(photo.person, photo.split) for photo in compared} == {("Person_1 $x^2$", "train")}


@pytest.mark.parametrize("right", [True, False])
def test_without_errors_or_hits_there_is_no_figure_of_them(tmp_path: Path, right: bool) -> None:
    labels = np.arange(3).repeat(4)
    logits = np.eye(3, dtype=np.float32)[labels if right else (labels + 1) % 3] * 3
    figures = _draw(make_result(tmp_path, logits, labels))
    shown = ["low_confidence_hits"] if right else ["confused_pairs", "errors"]
    assert [name for name in sorted(figures) if name.startswith("val_")] == [f"val_{kind}" for kind in shown]
    assert len(_images(figures[f"val_{shown[-1]}"])) == 12
