"""The files of a result come back as they were, and the figures show them at any number of people."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.backbone import UNTRAINED_WARNING, BackboneSource
from celebflow.classifier import ClassifierCard
from celebflow.data import Photo
from celebflow.evaluation import compute_metrics
from celebflow.figures import draw_all, save_figures
from celebflow.images import Transform
from celebflow.reports import load_history, load_report, save_history, save_metrics, save_split_report
from celebflow.training import EpochResult

HISTORY = [EpochResult(1, 2.0, 0.25, 1.5, 0.5), EpochResult(2, 1.0, 0.75, 1.25, 0.625)]


def _write(folder: Path, names: list[str], absent: int | None = None) -> None:
    random = np.random.default_rng(0)
    labels = np.array([label for label in np.arange(len(names)).repeat(4) if label != absent])
    logits = random.normal(size=(len(labels), len(names))).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 2
    photos = [Photo(f"{names[label]}/{row}.jpg", names[label], "val", "") for row, label in enumerate(labels)]
    for split in ("val", "test"):
        save_split_report(logits, labels, photos, names, folder / split)
    save_history(HISTORY, folder / "history.csv")


def _card(names: list[str], *, trained: bool) -> ClassifierCard:
    source = BackboneSource("imagenet" if trained else "untrained", trained, "0" * 64)
    return ClassifierCard(tuple(names), (8,), 0.5, Transform(224), source)


def test_history_round_trips(tmp_path: Path) -> None:
    save_history(HISTORY, tmp_path / "history.csv")
    assert load_history(tmp_path / "history.csv") == HISTORY


@pytest.mark.parametrize("count", [2, 31, 200])
def test_every_figure_is_drawn_at_any_number_of_people(tmp_path: Path, count: int) -> None:
    names = [f"Person_{number} $x^2$" for number in range(count)]
    _write(tmp_path, names, absent=1)
    figures = draw_all(load_report(tmp_path / "history.csv", tmp_path), _card(names, trained=True))
    save_figures(figures, 40, tmp_path / "figures")
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    matrices = ["test_confusion_matrix.png", "test_roc.png", "val_confusion_matrix.png", "val_roc.png"]
    assert files == ["accuracy.png", "loss.png", *matrices]
    for file in files:
        with Image.open(tmp_path / "figures" / file) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10


def test_untrained_backbone_is_told_in_every_figure_and_in_the_metrics(tmp_path: Path) -> None:
    names = ["Ann", "Bo"]
    _write(tmp_path, names)
    report = load_report(tmp_path / "history.csv", tmp_path)
    for trained in (False, True):
        card = _card(names, trained=trained)
        titles = [figure.get_suptitle().replace("\n", " ") for figure in draw_all(report, card).values()]
        assert titles == [("" if trained else UNTRAINED_WARNING)] * 6
        save_metrics({"val": {"accuracy": 0.5}}, card.backbone, tmp_path / "metrics.json")
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert metrics == ({} if trained else {"backbone": "UNTRAINED"}) | {"val": {"accuracy": 0.5}}


def test_predictions_agree_with_the_metrics(tmp_path: Path) -> None:
    names = ["Ann", 'Bo, "the second"', "Cy"]
    _write(tmp_path, names)
    split = load_report(tmp_path / "history.csv", tmp_path).splits["val"]
    right = np.mean([actual == predicted for actual, predicted in zip(split.actual, split.predicted, strict=True)])
    random = np.random.default_rng(0)
    labels = np.arange(3).repeat(4)
    logits = random.normal(size=(12, 3)).astype(np.float32)
    logits[np.arange(12), labels] += 2
    assert right == pytest.approx(compute_metrics(logits, labels)["accuracy"])
    assert [curve.name for curve in split.mean_rocs] == ["macro", "micro"]
    assert [curve.name for curve in split.person_rocs] == names
