"""The exhibits show the right photographs, in order, with what the classifier said of them."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from celebflow.backbone.vgg19 import FEATURE_COUNT, UNTRAINED_WARNING
from celebflow.classifier.model import Classifier
from celebflow.evaluation.results import Report
from celebflow.features.origin import FeatureOrigin
from celebflow.features.store import Features
from celebflow.report.galleries import draw_all, draw_exhibits
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from celebflow.report.style import BLUE, ORANGE
from tests import REPOSITORY
from tests.results import draw_logits, find_overlaps, list_photos, make_card, write_result

KINDS = ["confused_pairs", "low_confidence_hits", "mistakes"]


def _make(
    folder: Path, logits: np.ndarray, labels: np.ndarray, *, trained: bool = True
) -> tuple[Report, Explainer, Features, Path]:
    """Make a result of these logits, photographs of one color each, features and an explainer of its people."""
    names = [f"Person_{number} $x^2$" for number in range(logits.shape[1])]
    report, card = write_result(folder, make_card(names, trained=trained), logits, labels)
    photos = [
        *list_photos(card.class_names, labels, "test"),
        *list_photos(card.class_names, np.arange(len(names)).repeat(3), "train"),
        *list_photos(card.class_names, labels, "val"),
    ]
    for number, photo in enumerate(photos):
        path = folder / "data" / photo.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(path)
    random = np.random.default_rng(0)
    indices = [np.sort(random.choice(FEATURE_COUNT, 50, replace=False)).astype(np.uint16) for _ in photos]
    features = Features(
        offsets=np.arange(len(photos) + 1) * 50,
        indices=np.concatenate(indices),
        values=random.random(50 * len(photos), np.float32),
        photos=photos,
        origin=FeatureOrigin(card.backbone, card.transform, "torch"),
    )
    return report, Explainer(Classifier(card).eval()), features, folder / "data"


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def _images(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def _number(image: np.ndarray) -> int:
    """Tell by its color which photograph this is."""
    red, green, _ = image[0, 0]
    return int(red) + 256 * int(green)


@pytest.mark.parametrize("count", [2, 5, 31, pytest.param(200, marks=pytest.mark.slow)])
def test_exhibits_are_drawn_and_legible_at_any_number_of_people(tmp_path: Path, count: int) -> None:
    figures = draw_exhibits(*_make(tmp_path, *draw_logits(count, absent=1)))
    assert sorted(figures) == [f"{split}_{kind}" for split in ("test", "val") for kind in KINDS]
    for name, figure in figures.items():
        assert find_overlaps(figure) == [], name
        assert figure.get_suptitle() == ""


@pytest.mark.parametrize("count", [2, 3])
def test_every_figure_that_dvc_lists_is_drawn_and_no_other(tmp_path: Path, count: int) -> None:
    plots = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    listed = [plot for plot in plots if isinstance(plot, str)]
    drawn = draw_all(*_make(tmp_path, *draw_logits(count)))
    assert sorted(listed) == sorted(f"reports/figures/{name}.png" for name in drawn)


def test_untrained_backbone_is_told_in_every_exhibit(tmp_path: Path) -> None:
    figures = draw_exhibits(*_make(tmp_path, *draw_logits(3), trained=False))
    assert {figure.get_suptitle().replace("\n", " ") for figure in figures.values()} == {UNTRAINED_WARNING}


def test_mistakes_and_hits_are_those_of_the_report_in_their_order(tmp_path: Path) -> None:
    report, explainer, features, folder = _make(tmp_path, *draw_logits(31))
    figures = draw_exhibits(report, explainer, features, folder)
    predictions = report.splits["val"].predictions
    mistakes = sorted((p for p in predictions if p.actual != p.predicted), key=lambda p: -p.probability)
    hits = sorted((p for p in predictions if p.actual == p.predicted), key=lambda p: p.probability)
    assert len(mistakes) > 20 and len(hits) > 20, "there are more than are shown"
    for kind, expected in (("mistakes", mistakes[:20]), ("low_confidence_hits", hits[:20])):
        shown = [features.photos[_number(image)].path for image in _images(figures[f"val_{kind}"])]
        assert shown == [prediction.path for prediction in expected]
        texts = _texts(figures[f"val_{kind}"])
        count = len(mistakes if kind == "mistakes" else hits)
        assert texts[0].startswith(f"{'Mistakes' if kind == 'mistakes' else 'Hits'}, val: 20 of {count}, the most")
        first = expected[0]
        named = first.predicted.replace("_", " ") + "," if kind == "mistakes" else "with"
        assert f"{first.actual.replace('_', ' ')} named {named} {first.probability:.1%}" in " ".join(texts)


def test_beside_each_mistake_stands_what_spoke_for_the_person_named(tmp_path: Path) -> None:
    report, explainer, features, folder = _make(tmp_path, *draw_logits(5, 8))
    images = _images(draw_exhibits(report, explainer, features, folder)["val_mistakes"])
    named = {p.path: explainer.card.class_names.index(p.predicted) for p in report.splits["val"].predictions}
    assert images
    for image in images:
        photograph, overlay = image[:, :160], image[:, 160:]
        row = _number(image)
        batch, person = features.gather(np.array([row])), np.array([named[features.photos[row].path]])
        (heat,) = explainer.compute_heat_maps(batch, person)
        difference = overlay.astype(int) - overlay_heat_map(photograph, heat)
        assert np.abs(difference).max() <= 1


def test_pairs_are_ranked_by_count_and_shown_beside_whom_they_were_taken_for(tmp_path: Path) -> None:
    labels = np.array([0] * 8 + [1] * 4 + [2] * 4)
    predicted = np.array([1] * 7 + [0] + [1] * 4 + [1, 1, 2, 2])  # 7 of 8 taken for 1, 2 of 4 likewise
    logits = np.zeros((16, 3), np.float32)
    logits[np.arange(16), predicted] = 2 + np.arange(16) / 10
    report, explainer, features, folder = _make(tmp_path, logits, labels)
    figure = draw_exhibits(report, explainer, features, folder)["val_confused_pairs"]
    text = " ".join(_texts(figure))
    most_often = text.index("Person 0 $x^2$ taken for Person 1 $x^2$, 7 of 8")
    assert most_often < text.index("Person 2 $x^2$ taken for Person 1 $x^2$, 2 of 4")
    shown = [features.photos[_number(image)] for image in _images(figure)]
    frames = [to_hex(frame.get_edgecolor()).upper() for frame in figure.axes[0].patches]
    assert frames == [ORANGE] * 4 + [BLUE] + [ORANGE] * 2 + [BLUE] * 2
    assert [photo.path.split("/")[1] for photo in shown[:4]] == [f"val_{row}.png" for row in (6, 5, 4, 3)]
    compared = [photo for photo, frame in zip(shown, frames, strict=True) if frame == BLUE]
    assert {(photo.person, photo.split) for photo in compared} == {("Person_1 $x^2$", "train")}


@pytest.mark.parametrize("right", [True, False])
def test_without_mistakes_or_hits_a_figure_says_so(tmp_path: Path, right: bool) -> None:
    labels = np.arange(3).repeat(4)
    logits = np.eye(3, dtype=np.float32)[labels if right else (labels + 1) % 3] * 3
    report, explainer, features, folder = _make(tmp_path, logits, labels)
    figures = draw_exhibits(report, explainer, features, folder)
    titles = {kind: _texts(figures[f"val_{kind}"])[0] for kind in KINDS}
    if right:
        assert titles["mistakes"] == "No mistakes, val"
        assert titles["confused_pairs"] == "Nobody is taken for somebody else, val"
        assert len(_images(figures["val_low_confidence_hits"])) == 12
    else:
        assert titles["low_confidence_hits"] == "No hits, val"
        assert len(_images(figures["val_mistakes"])) == 12
