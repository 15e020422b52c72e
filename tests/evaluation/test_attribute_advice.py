"""Advice is given on results of attributes that have a fault, with its number, and on no others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from celebflow.classifier.history import EpochResult
from celebflow.evaluation.attribute_advice import advise_on_attributes
from celebflow.evaluation.attribute_answers import AttributeAnswers, resample_metrics
from celebflow.evaluation.attribute_groups import compute_group_accuracies
from celebflow.evaluation.attribute_metrics import compute_attribute_metrics
from celebflow.evaluation.attribute_results import AttributeReport, AttributeSplitReport
from celebflow.evaluation.significance import Interval

NAMES = ("Smiling", "Male", "Eyeglasses")
RIDGE = {"train.classifier": "ridge"}
COUNT = 400


def _report(
    *,
    guessed: Sequence[str] = (),
    yes_counts: Mapping[str, int] | None = None,
    weak_without: str = "",
    train_accuracy: float = 0.93,
) -> AttributeReport:
    """Return a result: probabilities tell yes from no for every attribute that is not guessed.

    Smiling is guessed where `weak_without` is no.
    """
    random = np.random.default_rng(0)
    labels = np.stack([random.permutation(np.arange(COUNT) < COUNT // 2) for _ in NAMES], axis=1).astype(np.int8)
    for name, count in (yes_counts or {}).items():
        labels[:, NAMES.index(name)] = np.arange(COUNT) < count
    scores = np.where(labels, 2.0, -2.0) + random.normal(size=labels.shape)
    for name in guessed:
        scores[:, NAMES.index(name)] = random.normal(size=COUNT)
    if weak_without:
        weak = labels[:, NAMES.index(weak_without)] == 0
        scores[weak, 0] = random.normal(size=weak.sum())
    answers = AttributeAnswers(NAMES, 1 / (1 + np.exp(-scores)), labels, np.full(3, 0.5), np.arange(COUNT))
    metrics = compute_attribute_metrics(answers, np.full(3, True), resample_metrics(answers, 0))
    accuracy = float(np.mean([each.accuracy for each in metrics if each.accuracy is not None]))
    intervals = {"accuracy": Interval(accuracy - 0.01, accuracy + 0.01)}
    split = AttributeSplitReport([], [], metrics, compute_group_accuracies(answers), intervals, [])
    return AttributeReport([EpochResult(1, 0.1, train_accuracy, 0.2, accuracy)], {}, {"val": split})


def _advise(report: AttributeReport, params: Mapping[str, object] = RIDGE) -> list[str]:
    return [str(each) for each in advise_on_attributes(report, params)]


def test_a_good_result_gets_no_advice() -> None:
    assert _advise(_report()) == []
    assert _advise(_report(), {"train.classifier": "mlp"}) == []


@pytest.mark.parametrize("classifier", ["mlp", "linear"])
def test_a_network_that_overfits_is_told_what_to_try(classifier: str) -> None:
    found, _ = _advise(_report(train_accuracy=1.0, guessed=["Male"]), {"train.classifier": classifier})
    assert "overfits: it is right on 100.0% of the labels of train" in found
    assert "`dvc exp run $(celebflow recipe attributes)`" in found


@pytest.mark.parametrize("classifier", ["ridge", "logistic"])
def test_regressions_may_fit_train_closely(classifier: str) -> None:
    (found,) = _advise(_report(train_accuracy=1.0, guessed=["Male"]), {"train.classifier": classifier})
    assert "by guessing" in found


def test_a_val_that_may_be_as_good_as_train_is_no_overfitting() -> None:
    report = _report(train_accuracy=1.0, guessed=["Male"])
    wide = replace(report.splits["val"], intervals={"accuracy": Interval(0.6, 0.99)})
    (found,) = _advise(replace(report, splits={"val": wide}), {"train.classifier": "mlp"})
    assert "by guessing" in found
    val_accuracy = report.history[-1].val_accuracy
    near = replace(report, history=[EpochResult(1, 0.1, val_accuracy + 0.04, 0.2, val_accuracy)])
    (found,) = _advise(near, {"train.classifier": "mlp"})
    assert "by guessing" in found


def test_attributes_that_are_guessed_are_named() -> None:
    (found,) = _advise(_report(guessed=["Male"], train_accuracy=0.8))
    assert "1 of 3 attributes are not told better than by guessing: Male" in found and "celebflow suspects" in found


def test_attributes_whose_rarer_answer_val_hardly_has_are_named() -> None:
    (found,) = _advise(_report(yes_counts={"Eyeglasses": 4, "Male": COUNT - 7}))
    assert "2 of 3 attributes" in found and "Eyeglasses (4 yes, 396 no) and Male (393 yes, 7 no)" in found
    assert _advise(_report(yes_counts={"Eyeglasses": 10})) == []
    (found,) = _advise(_report(yes_counts={"Eyeglasses": 4}, guessed=["Eyeglasses"], train_accuracy=0.8))
    assert "say little" in found, "so few may look like guesses"


def test_an_attribute_that_works_for_some_only_is_named() -> None:
    (found,) = _advise(_report(weak_without="Male"))
    assert "Smiling works less where Male is no" in found and "where it is yes" in found
    assert "in which Male is no" in found
