"""Metrics equal scikit-learn's, and are None for people without photographs in a split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from celebflow.classifier.calibration import softmax
from celebflow.evaluation.curves import Curves, trace_people
from celebflow.evaluation.metrics import PersonMetrics, compute_metrics, compute_person_metrics

Logits = NDArray[np.float64]
Labels = NDArray[np.int64]


def _draw(seed: int, people: int, count: int) -> tuple[Logits, Labels]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(people), random.integers(0, people, count)])
    return random.normal(size=(len(labels), people)) * 3, labels


def _compute_metrics(logits: Logits, labels: Labels) -> dict[str, float]:
    probabilities = softmax(logits)
    rocs, _ = trace_people(probabilities, labels, range(logits.shape[1]))
    return compute_metrics(logits, probabilities, labels, rocs)


def _compute_person_metrics(logits: Logits, labels: Labels) -> list[PersonMetrics]:
    names = [str(person) for person in range(logits.shape[1])]
    probabilities = softmax(logits)
    return compute_person_metrics(logits.argmax(axis=1), labels, names, *trace_people(probabilities, labels, names))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(6, 40), count=st.integers(0, 60))
def test_metrics_equal_scikit_learns(seed: int, people: int, count: int) -> None:
    logits, labels = _draw(seed, people, count)
    probabilities, names = softmax(logits), np.arange(people)
    metrics = _compute_metrics(logits, labels)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    assert metrics["top_5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=names))
    assert metrics["macro_auc"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro", labels=names)
    )
    assert metrics["loss"] == pytest.approx(log_loss(labels, probabilities, labels=names))
    macro, micro = trace_people(probabilities, labels, range(people))[0].means
    assert macro.area == pytest.approx(metrics["macro_auc"])
    assert macro.area == pytest.approx(np.trapezoid(macro.y, macro.x))
    one_hot = labels[:, None] == names
    assert micro.area == pytest.approx(roc_auc_score(one_hot.ravel(), probabilities.ravel()))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(2, 12), count=st.integers(0, 60))
def test_precision_and_recall_equal_scikit_learns(seed: int, people: int, count: int) -> None:
    logits, labels = _draw(seed, people, count)
    logits = logits.round()  # so that there are ties
    probabilities = softmax(logits)
    _, curves = trace_people(probabilities, labels, range(people))
    expected = [average_precision_score(labels == person, probabilities[:, person]) for person in range(people)]
    assert [curve.area for curve in curves.people] == pytest.approx(expected)
    macro, micro = curves.means
    for curve in [
        *curves.people,
        macro,
        micro,
    ]:  # the area under steps that are as high as the precision at their right end
        assert curve.area == pytest.approx(np.sum(np.diff(curve.x, prepend=0) * curve.y))
    assert macro.area == pytest.approx(np.mean(expected))
    one_hot = labels[:, None] == np.arange(people)
    assert micro.area == pytest.approx(average_precision_score(one_hot.ravel(), probabilities.ravel()))


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(2, 12), count=st.integers(0, 60))
def test_person_metrics_equal_scikit_learns_and_scipys(seed: int, people: int, count: int) -> None:
    logits, labels = _draw(seed, people, count)
    probabilities, predicted = softmax(logits), logits.argmax(axis=1)
    expected = precision_recall_fscore_support(labels, predicted, labels=np.arange(people), zero_division=0)
    for person, row in enumerate(_compute_person_metrics(logits, labels)):
        precision, recall, f1, support = (scores[person] for scores in expected)
        assert (row.recall, row.f1, row.support) == pytest.approx((recall, f1, support))
        assert row.precision == (pytest.approx(precision) if person in predicted else None)
        assert row.auc == pytest.approx(roc_auc_score(labels == person, probabilities[:, person]))
        average_precision = average_precision_score(labels == person, probabilities[:, person])
        assert row.average_precision == pytest.approx(average_precision)
        hits = int((predicted[labels == person] == person).sum())
        interval = binomtest(hits, int(support)).proportion_ci(method="wilson")
        assert (row.recall_low, row.recall_high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_a_person_absent_from_a_split_does_not_change_the_metrics_of_others() -> None:
    logits, labels = _draw(0, 8, 40)
    present = labels != 3
    logits, labels = logits[present], labels[present]
    probabilities = softmax(logits)
    areas = [roc_auc_score(labels == person, probabilities[:, person]) for person in range(8) if person != 3]
    assert _compute_metrics(logits, labels)["macro_auc"] == pytest.approx(np.mean(areas))
    absent = _compute_person_metrics(logits, labels)[3]
    assert (absent.person, absent.support, absent.recall, absent.f1, absent.auc) == ("3", 0, None, None, None)
    assert "3" not in [curve.name for curve in trace_people(probabilities, labels, range(8))[0].people]


def test_a_split_of_one_person_has_no_auc() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3))
    labels = np.array([1, 1, 1, 1, 1])
    metrics = _compute_metrics(logits, labels)
    assert "macro_auc" not in metrics
    assert metrics["top_5_accuracy"] == 1.0
    assert trace_people(softmax(logits), labels, range(3)) == (Curves([], []), Curves([], []))


def test_extreme_logits_give_finite_metrics() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]])
    metrics = _compute_metrics(logits, np.array([0, 1, 1]))
    assert np.isfinite(metrics["loss"])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
