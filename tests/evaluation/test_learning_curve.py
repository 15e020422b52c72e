"""A learning curve says what more photographs would bring, as far as the measured accuracies tell."""

import numpy as np
import pytest
from numpy.typing import NDArray

from celebflow.evaluation import learning_curve
from celebflow.evaluation.learning_curve import build_learning_curve, find_gains, fit_power_law

SIZES = [4.0, 6.0, 10.0, 16.0, 25.0, 40.0]


@pytest.mark.parametrize("law", [(0.0, 2.0, 1.0), (0.1, 1.0, 0.5), (0.02, 3.0, 2.0), (0.3, 0.0, 1.0)])
def test_a_power_law_is_found_again(law: tuple[float, float, float]) -> None:
    rest, scale, decay = law
    sizes = np.array(SIZES)
    errors = rest + scale * sizes**-decay
    ((a, b, c),) = fit_power_law(sizes, errors[None], np.ones((1, 6)))
    assert a + b * sizes**-c == pytest.approx(errors, abs=0.004)
    assert a + b * 160.0**-c == pytest.approx(rest + scale * 160.0**-decay, abs=0.02)


def test_errors_that_rise_are_fitted_by_their_mean_and_none_by_zero() -> None:
    errors = np.array([[0.1, 0.12, 0.14, 0.15, 0.17, 0.2], [0.0] * 6])
    laws = fit_power_law(np.array(SIZES), errors, np.ones((2, 6)))
    assert laws[0, 1] == 0 and 0.1 < laws[0, 0] < 0.2
    assert laws[1, 0] == laws[1, 1] == 0


def test_errors_weigh_by_their_variance_and_zero_does_not_decide_alone() -> None:
    sizes = np.array(SIZES)
    errors = 0.5 * (sizes / 4) ** -1.5
    errors[:2] = 0.4  # rough where errors are frequent
    a, b, c = fit_power_law(sizes, errors[None], np.ones((1, 6)))[0]
    assert a + b * 40.0**-c == pytest.approx(errors[-1], abs=0.01)
    errors = np.array([0.3, 0.2, 0.1, 0.05, 0.02, 0])
    a, b, c = fit_power_law(sizes, errors[None], np.ones((1, 6)))[0]
    assert a + b * 4.0**-c == pytest.approx(0.3, abs=0.1)


def test_a_line_has_no_negative_number() -> None:
    x, y = np.array([1.0, 2, 3]), np.array([[5.0, 7, 9], [1, 3, 5], [5, 3, 1]])
    a, b = learning_curve._fit_line(x, y, np.ones((3, 3)))
    assert a == pytest.approx([3, 0, 3])
    assert b == pytest.approx([2, 22 / 14, 0])


def test_a_size_without_a_share_does_not_count() -> None:
    errors = np.array([[0.5, 0.3, 0.2, 0.1, 0.05, 0.9]])
    shares = np.array([[1.0, 1, 1, 1, 1, 0]])
    a, b, c = fit_power_law(np.array(SIZES), errors, shares)[0]
    assert a + b * 40.0**-c < 0.06


def _draw_hits(count: int, repetitions: int, rest: float, seed: int = 0) -> NDArray[np.bool_]:
    """Return hits whose errors are rest + 2 / size; who is hard stays hard."""
    random = np.random.default_rng(seed)
    hardness = random.random(count) * 0.8 + random.random((repetitions, 1, count)) * 0.2
    order = hardness.argsort(axis=-1).argsort(axis=-1) / count
    hits: NDArray[np.bool_] = order < (1 - rest - 2 / np.array(SIZES))[:, None]
    return hits


@pytest.mark.parametrize("rest", [0.0, 0.1])
def test_the_forecast_holds_what_comes(rest: float) -> None:
    labels, groups = np.arange(500) % 5, np.arange(500)
    curve = build_learning_curve(_draw_hits(500, 4, rest), labels, groups, SIZES)
    assert [point.photographs_per_person for point in curve.points] == SIZES
    for point in curve.points:
        expected = 1 - rest - 2 / point.photographs_per_person
        assert point.accuracy == pytest.approx(expected, abs=0.01)
        assert point.accuracy_low <= point.accuracy <= point.accuracy_high
        assert point.balanced_accuracy_low <= point.balanced_accuracy <= point.balanced_accuracy_high
    assert curve.forecast.photographs_per_person == 80
    coming = 1 - rest - 2 / 80
    assert curve.forecast.interval.low <= coming <= curve.forecast.interval.high
    assert curve.forecast.gain == pytest.approx(2 / 40 - 2 / 80, abs=0.015)
    assert curve.forecast.gain_interval.low <= 2 / 40 - 2 / 80 <= curve.forecast.gain_interval.high
    assert curve.line[0].photographs_per_person == pytest.approx(4)
    assert curve.line[-1].accuracy == pytest.approx(curve.forecast.accuracy)


def test_groups_of_near_duplicates_widen_the_intervals() -> None:
    hits = np.repeat(_draw_hits(100, 2, 0.1), 5, axis=-1)
    labels = np.repeat(np.arange(100) % 5, 5)
    alone, together = (
        build_learning_curve(hits, labels, groups, SIZES).points[-1]
        for groups in (np.arange(500), np.repeat(np.arange(100), 5))
    )
    assert together.accuracy_high - together.accuracy_low > 1.5 * (alone.accuracy_high - alone.accuracy_low)


def test_repetitions_widen_the_intervals_and_are_drawn_apart_from_groups() -> None:
    hits = np.repeat(np.eye(6, dtype=bool)[:, None], 6, axis=1)  # each repetition hits another photograph
    point = build_learning_curve(hits, np.zeros(6, np.int64), np.arange(6), SIZES).points[0]
    assert point.accuracy == pytest.approx(1 / 6)
    assert point.accuracy_low < 0.1 and 0.2 < point.accuracy_high < 0.4
    hits = np.repeat(np.array([[[True]], [[False]]]), 6, axis=1)  # one photograph, two repetitions
    point = build_learning_curve(hits, np.zeros(1, np.int64), np.zeros(1, np.int64), SIZES).points[0]
    assert (point.accuracy_low, point.accuracy, point.accuracy_high) == (0, 0.5, 1)


def test_balanced_accuracy_counts_people_equally() -> None:
    hits = np.repeat(np.array([True, True, True, False]), 6).reshape(1, 4, 6).swapaxes(1, 2)
    point = build_learning_curve(hits, np.array([0, 0, 0, 1]), np.arange(4), SIZES).points[0]
    assert (point.accuracy, point.balanced_accuracy) == (0.75, 0.5)


def test_a_resample_of_sizes_has_three_at_least() -> None:
    shares = learning_curve._share_sizes(200, 4)
    assert (shares[0] == 1).all() and (shares.sum(axis=1) == 4).all()
    assert ((shares > 0).sum(axis=1) >= 3).all()
    assert ((shares > 0).sum(axis=1) == 3).any()
    assert (learning_curve._share_sizes(5, 3) == 1).all()


def test_people_gain_by_the_second_half() -> None:
    hits = np.zeros((2, 6, 6), bool)
    hits[:, :, :2] = True  # of the first person
    hits[:, 4:, 2] = True  # half of the second person's, from 25 on; half of 40 is nearest to 16
    hits[:, 3:, 3] = True
    hits[0, 5, 4] = True  # a quarter of the third person's
    gains = find_gains(hits, np.array([0, 0, 1, 1, 2, 2]), SIZES, ["Ann", "Bo", "Cy", "Di"])
    assert gains == {"Ann": 0.0, "Bo": 0.5, "Cy": 0.25}
