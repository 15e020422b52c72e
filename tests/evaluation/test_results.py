"""The files of a result are read as they were written, and are consistent with one another."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss

from celebflow.classifier.calibration import Calibration, bin_reliability, compute_calibration_error, softmax
from celebflow.classifier.history import load_history, save_history
from celebflow.errors import CelebflowError
from celebflow.evaluation.curves import trace_people
from celebflow.evaluation.metrics import compute_person_metrics
from celebflow.evaluation.results import (
    load_metrics,
    load_person_predictions,
    load_predictions,
    load_report,
    save_metrics,
    save_split_report,
)
from tests.results import HISTORY, draw_logits, list_photos, make_card, make_open_set, write_result

NAMES = ["Ann", 'Bo, "the second"', "Cy"]


def test_history_is_read_as_written(tmp_path: Path) -> None:
    save_history(HISTORY, tmp_path / "history.csv")
    assert load_history(tmp_path / "history.csv") == HISTORY


def test_history_of_an_earlier_version_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,train_loss\n1,0.5\n")
    with pytest.raises(CelebflowError, match=r"history\.csv.*train_accuracy.*older.*dvc repro"):
        load_history(tmp_path / "history.csv")


def test_a_report_of_an_earlier_version_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_result(tmp_path, make_card(NAMES), *draw_logits(3))
    for split in ("val", "test"):
        predictions = tmp_path / split / "predictions.csv"
        earlier = predictions.read_text().replace("confidence", "probability", 1)
        predictions.write_text(earlier)
    with pytest.raises(CelebflowError, match=r"predictions\.csv.*confidence.*older.*dvc repro"):
        load_predictions(predictions)
    with pytest.raises(CelebflowError, match=r"predictions\.csv.*confidence.*older.*dvc repro"):
        load_report(tmp_path / "history.csv", tmp_path / "all_metrics.json", tmp_path)


@pytest.mark.parametrize("name", ["val/open_set.csv", "test/people.csv", "val/intervals.json", "val/roc_people.csv"])
def test_a_report_that_lacks_a_file_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    write_result(tmp_path, make_card(NAMES), *draw_logits(3))
    (tmp_path / name).unlink()
    with pytest.raises(CelebflowError, match=rf"{name}.*dvc repro"):
        load_report(tmp_path / "history.csv", tmp_path / "all_metrics.json", tmp_path)


@pytest.mark.parametrize("name", ["all_metrics.json", "val/intervals.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"val": 1}', '{"val": {"accuracy": {}}}', "[" * 10**5, "\x80"])
def test_a_report_with_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, content: str) -> None:
    write_result(tmp_path, make_card(NAMES), *draw_logits(3))
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(CelebflowError, match=rf"{name} is damaged.*dvc repro"):
        load_report(tmp_path / "history.csv", tmp_path / "all_metrics.json", tmp_path)


@pytest.mark.parametrize("name", ["val/roc_people.csv", "test/precision_recall_macro.csv"])
@pytest.mark.parametrize("kept", ["nothing", "no last cell", "another header"])
def test_a_report_with_a_damaged_table_is_refused_by_name(tmp_path: Path, name: str, kept: str) -> None:
    write_result(tmp_path, make_card(NAMES), *draw_logits(3))
    text = (tmp_path / name).read_text()
    changed = {"nothing": "", "no last cell": text[: text.rindex(",") + 1], "another header": f"c{text}"}[kept]
    (tmp_path / name).write_text(changed)
    with pytest.raises(CelebflowError, match=rf"{Path(name).name}.*dvc repro"):
        load_report(tmp_path / "history.csv", tmp_path / "all_metrics.json", tmp_path)


def test_a_report_without_metrics_or_with_an_empty_table_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path, make_card(NAMES), *draw_logits(3))
    for name, text in (("all_metrics.json", "{}"), ("val/people.csv", "")):
        before = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text)
        with pytest.raises(CelebflowError, match=rf"{Path(name).name} is damaged.*dvc repro"):
            load_report(tmp_path / "history.csv", tmp_path / "all_metrics.json", tmp_path)
        (tmp_path / name).write_text(before)


def test_a_report_without_an_epoch_is_refused(tmp_path: Path) -> None:
    save_history([], tmp_path / "history.csv")
    with pytest.raises(CelebflowError, match=r"history\.csv has no epoch.*dvc repro"):
        load_history(tmp_path / "history.csv")


@pytest.mark.parametrize("trained", [False, True])
def test_metrics_warn_of_an_untrained_backbone(tmp_path: Path, trained: bool) -> None:
    metrics = {"val": {"accuracy": 0.5, "coverage": 0.75}}
    headline, everything = tmp_path / "metrics.json", tmp_path / "all_metrics.json"
    save_metrics(metrics, make_card(NAMES, trained=trained).backbone, headline, everything)
    warning = {} if trained else {"backbone": "UNTRAINED"}
    assert json.loads(headline.read_text()) == warning | {"val": {"accuracy": 0.5}}
    assert json.loads(everything.read_text()) == warning | metrics
    assert load_metrics(everything) == metrics


@pytest.mark.parametrize(("scale", "temperature"), [(np.inf, 1.0), (1e38, 0.01)])
def test_logits_that_are_not_finite_leave_no_result(tmp_path: Path, scale: float, temperature: float) -> None:
    logits, labels = draw_logits(3)
    logits[2] *= np.float32(scale)
    card = replace(make_card(NAMES), calibration=Calibration(temperature, 1.0, None, 0.05))
    with pytest.raises(CelebflowError, match="not finite"), np.errstate(over="ignore"):
        save_split_report(logits, labels, list_photos(card.class_names, labels, "val"), card, tmp_path / "val")
    assert list(tmp_path.iterdir()) == []


def test_files_agree_with_the_logits_and_with_one_another(tmp_path: Path) -> None:
    logits, labels = draw_logits(3)
    report, card = write_result(tmp_path, make_card(NAMES), logits, labels)
    assert report.history == HISTORY
    probabilities = card.calibration.compute_probabilities(logits)
    confidences = probabilities.max(axis=1)
    split, metrics = report.splits["val"], report.metrics["val"]
    assert metrics["accuracy"] == pytest.approx(np.mean([p.is_hit for p in split.predictions]), abs=1e-6)
    assert metrics["loss"] == pytest.approx(log_loss(labels, probabilities), abs=1e-6)
    assert metrics["uncalibrated_loss"] == pytest.approx(log_loss(labels, softmax(logits)), abs=1e-6)
    assert metrics["loss"] < metrics["uncalibrated_loss"]
    assert [p.confidence for p in split.predictions] == confidences.tolist(), "with all digits"
    of_actual = probabilities[np.arange(len(labels)), labels]
    assert [p.probability_of_actual for p in split.predictions] == of_actual.tolist()
    assert [p.predicted for p in split.predictions] == [NAMES[guess] for guess in logits.argmax(axis=1)]
    assert [p.actual for p in split.predictions] == [NAMES[label] for label in labels]
    open_set = make_open_set(logits.argmax(axis=1) == labels)
    assert metrics | open_set.metrics == metrics
    assert split.intervals | open_set.intervals == split.intervals
    assert split.open_set == open_set.curve
    matched = load_person_predictions(tmp_path / "val" / "predictions.csv")
    assert [each.unknown_p_value for each in matched] == open_set.p_values.tolist()
    rocs, precision_recalls = trace_people(probabilities, labels, NAMES)
    people = compute_person_metrics(logits.argmax(axis=1), labels, NAMES, rocs, precision_recalls)
    assert split.people == people
    assert split.reliability["calibrated"] == bin_reliability(probabilities, labels)
    assert split.reliability["uncalibrated"] == bin_reliability(softmax(logits), labels)
    calibration_error = compute_calibration_error(split.reliability["calibrated"])
    assert metrics["calibration_error"] == pytest.approx(calibration_error, abs=1e-6)
    for found, expected in ((split.rocs, rocs), (split.precision_recalls, precision_recalls)):
        assert [curve.name for curve in found.means] == ["macro", "micro"]
        assert [curve.name for curve in found.people] == NAMES
        for curve, original in zip(found.people + found.means, expected.people + expected.means, strict=True):
            np.testing.assert_allclose(curve.x, original.x, atol=1e-6)
            np.testing.assert_allclose(curve.y, original.y, atol=1e-6)
            assert curve.area == pytest.approx(original.area, abs=1e-6)
    assert split.rocs.means[0].area == pytest.approx(metrics["macro_auc"], abs=1e-6)
    assert set(split.intervals) == {"accuracy", "balanced_accuracy", "macro_auc", *open_set.intervals}
    for name, interval in split.intervals.items():
        assert interval.low <= metrics[name] <= interval.high


def test_errors_and_hits_are_ordered_by_confidence(tmp_path: Path) -> None:
    report, _ = write_result(tmp_path, make_card(NAMES), *draw_logits(3))
    split = report.splits["val"]
    errors, hits = split.errors(), split.hits()
    assert errors and len(errors) + len(hits) == len(split.predictions)
    assert not any(error.is_hit for error in errors) and all(hit.is_hit for hit in hits)
    assert [error.confidence for error in errors] == sorted((e.confidence for e in errors), reverse=True)
    assert [hit.confidence for hit in hits] == sorted(hit.confidence for hit in hits)


def test_a_person_absent_from_a_split_is_read_as_written(tmp_path: Path) -> None:
    report, _ = write_result(tmp_path, make_card(NAMES), *draw_logits(3, absent=1))
    absent = report.splits["val"].people[1]
    assert (absent.support, absent.recall, absent.recall_low, absent.auc) == (0, None, None, None)
    assert [curve.name for curve in report.splits["val"].rocs.people] == ["Ann", "Cy"]


def test_a_classifier_of_two_people_has_no_open_set_rates(tmp_path: Path) -> None:
    card, (logits, labels) = make_card(NAMES[:2]), draw_logits(2)
    photos = list_photos(card.class_names, labels, "val")
    metrics = save_split_report(logits, labels, photos, card, tmp_path / "val")
    assert metrics["coverage"] == 1.0
    assert "false_acceptance_rate" not in metrics
    assert load_person_predictions(tmp_path / "val" / "predictions.csv")[0].unknown_p_value is None
