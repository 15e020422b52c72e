"""The files of a result of attributes hold what was measured, and blanks have no answer."""

from pathlib import Path

import numpy as np
import pytest

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.attribute_calibration import AttributeCalibration
from celebflow.classifier.cards import AttributeCard
from celebflow.classifier.history import EpochResult, save_history
from celebflow.data.attributes import BLANK, NO, YES
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.evaluation.attribute_answers import AttributeAnswers, resample_metrics
from celebflow.evaluation.attribute_metrics import compute_mean_intervals
from celebflow.evaluation.attribute_results import load_attribute_report, save_attribute_report
from celebflow.evaluation.metrics import compute_wilson_interval
from celebflow.evaluation.results import save_metrics
from celebflow.evaluation.significance import BOOTSTRAP_SEED
from celebflow.features.transform import Transform

NAMES = ("Smiling", "Never, or $x$")
SOURCE = BackboneSource("imagenet", True, "0" * 64)
CALIBRATION = AttributeCalibration((1.0, 1.0), (0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.2, 0.2), "balanced_accuracy")
CARD = AttributeCard(NAMES, (), 0.5, Transform(224), SOURCE, calibration=CALIBRATION, yes_fractions=(0.6, 0.0))
COUNT = 40


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Write the files of a result: val and test have forty photographs of twenty people, some without a name."""
    metrics = {}
    for seed, split in enumerate(("val", "test")):
        logits, labels, photos = _draw(seed)
        metrics[split] = save_attribute_report(logits, labels, photos, CARD, tmp_path / split)
    save_metrics(metrics, SOURCE, tmp_path / "metrics.json", tmp_path / "all_metrics.json")
    save_history([EpochResult(1, 0.5, 0.5, 0.5, 0.5)], tmp_path / "history.csv")
    return tmp_path


def _draw(seed: int) -> tuple[np.ndarray, np.ndarray, list[Photo]]:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(COUNT, 2))
    labels = np.stack([np.where(random.random(COUNT) < 0.6, YES, NO), np.full(COUNT, NO)], axis=1)
    labels[random.random(labels.shape) < 0.2] = BLANK
    photos = [
        Photo(f"{number}.jpg", f"Person {number // 2}" if number < 30 else "", "val", f"{number}", f"{number // 2}")
        for number in range(COUNT)
    ]
    return logits, labels, photos


def test_a_result_is_read_as_it_was_measured(reports: Path) -> None:
    report = load_attribute_report(reports / "history.csv", reports / "all_metrics.json", reports)
    for seed, split in enumerate(("val", "test")):
        logits, labels, photos = _draw(seed)
        known = (labels != BLANK).any(axis=1)
        answers = report.splits[split].answers
        assert report.splits[split].photographs == [photo.path for photo in np.array(photos)[known]]
        np.testing.assert_array_equal(answers.labels, labels[known])
        probabilities = 1 / (1 + np.exp(-logits[known]))
        has_label = labels[known] != BLANK
        np.testing.assert_allclose(answers.probabilities[has_label], probabilities[has_label])
        np.testing.assert_array_equal(answers.thresholds, [0.2, 0.2])
        groups = [photo.person or photo.group for photo in np.array(photos)[known]]
        assert len(np.unique(answers.groups)) == len(set(groups))
        hits = (probabilities >= 0.2) == (labels[known] == YES)
        accuracies = [hits[has_label[:, column], column].mean() for column in range(2)]
        assert report.metrics[split]["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-6)
        assert [each.accuracy for each in report.splits[split].attributes] == pytest.approx(accuracies)
        assert report.splits[split].attributes[1].auc is None, "it is never yes"
        at_half = ((probabilities >= 0.5) == (labels[known] == YES))[has_label[:, 0], 0].mean()
        of_never = (probabilities < 0.5)[has_label[:, 1], 1].mean()
        kind = "accuracy_at_its_thresholds"
        assert report.metrics[split][kind] == pytest.approx((at_half + of_never) / 2, abs=1e-6)


def test_predictions_are_those_of_known_labels(reports: Path) -> None:
    report = load_attribute_report(reports / "history.csv", reports / "all_metrics.json", reports)
    logits, labels, photos = _draw(0)
    predictions = report.splits["val"].predictions
    assert len(predictions) == (labels != BLANK).sum()
    for each in predictions:
        row, column = int(each.photographs[0].removesuffix(".jpg")), NAMES.index(each.attribute)
        probability = 1 / (1 + np.exp(-logits[row, column]))
        assert each.task == "attributes" and each.group == (photos[row].person or photos[row].group)
        assert each.actual == ("yes" if labels[row, column] == YES else "no")
        assert each.predicted == ("yes" if probability >= 0.2 else "no")
        assert each.probability == pytest.approx(probability)
        assert each.confidence == pytest.approx(probability if each.predicted == "yes" else 1 - probability)
        assert each.probability_of_actual == pytest.approx(probability if each.actual == "yes" else 1 - probability)
        odds = probability / (1 - probability) / (0.2 / 0.8)
        assert bool(each.uncertain) == (3 / 7 < odds < 7 / 3)
    errors = report.splits["val"].list_errors("Smiling")
    assert errors and all(not each.is_hit and each.attribute == "Smiling" for each in errors)
    confidences = [each.probability_of_actual for each in errors]
    assert confidences == sorted(confidences)


def test_what_stands_beside_the_attributes_is_of_known_labels_and_of_train(reports: Path) -> None:
    report = load_attribute_report(reports / "history.csv", reports / "all_metrics.json", reports)
    split, metrics = report.splits["val"], report.metrics["val"]
    logits, labels, photos = _draw(0)
    probabilities, known, yes = 1 / (1 + np.exp(-logits)), labels != BLANK, labels == YES
    positive = probabilities >= 0.2
    trivial = [(yes[known[:, 0], 0]).mean(), (~yes[known[:, 1], 1]).mean()]  # as yes_fractions of train say
    assert [each.trivial_accuracy for each in split.attributes] == pytest.approx(trivial)
    odds = probabilities / (1 - probabilities) / (0.2 / 0.8)
    certain = known & ((odds < 3 / 7) | (odds > 7 / 3))
    assert metrics["certain_fraction"] == pytest.approx(certain.sum() / known.sum(), abs=1e-6)
    assert metrics["certain_accuracy"] == pytest.approx((positive == yes)[certain].mean(), abs=1e-6)
    confidences, hits = np.maximum(probabilities, 1 - probabilities)[known], ((probabilities >= 0.5) == yes)[known]
    assert sum(each.count for each in split.reliability) == known.sum()
    for each in split.reliability:
        inside = (confidences >= each.low) & (confidences < each.high)
        assert each.accuracy == pytest.approx(hits[inside].mean())
    smiling, never = split.people
    found, said, support = (positive & yes)[:, 0].sum(), (positive & known)[:, 0].sum(), yes[:, 0].sum()
    assert (smiling.person, smiling.support, never.recall) == ("Smiling", support, None)
    assert (smiling.recall, smiling.precision) == pytest.approx((found / support, found / said))
    assert (smiling.recall_low, smiling.recall_high) == pytest.approx(compute_wilson_interval(int(found), int(support)))
    groups = np.unique([photo.person or photo.group for photo in photos], return_inverse=True)[1]
    answers = AttributeAnswers(NAMES, probabilities, labels.astype(np.int8), np.array([0.2, 0.2]), groups)
    intervals = compute_mean_intervals(resample_metrics(answers, BOOTSTRAP_SEED), 20)
    for name, interval in intervals.items():
        own = split.intervals[name]
        assert (own.low, own.high) == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_predictions_of_other_attributes_are_an_error(reports: Path) -> None:
    table = reports / "val" / "attributes.csv"
    table.write_text(table.read_text().replace("Smiling", "Smile"))
    with pytest.raises(CelebflowError, match=r"attributes\.csv has no row of Smiling.*dvc repro"):
        load_attribute_report(reports / "history.csv", reports / "all_metrics.json", reports)


def test_a_result_without_a_file_is_not_whole(reports: Path) -> None:
    (reports / "test" / "groups.csv").unlink()
    with pytest.raises(CelebflowError, match=r"groups\.csv.*dvc repro"):
        load_attribute_report(reports / "history.csv", reports / "all_metrics.json", reports)
