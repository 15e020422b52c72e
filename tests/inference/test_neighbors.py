"""The nearest photographs are those of train at the smallest angle to a face."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from celebflow.classifier.model import Classifier
from celebflow.errors import CelebflowError
from celebflow.features.store import Features
from celebflow.features.transform import Transform
from celebflow.inference.neighbors import TrainingPhotographs
from tests.conftest import draw_features
from tests.models import make_classifier

DATA = Path("data")


def _make(
    hidden_units: tuple[int, ...] = (16, 8), names: tuple[str, ...] = ("Ann", "Bo", "Cy")
) -> tuple[Classifier, Features]:
    torch.manual_seed(0)
    features = draw_features()
    classifier = make_classifier(names, hidden_units, 0.5, features.origin.transform, features.origin.backbone)
    return classifier.eval(), features


def _find_train_rows(features: Features) -> list[int]:
    return [row for row, photo in enumerate(features.photos) if photo.split == "train"]


@pytest.mark.parametrize("hidden_units", [(16, 8), ()])
def test_the_nearest_are_those_at_the_smallest_angle(hidden_units: tuple[int, ...]) -> None:
    classifier, features = _make(hidden_units)
    rows = np.array([2, 3])
    found = TrainingPhotographs(classifier, features, DATA).find_nearest(features.gather(rows), 4)

    first, rest = classifier.split_at_first_product()
    embedded: Tensor = (
        torch.from_numpy(features.gather(np.arange(len(features.photos))).to_dense()) @ first.weight + first.bias
    )
    for layer in rest[:-1]:
        embedded = layer(embedded)
    unit = torch.nn.functional.normalize(embedded).detach().numpy()
    train = _find_train_rows(features)
    for row, neighbors in zip(rows, found, strict=True):
        similarities = unit[train] @ unit[row]
        order = np.argsort(-similarities)[:4]
        photos = [features.photos[train[place]] for place in order]
        assert [neighbor.file for neighbor in neighbors] == [DATA / photo.path for photo in photos]
        assert [neighbor.person for neighbor in neighbors] == [photo.person for photo in photos]
        assert [neighbor.similarity for neighbor in neighbors] == pytest.approx(similarities[order], abs=1e-5)


def test_a_photograph_of_train_is_nearest_to_itself() -> None:
    classifier, features = _make()
    row = _find_train_rows(features)[0]
    training = TrainingPhotographs(classifier, features, DATA)
    ((first, *_),) = training.find_nearest(features.gather(np.array([row])), 3)
    assert first.file == DATA / features.photos[row].path
    assert first.similarity == pytest.approx(1, abs=1e-5)


def test_features_of_another_transform_are_refused() -> None:
    classifier, features = _make()
    origin = replace(features.origin, transform=Transform(64))
    _check_refused(classifier, replace(features, origin=origin))


def test_features_of_another_backbone_are_refused() -> None:
    classifier, features = _make()
    origin = replace(features.origin, backbone=replace(features.origin.backbone, fingerprint="1" * 64))
    _check_refused(classifier, replace(features, origin=origin))


def test_features_of_other_people_are_refused() -> None:
    _check_refused(*_make(names=("Ann", "Bo", "Di")))


def _check_refused(classifier: Classifier, features: Features) -> None:
    with pytest.raises(CelebflowError, match="not trained on the photographs of train here.*dvc repro"):
        TrainingPhotographs(classifier, features, DATA)
