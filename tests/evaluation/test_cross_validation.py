"""Folds are measured on their own photographs, and two recipes are compared on the same folds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from celebflow.classifier.calibration import fit_probabilities
from celebflow.classifier.out_of_fold import OutOfFold
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError
from celebflow.evaluation.cross_validation import (
    FoldResult,
    compare_folds,
    list_predictions,
    measure_folds,
    summarize_folds,
)
from celebflow.evaluation.curves import trace_people

PEOPLE = ("Ann", "Bo", "Cy")


def _draw(count: int = 60) -> OutOfFold:
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    logits = random.normal(size=(count, 3)).astype(np.float32)
    logits[np.arange(count), labels] += 1.5
    photos = [
        Photo(f"{PEOPLE[label]}/{row}.jpg", PEOPLE[label], "train", "", f"g{row}") for row, label in enumerate(labels)
    ]
    return OutOfFold(PEOPLE, photos, labels, np.arange(count) // 3 % 4, logits, np.ones(count, bool))


def _make_folds(*accuracies: float, md5: str = "a") -> list[FoldResult]:
    return [FoldResult(1, number, 80, 20, md5, value, value, None) for number, value in enumerate(accuracies, 1)]


def test_each_fold_is_measured_on_its_own_photographs() -> None:
    predicted = _draw()
    probabilities = fit_probabilities(predicted.logits, predicted.labels).compute_probabilities(predicted.logits)
    results = measure_folds(predicted, 2)
    assert [(each.repetition, each.fold, each.trained_on, each.photographs) for each in results] == [
        (2, number, 45, 15) for number in (1, 2, 3, 4)
    ]
    assert len({each.photographs_md5 for each in results}) == 4
    for fold, result in enumerate(results):
        own = predicted.folds == fold
        hits = predicted.logits[own].argmax(axis=1) == predicted.labels[own]
        recalls = [hits[predicted.labels[own] == person].mean() for person in range(3)]
        area = trace_people(probabilities[own], predicted.labels[own], PEOPLE)[0].means[0].area
        assert result.accuracy == pytest.approx(hits.mean())
        assert result.balanced_accuracy == pytest.approx(np.mean(recalls))
        assert result.macro_auc == pytest.approx(area)


def test_what_is_not_judged_counts_nowhere() -> None:
    predicted = _draw()
    judged = np.arange(60) % 5 > 0
    results = measure_folds(replace(predicted, judged=judged), 1)
    assert sum(each.photographs for each in results) == 48
    assert {each.trained_on for each in results} == {45}
    listed = list_predictions(replace(predicted, judged=judged))
    assert [each.path for each in listed] == [
        photo.path for photo, own in zip(predicted.photos, judged, strict=True) if own
    ]
    for prediction in listed:
        row = next(row for row, photo in enumerate(predicted.photos) if photo.path == prediction.path)
        assert prediction.actual == PEOPLE[predicted.labels[row]]
        assert prediction.predicted == PEOPLE[predicted.logits[row].argmax()]
        assert prediction.group == f"g{row}"
        assert prediction.confidence >= prediction.probability_of_actual > 0


def test_the_area_of_a_fold_with_one_person_is_not_defined() -> None:
    predicted = _draw()
    results = measure_folds(replace(predicted, folds=predicted.labels), 1)
    assert [each.macro_auc for each in results] == [None] * 3
    assert set(summarize_folds(results)) == {"accuracy", "balanced_accuracy"}


def test_a_summary_is_the_mean_and_the_deviation_of_a_sample() -> None:
    summary = summarize_folds(_make_folds(0.5, 0.75, 1.0))["accuracy"]
    assert (summary.mean, summary.deviation) == pytest.approx((0.75, 0.25))


def test_the_corrected_t_test_is_that_of_nadeau_and_bengio() -> None:
    a, b = _make_folds(0.80, 0.85, 0.90, 0.75, 0.85), _make_folds(0.85, 0.90, 0.90, 0.80, 0.95)
    differences = np.array([0.05, 0.05, 0.0, 0.05, 0.10])
    error = np.sqrt((1 / 5 + 20 / 80) * differences.var(ddof=1))
    compared = compare_folds(a, b)
    assert compared.fold_count == 5
    assert compared.difference == pytest.approx(0.05)
    assert compared.p_value == pytest.approx(2 * stats.t.sf(0.05 / error, 4))
    low, high = stats.t.interval(0.95, 4, 0.05, error)
    assert (compared.interval.low, compared.interval.high) == pytest.approx((low, high))
    assert compared.p_value > stats.ttest_1samp(differences, 0).pvalue, "folds share most of their photographs"
    backward = compare_folds(b, a)
    assert (backward.difference, backward.p_value) == pytest.approx((-0.05, compared.p_value))


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.70, 0.71, 0.70, 0.72, 0.71), "better"),
        ((0.50, 0.51, 0.50, 0.52, 0.51), "worse"),
        ((0.70, 0.50, 0.65, 0.50, 0.68), "chance"),
        ((0.60, 0.60, 0.60, 0.60, 0.60), "chance"),
        ((0.75, 0.75, 0.75, 0.75, 0.75), "better"),
    ],
    ids=["better", "worse", "varies", "the same", "by the same in each fold"],
)
def test_the_verdict_is_clear_only_where_folds_agree(accuracies: tuple[float, ...], verdict: str) -> None:
    assert compare_folds(_make_folds(*[0.60] * 5), _make_folds(*accuracies)).verdict == verdict


@pytest.mark.parametrize(
    "other",
    [_make_folds(0.5, 0.6, md5="b"), _make_folds(0.5, 0.6, 0.7), [replace(_make_folds(0.5)[0], trained_on=79)] * 2],
    ids=["other photographs", "more folds", "less to train on"],
)
def test_other_folds_are_not_compared(other: list[FoldResult]) -> None:
    with pytest.raises(CelebflowError, match=r"other folds.*celebflow crossvalidate.*--folds"):
        compare_folds(_make_folds(0.5, 0.6), other)
