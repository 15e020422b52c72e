"""Errors of attributes are chosen and explained, for each attribute."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from celebflow.classifier.attribute_model import AttributeModel
from celebflow.evaluation.attribute_evaluation import choose_errors, explain_attributes
from celebflow.evaluation.attribute_results import AttributeReport
from celebflow.evaluation.explanations import load_explanations
from celebflow.evaluation.grad_cam import Explainer
from tests.conftest import draw_features
from tests.report.attributes import make_attribute_card, make_attribute_page
from tests.report.pages import HOSTILE_NAMES

NAMES = (*HOSTILE_NAMES, "cost in $", "نظارة", "W" * 60, "Smiling", "Eye_glasses")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a result is."""
    return tmp_path_factory.mktemp("result")


@pytest.fixture(scope="module")
def report(folder: Path) -> AttributeReport:
    """Return a result of eight attributes; of those in val, one has no labels, and one has only no."""
    return make_attribute_page(folder, NAMES, one_valued=1, without_labels=1).report


def test_errors_of_each_attribute_are_of_both_kinds_and_the_most_confident(report: AttributeReport) -> None:
    split = report.splits["test"]
    chosen = choose_errors(split)
    for attribute in NAMES:
        errors = split.list_errors(attribute)
        own = [error for error in chosen if error.attribute == attribute]
        assert len(own) == min(12, len(errors)) > 0
        assert own == [error for error in errors if error in own], "in the order of list_errors"
        for answer in ("yes", "no"):
            kind = [error for error in errors if error.predicted == answer]
            assert [error for error in own if error.predicted == answer][:6] == kind[:6]


def test_attributes_with_the_lowest_average_precision_come_first_and_those_without_last(
    report: AttributeReport,
) -> None:
    split = report.splits["val"]
    defined = {each.attribute: each.average_precision for each in split.attributes if each.average_precision}
    shown = list(dict.fromkeys(error.attribute for error in choose_errors(split)))
    without = [name for name in shown if name not in defined]
    assert shown == [*sorted(defined, key=lambda name: defined[name]), *without] and without


def test_heat_map_is_of_yes_whatever_was_answered(folder: Path, report: AttributeReport) -> None:
    torch.manual_seed(0)
    model = AttributeModel(make_attribute_card(NAMES)).eval()
    paths = sorted({each.photographs[0] for split in report.splits.values() for each in split.predictions})
    features = draw_features(len(paths))
    photos = [replace(photo, path=path) for photo, path in zip(features.photos, paths, strict=True)]
    features = replace(features, photos=photos)
    explain_attributes(model, features, folder)
    explainer = Explainer(model)
    for name, split in report.splits.items():
        explained = load_explanations(split.predictions, folder / name)
        assert [each.prediction for each in explained] == choose_errors(split)
        assert {each.prediction.predicted for each in explained} == {"yes", "no"}
        for each in explained[::5]:
            rows = features.locate([each.prediction.photographs[0]])
            output = np.array([NAMES.index(each.prediction.attribute)])
            (expected,) = explainer.compute_heat_maps(features.gather(rows), output)
            np.testing.assert_allclose(each.heat_map, expected, atol=0.51 / 255)
