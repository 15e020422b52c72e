"""Rates of known and unknown people are counts of photographs that reach a threshold; intervals resample people."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from celebflow.classifier.calibration import UNCALIBRATED
from celebflow.classifier.gallery import Gallery, fit_gallery
from celebflow.evaluation.open_set import (
    OpenSetResult,
    compute_auc,
    measure_interval,
    measure_open_set,
    measure_unknown_people,
)
from celebflow.features.store import Features, LabeledFeatures, select_split
from tests.conftest import draw_features

PEOPLE = ("Ann", "Bo", "Cy", "Di", "Ed", "Flo")
CALIBRATION = replace(UNCALIBRATED, false_acceptance_rate=0.2)


def _fit() -> tuple[Gallery, Features, LabeledFeatures]:
    features = draw_features(240, people=PEOPLE)
    gallery = fit_gallery(select_split(features, PEOPLE, "train"), len(PEOPLE), 0.5, 0)
    assert gallery is not None
    return gallery, features, select_split(features, PEOPLE, "val")


def _measure(gallery: Gallery, features: Features, hits: NDArray[np.bool_]) -> OpenSetResult:
    val = select_split(features, PEOPLE, "val")
    unknown = measure_unknown_people(gallery, features, CALIBRATION)
    return measure_open_set(gallery, val, hits, np.arange(len(val)), CALIBRATION, unknown)


def test_rates_are_counts_of_photographs_that_reach_the_threshold() -> None:
    gallery, features, val = _fit()
    hits = np.arange(len(val)) % 3 > 0
    result = _measure(gallery, features, hits)
    matches = gallery.people.score(gallery.embed_rows(features, val.rows)).max(axis=1)
    left_out = gallery.left_out
    reached = matches >= left_out.choose_threshold(0.2)
    assert 0 < result.metrics["coverage"] < 1
    assert result.metrics["coverage"] == reached.mean()
    at_5_percent = matches >= left_out.choose_threshold(0.05)
    assert result.metrics["coverage_at_far_5_percent"] == at_5_percent.mean()
    assert result.metrics["dir_at_far_5_percent"] == (at_5_percent & hits).mean()
    labels = np.r_[np.ones(len(matches)), np.zeros(len(left_out.scores))]
    auc = roc_auc_score(labels, np.r_[matches, left_out.scores])
    assert result.metrics["open_set_auc"] == pytest.approx(auc)
    np.testing.assert_array_equal(result.p_values, left_out.compute_p_values(matches))
    for name, interval in result.intervals.items():
        assert interval.low <= result.metrics[name] <= interval.high


def test_a_false_acceptance_rate_is_judged_by_the_people_of_other_folds() -> None:
    gallery, features, val = _fit()
    result = _measure(gallery, features, np.ones(len(val), bool))
    left_out = gallery.left_out
    accepted = 0
    for fold in range(5):
        others = replace(left_out, scores=left_out.scores[left_out.folds != fold])
        accepted += (left_out.scores[left_out.folds == fold] >= others.choose_threshold(0.2)).sum()
    assert result.metrics["false_acceptance_rate"] == accepted / len(left_out.scores)


def test_the_curve_rises_and_agrees_with_the_metrics() -> None:
    gallery, features, val = _fit()
    result = _measure(gallery, features, np.arange(len(val)) % 2 > 0)
    rates = [point.false_acceptance_rate for point in result.curve]
    coverages = [point.coverage for point in result.curve]
    assert rates == sorted(rates) and coverages == sorted(coverages)
    assert (rates[-1], coverages[-1]) == (1.0, 1.0)
    assert result.curve[-1].identified == pytest.approx(0.5, abs=0.02)
    assert np.interp(0.2, rates, coverages) == pytest.approx(result.metrics["coverage"], abs=0.05)


def test_the_photographs_of_unknown_people_meet_the_same_threshold() -> None:
    gallery, features, val = _fit()
    result = _measure(gallery, features, np.ones(len(val), bool))
    assert not [name for name in [*result.metrics, *result.intervals] if name.startswith("unknown_folder")]
    marked = [
        replace(photo, split="unknown", person=f"unknown/{photo.person}") if photo.split == "test" else photo
        for photo in features.photos
    ]
    with_them = _measure(gallery, replace(features, photos=marked), np.ones(len(val), bool))
    rows = np.array([row for row, photo in enumerate(marked) if photo.split == "unknown"])
    matches = gallery.match_rows(features, rows)
    reached = matches >= gallery.left_out.choose_threshold(0.2)
    assert with_them.metrics["unknown_folder_far"] == reached.mean()
    assert with_them.intervals["unknown_folder_far"] == measure_interval(reached, [marked[row].person for row in rows])
    assert with_them.metrics.items() >= result.metrics.items()
    p_values = gallery.left_out.compute_p_values(matches)
    assert with_them.metrics["unknown_folder_auc"] == compute_auc(-result.p_values, -p_values)


def test_intervals_resample_people() -> None:
    reached = np.repeat([True, False], 50)
    wide = measure_interval(reached, ["Ann"] * 50 + ["Bo"] * 50)
    narrow = measure_interval(reached, [str(number) for number in range(100)])
    assert (wide.low, wide.high) == (0.0, 1.0)
    alone = measure_interval(reached, ["Ann"] * 100)
    assert (alone.low, alone.high) == (0.0, 1.0), "one person says nothing about others"
    assert 0.35 < narrow.low < 0.5 < narrow.high < 0.65


def test_ties_count_half_in_the_area() -> None:
    assert compute_auc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx((0.5 + 1 + 1 + 1) / 4)
