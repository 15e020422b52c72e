"""The nearest photographs are those of train whose angle to a face is the smallest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from celebflow.classifier.model import Classifier, make_classifier
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.features.transform import Transform
from celebflow.inference.neighbors import TrainingPhotographs
from tests.conftest import draw_features


def _make(hidden_units: tuple[int, ...] = (16, 8)) -> tuple[Classifier, Features]:
    torch.manual_seed(0)
    features = draw_features()
    origin = features.origin
    return make_classifier(["Ann", "Bo", "Cy"], hidden_units, 0.5, origin.transform, origin.backbone).eval(), features


@pytest.mark.parametrize("hidden_units", [(16, 8), ()])
def test_the_nearest_are_those_of_the_smallest_angle(hidden_units: tuple[int, ...]) -> None:
    classifier, features = _make(hidden_units)
    asked = np.array([2, 3])
    found = TrainingPhotographs(classifier, features, Path("data")).find_nearest(features.gather(asked), 4)

    dense = torch.from_numpy(features.gather(np.arange(len(features))).to_dense())
    embedded = dense @ classifier.first.weight + classifier.first.bias
    for layer in list(classifier.rest)[:-1]:
        embedded = layer(embedded)
    embedded = torch.nn.functional.normalize(embedded).detach()
    train = [row for row, photo in enumerate(features.photos) if photo.split == "train"]
    for row, neighbors in zip(asked, found, strict=True):
        expected = sorted(train, key=lambda other: -float(embedded[row] @ embedded[other]))[:4]
        assert [each.file for each in neighbors] == [Path("data") / features.photos[other].path for other in expected]
        assert [each.person for each in neighbors] == [features.photos[other].person for other in expected]
        similarities = [float(embedded[row] @ embedded[other]) for other in expected]
        assert [each.similarity for each in neighbors] == pytest.approx(similarities, abs=1e-5)


def test_a_photograph_of_train_is_nearest_to_itself() -> None:
    classifier, features = _make()
    row = next(row for row, photo in enumerate(features.photos) if photo.split == "train")
    ((first, *_),) = TrainingPhotographs(classifier, features, Path("data")).find_nearest(
        features.gather(np.array([row])), 3
    )
    assert first.file == Path("data") / features.photos[row].path
    assert first.similarity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("changed", ["transform", "backbone", "people"])
def test_features_of_another_model_are_refused(changed: str) -> None:
    classifier, features = _make()
    if changed == "people":
        card = classifier.card
        classifier = make_classifier(["Ann", "Bo", "Di"], (), 0.5, card.transform, card.backbone).eval()
        changed, other = "transform", card.transform
    else:
        fingerprint = replace(features.origin.backbone, fingerprint="1" * 64)
        other = Transform(64) if changed == "transform" else fingerprint
    features = replace(features, origin=replace(features.origin, **{changed: other}))
    with pytest.raises(CelebflowError, match="not what the model was taught with"):
        TrainingPhotographs(classifier, features, Path("data"))
