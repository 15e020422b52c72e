"""Examples show what the network saw of the photographs that are explained, and of those they are compared with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.features.transform import Transform
from celebflow.params import FaceParams
from celebflow.report.examples import build_examples
from celebflow.report.thumbnails import overlay_heat_map
from tests.images import hash_photos
from tests.models import make_face
from tests.report.photographs import PhotographedResult, find_row, make_result
from tests.results import draw_logits


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> PhotographedResult:
    """Return a result of five people."""
    return make_result(tmp_path_factory.mktemp("result"), *draw_logits(5, 8))


def test_examples_show_the_explained_photographs_in_their_order(result: PhotographedResult) -> None:
    photos = result.features.photos
    explanations = [(split, each) for split, explained in result.explained.items() for each in explained]
    assert len(explanations) > 20
    for example, (split, explanation) in zip(result.examples, explanations, strict=True):
        assert (example.split, example.prediction) == (split, explanation.prediction)
        assert photos[find_row(example.image)].path == example.prediction.path
        assert np.array_equal(example.heat_map, overlay_heat_map(example.image, explanation.heat_map))
        shown = [(each.person, photos[find_row(each.image)].path) for each in example.nearest]
        if example.prediction.is_hit:
            assert shown == []
        else:
            assert shown == [
                (example.prediction.actual, explanation.nearest_of_actual),
                (example.prediction.predicted, explanation.nearest_of_predicted),
            ]


def test_example_shows_the_face_that_the_network_saw(result: PhotographedResult, tmp_path: Path) -> None:
    explanation = replace(result.explained["val"][0], nearest_of_actual="", nearest_of_predicted="")
    path = explanation.prediction.path
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[50:80, 50:80] = 200, 100, 50
    (tmp_path / path).parent.mkdir()
    Image.fromarray(pixels).save(tmp_path / path)
    transform = Transform(224, FaceParams(crop="detect", center_fraction=0.5, margin=0.0, align=False))
    photos = [*result.features.photos]
    (row,) = result.features.locate([path])
    photos[row : row + 1] = hash_photos(photos[row : row + 1], tmp_path)
    origin = replace(result.features.origin, transform=transform)
    features = replace(result.features, photos=photos, origin=origin, subjects={path: make_face(50, 50, 80, 80)})
    (shown,) = build_examples({"val": [explanation]}, features, tmp_path)
    assert (shown.image[4:-4, 4:-4] == (200, 100, 50)).all()
