"""Evaluate explains the predictions that are worth a look, and its files give the same explanations to plot."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from celebflow.errors import CelebflowError
from celebflow.evaluation import classifier_evaluation
from celebflow.evaluation.classifier_evaluation import explain_splits
from celebflow.evaluation.explanations import Explanation, load_explanations, save_explanations
from celebflow.evaluation.grad_cam import Explainer
from celebflow.evaluation.neighbors import TrainingPhotographs
from celebflow.evaluation.results import Prediction
from tests.report.photographs import PhotographedResult, make_result
from tests.results import draw_logits


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> PhotographedResult:
    """Return a result of five people."""
    return make_result(tmp_path_factory.mktemp("result"), *draw_logits(5, 8))


def test_the_surest_errors_are_explained_then_the_least_sure_hits(
    result: PhotographedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_evaluation, "_MAX_ERRORS", 3)
    monkeypatch.setattr(classifier_evaluation, "_MAX_HITS", 2)
    explain_splits(result.classifier, result.features, result.folder.parent)
    for split, content in result.report.splits.items():
        errors, hits = content.errors(), content.hits()
        assert len(errors) > 3 and len(hits) > 2
        explained = load_explanations(content.predictions, result.folder.parent / split)
        assert [each.prediction for each in explained] == [*errors[:3], *hits[:2]]


def test_heat_map_is_of_the_predicted_person(result: PhotographedResult) -> None:
    explainer, class_names = Explainer(result.classifier), result.classifier.card.class_names
    for explanation in (each for explained in result.explained.values() for each in explained):
        rows = result.features.locate([explanation.prediction.path])
        predicted = np.array([class_names.index(explanation.prediction.predicted)])
        (expected,) = explainer.compute_heat_maps(result.features.gather(rows), predicted)
        np.testing.assert_allclose(explanation.heat_map, expected, atol=0.51 / 255)


def test_errors_are_compared_with_train_of_both_people(result: PhotographedResult) -> None:
    training = TrainingPhotographs(result.classifier, result.features, result.folder)
    photos = [photo for photo in result.features.photos if photo.split == "train"]
    compared = 0
    for explanation in (each for explained in result.explained.values() for each in explained):
        prediction = explanation.prediction
        nearest = explanation.nearest_of_actual, explanation.nearest_of_predicted
        if prediction.is_hit:
            assert nearest == ("", "")
            continue
        rows = result.features.locate([prediction.path])
        (ranked,) = training.find_nearest([result.features.gather(rows)], len(photos))
        for person, path in zip((prediction.actual, prediction.predicted), nearest, strict=True):
            assert path == next(each.photo.path for each in ranked if each.photo.person == person)
        compared += 1
    assert compared > 5


def test_without_a_gallery_nothing_is_compared(tmp_path: Path) -> None:
    result = make_result(tmp_path, *draw_logits(3, 8))
    result.classifier.gallery = None
    explain_splits(result.classifier, result.features, tmp_path)
    for split, content in result.report.splits.items():
        explained = load_explanations(content.predictions, tmp_path / split)
        assert len(explained) == 24
        assert {(each.nearest_of_actual, each.nearest_of_predicted) for each in explained} == {("", "")}


def _make_explanation() -> Explanation[Prediction]:
    heat = np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7)
    return Explanation(Prediction("Ann/é, 1.jpg", "g", "Ann", "Bo", 0.75, 0.25), heat, "Ann/2.jpg", "Bo/3.jpg")


def test_explanations_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = _make_explanation()
    other = replace(written.prediction, path="Bo/1.jpg")
    save_explanations([written], tmp_path)
    (read,) = load_explanations([other, written.prediction], tmp_path)
    assert replace(read, heat_map=written.heat_map) != written, "arrays are not compared"
    assert (read.prediction, read.nearest_of_actual, read.nearest_of_predicted) == (
        written.prediction,
        written.nearest_of_actual,
        written.nearest_of_predicted,
    )
    np.testing.assert_allclose(read.heat_map, written.heat_map, atol=0.51 / 255)


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        (lambda text: text.replace("Bo/3.jpg", "Bo/3.jpg,more"), "dvc repro"),
        (lambda text: text.replace(",00", ",zz"), "dvc repro"),
        (lambda text: text.replace(",00", ","), "dvc repro"),
        (lambda text: text.replace("1.jpg", "2.jpg"), "dvc repro"),
        (lambda text: text.replace("heat_map", "map"), "dvc repro"),
        (None, "dvc repro"),
    ],
    ids=["more cells", "not hexadecimal", "too short", "of another photograph", "without a column", "missing"],
)
def test_damaged_explanations_are_refused(tmp_path: Path, damage: Callable[[str], str] | None, remedy: str) -> None:
    explanation = _make_explanation()
    save_explanations([explanation], tmp_path)
    file = tmp_path / "explanations.csv"
    if damage is None:
        file.unlink()
    else:
        text = file.read_text(encoding="utf-8")
        assert damage(text) != text
        file.write_text(damage(text), encoding="utf-8")
    with pytest.raises(CelebflowError, match=f"(?s)explanations.csv.*{remedy}"):
        load_explanations([explanation.prediction], tmp_path)
