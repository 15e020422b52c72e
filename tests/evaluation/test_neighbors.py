"""The nearest photographs are those of train at the smallest angle to a face, in the gallery's coordinates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from celebflow.classifier.model import Classifier
from celebflow.errors import CelebflowError
from celebflow.evaluation.neighbors import TrainingPhotographs
from celebflow.features.sparse import SparseBatch
from celebflow.features.store import Features
from celebflow.features.transform import Transform
from tests.conftest import draw_features
from tests.models import make_classifier, make_gallery

DATA = Path("data")


def _make(names: tuple[str, ...] = ("Ann", "Bo", "Cy")) -> tuple[Classifier, Features]:
    torch.manual_seed(0)
    features = draw_features(views=("original", "mirrored"))
    classifier = make_classifier(names, (8,), 0.5, features.origin.transform, features.origin.backbone)
    classifier.gallery = make_gallery(len(names), features.origin.transform)
    return classifier.eval(), features


def _find_train_rows(features: Features) -> list[int]:
    return [row for row, photo in enumerate(features.photos) if photo.split == "train"]


def _gather(features: Features, rows: NDArray[np.int64]) -> list[SparseBatch]:
    return [features.gather(rows, view) for view in range(2)]


def test_the_nearest_are_those_at_the_smallest_angle() -> None:
    classifier, features = _make()
    rows = np.array([2, 3])
    found = TrainingPhotographs(classifier, features, DATA).find_nearest(_gather(features, rows), 4)
    assert classifier.gallery is not None
    coordinates = classifier.gallery.embed(_gather(features, np.arange(len(features.photos))))
    unit = coordinates / np.linalg.norm(coordinates, axis=1, keepdims=True)
    train = _find_train_rows(features)
    for row, neighbors in zip(rows, found, strict=True):
        similarities = unit[train] @ unit[row]
        order = np.argsort(-similarities)[:4]
        photos = [features.photos[train[place]] for place in order]
        assert [neighbor.file for neighbor in neighbors] == [DATA / photo.path for photo in photos]
        assert [neighbor.photo for neighbor in neighbors] == photos
        assert [neighbor.similarity for neighbor in neighbors] == pytest.approx(similarities[order], abs=1e-5)


def test_a_photograph_of_train_is_nearest_to_itself() -> None:
    classifier, features = _make()
    row = _find_train_rows(features)[0]
    training = TrainingPhotographs(classifier, features, DATA)
    ((first, *_),) = training.find_nearest(_gather(features, np.array([row])), 3)
    assert first.file == DATA / features.photos[row].path
    assert first.similarity == pytest.approx(1, abs=1e-5)


def test_a_model_that_compares_nothing_is_refused() -> None:
    classifier, features = _make()
    classifier.gallery = None
    with pytest.raises(CelebflowError, match="compares no photographs"):
        TrainingPhotographs(classifier, features, DATA)


def test_features_of_another_transform_are_refused() -> None:
    classifier, features = _make()
    origin = replace(features.origin, transform=Transform(64))
    _check_refused(classifier, replace(features, origin=origin))


def test_features_of_another_backbone_are_refused() -> None:
    classifier, features = _make()
    origin = replace(features.origin, backbone=replace(features.origin.backbone, fingerprint="1" * 64))
    _check_refused(classifier, replace(features, origin=origin))


def test_features_of_other_people_are_refused() -> None:
    _check_refused(*_make(("Ann", "Bo", "Di")))


def _check_refused(classifier: Classifier, features: Features) -> None:
    with pytest.raises(CelebflowError, match="not trained on the photographs of train here.*dvc repro"):
        TrainingPhotographs(classifier, features, DATA)
