"""The files of a result come back as they were, and agree with one another."""

import json
from pathlib import Path

import numpy as np
import pytest

from celebflow.classifier.calibration import bin_reliability, compute_calibration_error, softmax
from celebflow.classifier.history import load_history, save_history
from celebflow.errors import CelebflowError
from celebflow.evaluation.metrics import compute_metrics, compute_person_metrics
from celebflow.evaluation.results import save_metrics
from tests.results import HISTORY, draw_logits, make_card, write_result

NAMES = ["Ann", 'Bo, "the second"', "Cy"]


def test_history_round_trips(tmp_path: Path) -> None:
    save_history(HISTORY, tmp_path / "history.csv")
    assert load_history(tmp_path / "history.csv") == HISTORY


def test_what_an_older_celebflow_wrote_is_told(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,train_loss\n1,0.5\n")
    with pytest.raises(CelebflowError, match=r"history\.csv lacks the column '\w+': an older celebflow wrote it"):
        load_history(tmp_path / "history.csv")


@pytest.mark.parametrize("trained", [False, True])
def test_metrics_tell_of_an_untrained_backbone(tmp_path: Path, trained: bool) -> None:
    save_metrics({"val": {"accuracy": 0.5}}, make_card(NAMES, trained=trained).backbone, tmp_path / "metrics.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == ({} if trained else {"backbone": "UNTRAINED"}) | {"val": {"accuracy": 0.5}}


def test_files_agree_with_the_logits_and_with_one_another(tmp_path: Path) -> None:
    logits, labels = draw_logits(3)
    report, card = write_result(tmp_path, make_card(NAMES), logits, labels)
    assert report.history == HISTORY
    calibrated = logits / card.calibration.temperature
    probabilities = softmax(calibrated)
    split, metrics = report.splits["val"], report.metrics["val"]
    assert metrics["accuracy"] == pytest.approx(np.mean([p.is_hit for p in split.predictions]), abs=1e-6)
    assert metrics["loss"] == pytest.approx(compute_metrics(calibrated, labels)["loss"], abs=1e-6)
    assert metrics["uncalibrated_loss"] == pytest.approx(compute_metrics(logits, labels)["loss"], abs=1e-6)
    assert metrics["loss"] < metrics["uncalibrated_loss"]
    assert [p.probability for p in split.predictions] == pytest.approx(probabilities.max(axis=1), abs=1e-6)
    picked = probabilities[np.arange(len(labels)), labels]
    assert [p.probability_of_actual for p in split.predictions] == pytest.approx(picked, abs=1e-6)
    threshold = card.calibration.threshold
    assert metrics["accepted"] == pytest.approx((probabilities.max(axis=1) >= threshold).mean(), abs=1e-6)
    assert split.people == compute_person_metrics(calibrated, labels, NAMES)
    assert split.reliability["calibrated"] == bin_reliability(probabilities, labels)
    assert split.reliability["uncalibrated"] == bin_reliability(softmax(logits), labels)
    found = compute_calibration_error(split.reliability["calibrated"])
    assert metrics["calibration_error"] == pytest.approx(found, abs=1e-6)
    for curves in (split.mean_rocs, split.mean_precision_recalls):
        assert [curve.name for curve in curves] == ["macro", "micro"]
    for curves in (split.person_rocs, split.person_precision_recalls):
        assert [curve.name for curve in curves] == NAMES
    assert split.mean_rocs[0].area == pytest.approx(metrics["macro_auc"], abs=1e-6)
    for name, interval in split.intervals.items():
        assert interval.low <= metrics[name] <= interval.high


def test_what_a_split_lacks_comes_back_as_lacking(tmp_path: Path) -> None:
    report, _ = write_result(tmp_path, make_card(NAMES), *draw_logits(3, absent=1))
    absent = report.splits["val"].people[1]
    assert (absent.support, absent.recall, absent.recall_low, absent.auc) == (0, None, None, None)
    assert [curve.name for curve in report.splits["val"].person_rocs] == ["Ann", "Cy"]


def test_with_two_people_there_are_no_strangers_to_show(tmp_path: Path) -> None:
    report, _ = write_result(tmp_path, make_card(NAMES[:2]), *draw_logits(2))
    assert report.splits["val"].acceptance == []
    assert report.metrics["val"]["accepted"] == 1.0
