"""Generated results, and a check of figures, that tests share."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.calibration import UNCALIBRATED, Calibration, fit_probabilities
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.history import EpochResult, save_history
from celebflow.data.photos import Photo
from celebflow.evaluation.open_set import OpenSetRates, OpenSetResult
from celebflow.evaluation.results import Report, load_report, save_metrics, save_split_report
from celebflow.evaluation.significance import Interval
from celebflow.features.transform import Transform

HISTORY = [EpochResult(1, 2.0, 0.25, 1.5, 0.5), EpochResult(2, 1.0, 0.75, 1.25, 0.625)]


def make_card(names: list[str], *, trained: bool = True) -> ClassifierCard:
    """Return the card of a classifier that is not calibrated, on a backbone that is trained or not."""
    source = BackboneSource("imagenet" if trained else "untrained", trained, "0" * 64)
    return ClassifierCard(tuple(names), (8,), 0.5, Transform(224), source, calibration=UNCALIBRATED)


def draw_logits(
    count: int, photographs: int = 4, absent: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw logits and labels for some photographs of each of `count` people, without those of person `absent`."""
    random = np.random.default_rng(0)
    labels = np.arange(count).repeat(photographs)
    labels = labels[labels != absent]
    logits = random.normal(size=(len(labels), count)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 2
    return logits, labels


def write_result(
    folder: Path, card: ClassifierCard, logits: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[Report, ClassifierCard]:
    """Report the same logits for val and test; return the report and the card, calibrated on them."""
    card = replace(card, calibration=calibrate(logits, labels))
    metrics = {}
    for split in ("val", "test"):
        photos = list_photos(card.class_names, labels, split)
        open_set = make_open_set(logits.argmax(axis=1) == labels) if logits.shape[1] > 2 else None
        metrics[split] = save_split_report(logits, labels, photos, card, folder / split, open_set)
    save_history(HISTORY, folder / "history.csv")
    save_metrics(metrics, card.backbone, folder / "metrics.json", folder / "all_metrics.json")
    return load_report(folder / "history.csv", folder / "all_metrics.json", folder), card


def calibrate(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Calibration:
    """Return a calibration to these logits, with a threshold."""
    return replace(fit_probabilities(logits, labels), threshold=0.5, false_acceptance_rate=0.05)


def make_open_set(hits: NDArray[np.bool_]) -> OpenSetResult:
    """Return what the open-set measurement of photographs might say, of which three quarters are known."""
    p_values = np.where(np.arange(len(hits)) % 4 == 3, 0.5, 0.01)
    curve = [OpenSetRates(0.01, 0.75, 0.7), OpenSetRates(0.5, 1.0, 0.9), OpenSetRates(1.0, 1.0, 0.9)]
    metrics = {"coverage": 0.75, "false_acceptance_rate": 0.045, "coverage_at_far_1_percent": 0.75}
    intervals = {name: Interval(value - 0.01, value + 0.01) for name, value in metrics.items()}
    return OpenSetResult(metrics, intervals, curve, p_values)


def list_photos(names: tuple[str, ...], labels: NDArray[np.int64], split: str) -> list[Photo]:
    """Return a photograph for each label, in a group of its own."""
    photos = []
    for row, label in enumerate(labels):
        path = f"{names[label]}/{split}_{row}.png"
        photos.append(Photo(path, names[label], split, path, path))
    return photos


def find_overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of texts in a figure that overlap; a text that exceeds the figure is paired with ""."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    hidden = {text for axes in figure.axes for text in _list_hidden_texts(axes)}
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in hidden]
    boxes = np.array([text.get_window_extent(renderer).extents for text in texts])  # (T, 4)
    low = np.minimum(boxes[:, :2], boxes[:, 2:]) + 1
    high = np.maximum(boxes[:, :2], boxes[:, 2:]) - 1
    names = [text.get_text() for text in texts]
    common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # (T, T, 2)
    pairs = np.argwhere(np.triu((common > 0).all(axis=2), 1))
    outside = ((low < 0) | (high > canvas.get_width_height())).any(axis=1)
    return [(names[a], names[b]) for a, b in pairs] + [(names[a], "") for a in np.flatnonzero(outside)]


def _list_hidden_texts(axes: Axes) -> Iterator[Text]:
    """Yield what matplotlib does not draw: labels of ticks beyond the ends of an axis, and of axes that are off."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            inside = axes.axison and low <= tick.get_loc() <= high
            yield from (label for label in (tick.label1, tick.label2) if not (inside and label.get_visible()))
