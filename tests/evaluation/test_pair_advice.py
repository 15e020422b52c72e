"""Advice is given on results of verification that have a fault, with its number, and on no others."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from celebflow.classifier.history import EpochResult
from celebflow.evaluation.pair_advice import advise_on_pairs
from celebflow.evaluation.pair_results import DIFFERENT, SAME, PairPrediction, PairReport, VerificationReport
from celebflow.evaluation.significance import Interval

PEOPLE = [f"Person {number}" for number in range(20)]
PAIRS_PER_PERSON = 10


def _report(wrong: Mapping[str, int] | None = None, *, half_width: float = 0.02) -> VerificationReport:
    """Return a result: each person has ten pairs, one of them wrong or as many as said, and ten with the next one."""
    predictions = []
    for number, name in enumerate(PEOPLE):
        errors = (wrong or {}).get(name, 1)
        for pair in range(PAIRS_PER_PERSON):
            other = PEOPLE[(number + 1) % len(PEOPLE)]
            for actual, second in ((SAME, name), (DIFFERENT, other)):
                is_wrong = actual == SAME and pair < errors
                predicted = actual if not is_wrong else DIFFERENT
                first, second_path = f"{name}/{pair}.jpg", f"{second}/{pair + PAIRS_PER_PERSON}.jpg"
                path = f"{first}\t{second_path}"
                predictions.append(PairPrediction(path, name, actual, predicted, 0.9, 0.5, first, second_path, 1.0))
    accuracy = sum(each.is_hit for each in predictions) / len(predictions)
    intervals = {"accuracy": Interval(accuracy - half_width, accuracy + half_width)}
    history = [EpochResult(1, 0.1, 1.0, 0.2, accuracy)]
    return VerificationReport(history, {}, {"val": PairReport(predictions, [], intervals, [])})


def _keep(report: VerificationReport, condition: Callable[[PairPrediction], bool]) -> VerificationReport:
    val = report.splits["val"]
    kept = [each for each in val.predictions if condition(each)]
    return replace(report, splits={"val": replace(val, predictions=kept)})


def _list_photographs(report: VerificationReport) -> set[str]:
    return {path for each in report.splits["val"].predictions for path in (each.first, each.second)}


def _advise(report: VerificationReport, faceless: Iterable[str] = (), crop: str = "detect") -> list[str]:
    faces = _list_photographs(report) - set(faceless)
    return [str(each) for each in advise_on_pairs(report, faces, {"extract.face.crop": crop})]


def test_a_good_result_gets_no_advice() -> None:
    assert _advise(_report()) == []
    assert _advise(_report(dict.fromkeys(PEOPLE, 0))) == []
    assert _advise(_report(dict.fromkeys(PEOPLE, 8))) == [], "all are hard alike"


def test_a_person_whose_own_photographs_are_told_apart_is_named() -> None:
    (found,) = _advise(_report({"Person 7": 8}))
    assert "Person 7 is taken for two people more often" in found and "8 of 10 pairs of val (80.0%)" in found
    assert "the others in 19 of 190 (10.0%)" in found
    assert _advise(_report({"Person 7": 4})) == [], "one of twenty has as many by chance"


def test_the_only_person_with_pairs_is_compared_with_nobody() -> None:
    report = _report({"Person 7": 10})
    assert _advise(_keep(report, lambda each: each.actual != SAME or each.group == "Person 7")) == []


def test_photographs_without_a_face_are_named_where_pairs_with_them_are_wrong() -> None:
    report = _report()
    wrong = {each.first for each in report.splits["val"].predictions if not each.is_hit}
    (found,) = _advise(report, sorted(wrong)[:5])
    assert "In 5 photographs of val, no face was found: 5 of 10 pairs" in found and "3.8% of the others" in found
    assert f"{min(wrong)} for one" in found
    right = {each.second for each in report.splits["val"].predictions} - {
        each.second for each in report.splits["val"].predictions if not each.is_hit
    }
    assert _advise(report, sorted(right)[:20]) == [], "pairs with them are right"
    assert _advise(report, sorted(wrong)[:2]) == [], "two errors say little"
    assert _advise(report, sorted(wrong)[:5], crop="none") == [], "nothing looks for faces"
    assert _advise(report, _list_photographs(report)) == [], "there are no others to compare with"


def test_photographs_without_a_face_are_not_named_where_others_are_wrong_as_often() -> None:
    report = _report()
    of_half = [path for path in _list_photographs(report) if path.split("/")[0] in PEOPLE[:10]]
    assert _advise(report, of_half) == []
    hard = _keep(_report(dict.fromkeys(PEOPLE, 10)), lambda each: each.actual == SAME)
    assert _advise(hard, _list_photographs(hard)) == [], "there are no others"


def test_three_errors_beside_few_pairs_say_nothing() -> None:
    report = _keep(_report({"Person 0": 3, "Person 1": 0}), lambda each: each.group in PEOPLE[:2])
    assert _advise(report) == []


def test_a_small_val_is_said_with_its_uncertainty() -> None:
    (found,) = _advise(_report(half_width=0.08))
    assert "with 400 pairs, its accuracy is certain to ±8 points" in found
