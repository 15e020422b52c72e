"""Advice is given on results that have a fault, with its number and a command, and on no others."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from celebflow.classifier.history import EpochResult
from celebflow.data.photos import Photo
from celebflow.evaluation.advice import Measured, advise, is_overfit_network
from celebflow.evaluation.curves import Curves
from celebflow.evaluation.evidence import Evidence, summarize_evidence
from celebflow.evaluation.learning_curve import Forecast
from celebflow.evaluation.metrics import PersonMetrics
from celebflow.evaluation.results import Prediction, Report, SplitReport
from celebflow.evaluation.significance import Interval
from celebflow.evaluation.suspects import Suspect

PEOPLE = [f"Person {number}" for number in range(10)]
NETWORK = {"train.classifier": "mlp", "train.class_weights": "none", "extract.face.crop": "none"}
DISCRIMINANTS = {"train.classifier": "lda", "train.class_weights": "none", "extract.face.crop": "detect"}
NO_CURVES = Curves([], [])


def _report(
    recalls: Sequence[float] = (0.95,) * 10,
    *,
    per_person: int = 40,
    train_accuracy: float = 0.99,
    confused: Mapping[int, int] | None = None,
    half_width: float = 0.02,
) -> Report:
    """Return a result with these recalls on val; errors go to all others in turn, or to those in `confused`."""
    predictions, people = [], []
    for number, (name, recall) in enumerate(zip(PEOPLE, recalls, strict=True)):
        hits = round(recall * per_person)
        others = [other for other in PEOPLE if other != name]
        for photograph in range(per_person):
            predicted = name if photograph < hits else others[(photograph + number) % len(others)]
            if photograph >= hits and confused and number in confused:
                predicted = PEOPLE[confused[number]]
            path = f"{name}/{photograph}.jpg"
            predictions.append(Prediction(path, path, name, predicted, 0.9, 0.5))
        people.append(PersonMetrics(name, per_person, None, hits / per_person, None, None, None, None, None))
    accuracy = float(np.mean([each.is_hit for each in predictions]))
    intervals = {"accuracy": Interval(accuracy - half_width, accuracy + half_width)}
    split = SplitReport(predictions, people, intervals, NO_CURVES, NO_CURVES, {}, [])
    history = [EpochResult(1, 1.0, train_accuracy, 1.0, accuracy)]
    return Report(history, {"val": {"accuracy": accuracy}, "test": {"accuracy": 0.0}}, {"val": split})


def _photos(counts: Sequence[int] = (50,) * 10) -> list[Photo]:
    return [
        Photo(f"{name}/train_{number}.jpg", name, "train", "", "")
        for name, count in zip(PEOPLE, counts, strict=True)
        for number in range(count)
    ]


def _advise(
    report: Report,
    params: Mapping[str, object] = DISCRIMINANTS,
    measured: Measured | None = None,
    counts: Sequence[int] = (50,) * 10,
) -> list[str]:
    return [str(each) for each in advise(report, _photos(counts), params, measured)]


@pytest.mark.parametrize("params", [NETWORK, DISCRIMINANTS], ids=["network", "discriminants"])
def test_a_good_result_gets_no_advice(params: Mapping[str, object]) -> None:
    forecast = Forecast(100, 0.97, Interval(0.95, 0.98), 0.002, Interval(-0.001, 0.004))
    evidence = summarize_evidence([_evidence(right_without_face=number < 2) for number in range(40)], 10)
    measured = Measured(0.9, [_suspect(0.3)], 500, 0.95, forecast, {"Person 1": 0.1}, evidence)
    assert _advise(_report(), params) == _advise(_report(), params, measured) == []


def test_a_network_that_overfits_is_compared_with_discriminants() -> None:
    report = _report((0.6,) * 10, half_width=0.04)
    assert is_overfit_network(report, "mlp") and not is_overfit_network(report, "lda")
    [advice] = _advise(report, NETWORK)
    assert "99.0% of train" in advice and "60.0% of val" in advice and "celebflow recipe fast" in advice
    [advice] = _advise(report, NETWORK, Measured(alternative_accuracy=0.815))
    assert "81.5% of val (+21.5 points)" in advice
    [advice] = _advise(report, NETWORK, Measured(alternative_accuracy=0.58))
    assert "celebflow recipe fast" not in advice and "add photographs" in advice
    [advice] = _advise(report, DISCRIMINANTS)
    assert "celebflow search train.lda_shrinkage" in advice
    uncertain = _report((0.875,) * 10, half_width=0.1)
    assert not any("overfits" in each for each in _advise(uncertain, NETWORK)), "val may reach the accuracy of train"


def test_two_people_who_are_taken_for_each_other_are_named() -> None:
    recalls = (0.9,) * 2 + (0.95,) * 8
    [advice] = _advise(_report(recalls, confused={0: 1, 1: 0}))
    assert "Person 0 and Person 1" in advice and "8 of their 80 photographs" in advice
    assert _advise(_report(recalls)) == [], "the same errors, spread over everybody"


def test_few_photographs_are_named_where_they_cost_recall() -> None:
    counts = (8, 9, 10, 11, 40, 50, 60, 70, 80, 90)
    lower = (0.6, 0.65, 0.7, 0.75) + (0.95,) * 6
    report = _report(lower, train_accuracy=0.9)
    [advice] = _advise(report, counts=counts)
    assert "fewer than 45 in train" in advice and "Person 0, Person 1 and Person 2" in advice
    assert "class_weights" not in advice
    [advice] = _advise(report, NETWORK, counts=counts)
    assert "train.class_weights=balanced" in advice
    assert _advise(report) == [], "everybody has as many"
    assert _advise(_report((0.95,) * 10), counts=counts) == [], "few are enough"
    alike = (46, 47, 48, 49, 50, 51, 52, 53, 54, 55)
    assert _advise(report, counts=alike) == [], "nobody has few"
    mixed = _report((0.95, 0.4, 0.95, 0.95, 0.4, 0.95, 0.95, 0.95, 0.95, 0.6), train_accuracy=0.9)
    assert _advise(mixed, counts=counts) == [], "recall may have risen with photographs by chance"


def test_a_small_val_is_said_with_its_uncertainty() -> None:
    [advice] = _advise(_report(per_person=4, recalls=(1.0,) * 10, half_width=0.08))
    assert "40 photographs" in advice and "±8 points" in advice and "celebflow crossvalidate" in advice


def test_what_was_measured_on_request_becomes_advice() -> None:
    forecast = Forecast(100, 0.97, Interval(0.95, 0.98), 0.012, Interval(0.003, 0.021))
    gains = {"Person 1": 0.1, "Person 2": 0.3, "Person 3": 0.0}
    evidence = summarize_evidence([_evidence(right_without_face=number % 2 == 0) for number in range(40)], 10)
    measured = Measured(None, [_suspect(0.9), _suspect(0.3)], 500, 0.95, forecast, gains, evidence)
    hidden, suspects, growth = _advise(_report(), NETWORK, measured)
    assert "With the face hidden" in hidden and "50% of 40" in hidden and "extract.face.crop=detect" in hidden
    assert "2 of 500 labels" in suspects and "Ann/1.jpg looks like Bo" in suspects and "celebflow review" in suspects
    assert "1.2 points (0.3 to 2.1)" in growth and "Person 2 and Person 1, who gained most" in growth
    unsure = Measured(None, [_suspect(0.9)], 500, 0.7)
    assert _advise(_report(), NETWORK, unsure) == [], "a classifier that is often wrong suspects right labels"
    [hidden] = _advise(_report(), DISCRIMINANTS, Measured(evidence=evidence))
    assert "extract.face.margin=0" in hidden


def test_there_are_at_most_five_sentences() -> None:
    forecast = Forecast(100, 0.97, Interval(0.95, 0.98), 0.012, Interval(0.003, 0.021))
    evidence = summarize_evidence([_evidence(right_without_face=True) for _ in range(40)], 10)
    report = _report((0.5, 0.5, 0.6) + (0.8,) * 7, confused={0: 1, 1: 0}, half_width=0.06)
    measured = Measured(0.9, [_suspect(0.9)], 500, 0.95, forecast, {}, evidence)
    advice = _advise(report, NETWORK, measured, counts=(8, 9, 10, *(90,) * 7))
    assert len(advice) == 5 and "overfits" in advice[0]


def _suspect(probability: float) -> Suspect:
    return Suspect("Ann/1.jpg", "train", "0" * 64, "Ann", "Bo", 0.05, probability)


def _evidence(*, right_without_face: bool) -> Evidence:
    return Evidence("Ann/1.jpg", "Ann", "Ann", 0.5, 0.4, "Ann" if right_without_face else "Bo", "Ann")
