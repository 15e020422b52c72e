"""Examples are the most confident errors and the least confident hits, each with what the network saw."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.evaluation.neighbors import TrainingPhotographs
from celebflow.features.transform import Transform
from celebflow.params import FaceParams
from celebflow.report import examples
from celebflow.report.examples import build_examples
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from tests.images import hash_photos
from tests.models import make_classifier, make_face
from tests.report.photographs import PhotographedResult, find_row, make_result
from tests.results import draw_logits


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> PhotographedResult:
    """Return a result of five people."""
    return make_result(tmp_path_factory.mktemp("result"), *draw_logits(5, 8))


def test_examples_are_those_of_the_report_in_its_order(
    result: PhotographedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = []
    for split, content in result.report.splits.items():
        errors, hits = content.errors(), content.hits()
        assert len(errors) > 3 and len(hits) > 2
        expected += [(split, prediction) for prediction in [*errors[:3], *hits[:2]]]
    monkeypatch.setattr(examples, "_MAX_ERRORS", 3)
    monkeypatch.setattr(examples, "_MAX_HITS", 2)
    built = build_examples(result.report, result.classifier, result.explainer, result.features, result.folder)
    assert [(example.split, example.prediction) for example in built] == expected


def test_errors_stand_beside_the_photographs_of_train_that_resemble_them_most(result: PhotographedResult) -> None:
    training = TrainingPhotographs(result.classifier, result.features, result.folder)
    for example in result.examples:
        if example.prediction.is_hit:
            assert example.nearest == []
            continue
        row = find_row(example.image)
        (neighbors,) = training.find_nearest([result.features.gather(np.array([row]))], 2)
        shown = [result.features.photos[find_row(each.image)] for each in example.nearest]
        assert shown == [neighbor.photo for neighbor in neighbors]
        assert [each.person for each in example.nearest] == [photo.person for photo in shown]


def test_heat_map_is_of_the_predicted_person(result: PhotographedResult) -> None:
    class_names = result.classifier.card.class_names
    for example in result.examples:
        row = find_row(example.image)
        assert result.features.photos[row].path == example.prediction.path
        predicted = np.array([class_names.index(example.prediction.predicted)])
        (heat,) = result.explainer.compute_heat_maps(result.features.gather(np.array([row])), predicted)
        difference = example.heat_map.astype(int) - overlay_heat_map(example.image, heat)
        assert np.abs(difference).max() <= 3  # batches round otherwise, to the next color of the map


def test_example_shows_the_face_that_the_network_saw(result: PhotographedResult, tmp_path: Path) -> None:
    example = result.examples[0]
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[50:80, 50:80] = 200, 100, 50
    (tmp_path / example.prediction.path).parent.mkdir()
    Image.fromarray(pixels).save(tmp_path / example.prediction.path)
    card = result.classifier.card
    transform = Transform(224, FaceParams(crop="detect", center_fraction=0.5, margin=0.0, align=False))
    classifier = make_classifier(card.class_names, (8,), 0.5, transform, card.backbone).eval()
    photos = [*result.features.photos]
    (row,) = result.features.locate([example.prediction.path])
    photos[row : row + 1] = hash_photos(photos[row : row + 1], tmp_path)
    subjects = {example.prediction.path: make_face(50, 50, 80, 80)}
    features = replace(result.features, photos=photos, subjects=subjects)
    report = replace(
        result.report, splits={"val": replace(result.report.splits["val"], predictions=[example.prediction])}
    )
    (shown,) = build_examples(report, classifier, Explainer(classifier), features, tmp_path)
    assert (shown.image[4:-4, 4:-4] == (200, 100, 50)).all()
