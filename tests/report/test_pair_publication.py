"""The page and figures of verification show any result, that of two people and that without an error included."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.cards import ComparisonSettings, VerifierCard
from celebflow.classifier.history import EpochResult, save_history
from celebflow.classifier.pair_calibration import PairCalibration
from celebflow.data.pairs import draw_pairs
from celebflow.data.photos import Photo
from celebflow.evaluation.advice import Advice
from celebflow.evaluation.pair_metrics import trace_rates
from celebflow.evaluation.pair_results import (
    DIFFERENT,
    SAME,
    PairPrediction,
    PairReport,
    load_verification_report,
    save_pair_report,
)
from celebflow.evaluation.results import REPORTED_SPLITS, save_metrics
from celebflow.features.transform import Transform
from celebflow.params import PreprocessingParams
from celebflow.report.pair_figures import draw_det, draw_match_roc, draw_pair_charts, draw_scores, draw_sheets
from celebflow.report.pair_publication import VerificationPage
from tests.conftest import draw_features

CARD = VerifierCard(
    "plda",
    ComparisonSettings(10, 0.1, 0.5, 0),
    5,
    Transform(224),
    BackboneSource("imagenet", True, "0" * 64),
    PreprocessingParams(pca_components=10),
    PairCalibration(1.0, 0.0, 1.0, 0.125, 0.25),
)


def _make_page(folder: Path, people_count: int, distance: float) -> VerificationPage:
    """Make a result of people in val and in test; log odds of the same person are `distance` above 0 on average."""
    metrics = {}
    photos: list[Photo] = []
    for number, split in enumerate(REPORTED_SPLITS):
        names = [f"{split}_{person}" for person in range(people_count)]
        own = [Photo(f"{name}/{row}.jpg", name, split, "", f"{name} {row}") for name in names for row in range(3)]
        pairs = draw_pairs(own, split, 0, 6000)
        same = np.array([bool(pair.same) for pair in pairs])
        log_odds = np.random.default_rng(number).normal(size=len(pairs)) + np.where(same, distance, -distance)
        features = replace(draw_features(3), photos=own)
        metrics[split] = save_pair_report(log_odds, pairs, features, folder / split)
        photos += own
    save_metrics(metrics, CARD.backbone, folder / "metrics.json", folder / "all_metrics.json")
    save_history([EpochResult(1, 0.5, 0.75, 0.6, 0.7)], folder / "history.csv")
    report = load_verification_report(folder / "history.csv", folder / "all_metrics.json", folder)
    return VerificationPage(report, CARD, photos, {"task": "verification"}, {}, [])


@pytest.mark.parametrize("people_count", [2, 5, 31])
@pytest.mark.parametrize("distance", [1.0, 60.0], ids=["errors", "no error"])
def test_page_and_figures_show_any_result(tmp_path: Path, people_count: int, distance: float) -> None:
    page = _make_page(tmp_path, people_count, distance)
    html = page.render()
    assert f"{2 * people_count} people" in html
    assert (f"Val has only {people_count} people" in html) == (people_count < 20)
    assert ('<dl class="headline">' in html) == (people_count > 2), "two people give no intervals"
    figures = draw_pair_charts(page.report, "")
    assert {f"{split}_{name}" for split in REPORTED_SPLITS for name in ("scores", "match_roc", "det")} <= set(figures)
    sheets = draw_sheets(page.report, lambda path: np.zeros((8, 8, 3), np.uint8), "")
    assert bool(sheets) == (distance < 60)
    texts = [text.get_text() for text in figures["test_recall_by_person"].findobj(Text)]
    assert any("number of pairs" in text for text in texts), "not of photographs"
    for figure in (figures | sheets).values():
        figure.canvas.draw()


def test_advice_stands_above_the_figures(tmp_path: Path) -> None:
    page = _make_page(tmp_path, 5, 1.0)
    assert "What to do next" not in page.render()
    html = replace(page, advice=[Advice("<b>Ada</b> is not recognized.", "Look at `data`.")]).render()
    assert "<li>&lt;b&gt;Ada&lt;/b&gt; is not recognized. Look at <code>data</code>.</li>" in html


@pytest.mark.parametrize("log_odds", [[1.0, -1.0], [0.25] * 1000, [*[0.25] * 999, 5.0]])
def test_figures_show_one_pair_of_each_kind_and_scores_that_are_alike(log_odds: list[float]) -> None:
    predictions = [
        PairPrediction("a/1\tb/1", "a", (SAME, DIFFERENT)[number % 2], SAME, 0.5, 0.5, "a/1", "b/1", score)
        for number, score in enumerate(log_odds)
    ]
    pairs = PairReport(predictions, [], {}, [])
    rates = trace_rates(pairs.log_odds, pairs.same)
    for figure in (draw_scores(pairs, "val", ""), draw_match_roc(rates, "val", ""), draw_det(rates, "val", "")):
        figure.canvas.draw()
        low, high = figure.axes[0].get_xlim()
        assert low < high and np.isfinite(figure.axes[0].dataLim.get_points()).all()
