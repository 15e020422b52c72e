"""Metrics agree with scikit-learn, and say nothing of people that a split lacks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)

from celebflow.classifier.calibration import softmax
from celebflow.evaluation.metrics import (
    compute_mean_precision_recalls,
    compute_mean_rocs,
    compute_metrics,
    compute_person_metrics,
    compute_person_precision_recalls,
    compute_person_rocs,
)


def _draw(seed: int, people: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(people), random.integers(0, people, count)])
    return random.normal(size=(len(labels), people)) * 3, labels


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(6, 40), count=st.integers(0, 60))
def test_metrics_agree_with_scikit_learn(seed: int, people: int, count: int) -> None:
    logits, labels = _draw(seed, people, count)
    probabilities, names = softmax(logits), np.arange(people)
    metrics = compute_metrics(logits, labels)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert metrics["top_5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=names))
    assert metrics["macro_auc"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro", labels=names)
    )
    assert metrics["loss"] == pytest.approx(log_loss(labels, probabilities, labels=names))
    macro, micro = compute_mean_rocs(compute_person_rocs(probabilities, labels, range(people)), probabilities, labels)
    assert macro.area == pytest.approx(metrics["macro_auc"])
    assert macro.area == pytest.approx(np.trapezoid(macro.y, macro.x))
    one_hot = labels[:, None] == names
    assert micro.area == pytest.approx(roc_auc_score(one_hot.ravel(), probabilities.ravel()))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(2, 12), count=st.integers(0, 60))
def test_precision_and_recall_agree_with_scikit_learn(seed: int, people: int, count: int) -> None:
    logits, labels = _draw(seed, people, count)
    logits = logits.round()  # so that there are ties
    probabilities = softmax(logits)
    curves = compute_person_precision_recalls(probabilities, labels, range(people))
    expected = [average_precision_score(labels == person, probabilities[:, person]) for person in range(people)]
    assert [curve.area for curve in curves] == pytest.approx(expected)
    macro, micro = compute_mean_precision_recalls(curves, probabilities, labels)
    for curve in [*curves, macro, micro]:  # the area of steps that hold from each recall down to the one before
        assert curve.area == pytest.approx(np.sum(np.diff(curve.x, prepend=0) * curve.y))
    assert macro.area == pytest.approx(np.mean(expected))
    one_hot = labels[:, None] == np.arange(people)
    assert micro.area == pytest.approx(average_precision_score(one_hot.ravel(), probabilities.ravel()))
    rows = compute_person_metrics(logits, labels, [str(person) for person in range(people)])
    assert [row.average_precision for row in rows] == pytest.approx(expected)
    for person, row in enumerate(rows):
        hits, support = int((logits.argmax(1)[labels == person] == person).sum()), int((labels == person).sum())
        interval = binomtest(hits, support).proportion_ci(method="wilson")
        assert (row.recall_low, row.recall_high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_a_person_absent_from_a_split_changes_no_figure_of_the_others() -> None:
    logits, labels = _draw(0, 8, 40)
    present = labels != 3
    metrics = compute_metrics(logits[present], labels[present])
    probabilities = softmax(logits[present])
    areas = [roc_auc_score(labels[present] == person, probabilities[:, person]) for person in range(8) if person != 3]
    assert metrics["macro_auc"] == pytest.approx(np.mean(areas))
    names = [f"person {number}" for number in range(8)]
    absent = compute_person_metrics(logits[present], labels[present], names)[3]
    assert (absent.person, absent.support, absent.recall, absent.f1, absent.auc) == ("person 3", 0, None, None, None)
    assert "person 3" not in [curve.name for curve in compute_person_rocs(probabilities, labels[present], names)]


def test_one_person_alone_in_a_split_has_no_auc() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3))
    metrics = compute_metrics(logits, np.array([1, 1, 1, 1, 1]))
    assert "macro_auc" not in metrics
    assert metrics["top_5_accuracy"] == 1.0
    assert compute_mean_rocs([], softmax(logits), np.array([1] * 5)) == []


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]])
    metrics = compute_metrics(logits, np.array([0, 1, 1]))
    assert np.isfinite(metrics["loss"])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
