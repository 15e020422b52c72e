"""Classifiers that are not trained, and a small model on disk, that tests share."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from celebflow.backbone.source import BackboneSource, count_features
from celebflow.backbone.vgg19 import Backbone
from celebflow.classifier.attribute_calibration import AttributeCalibration
from celebflow.classifier.attribute_model import AttributeModel
from celebflow.classifier.calibration import UNCALIBRATED, Calibration
from celebflow.classifier.cards import UNCHANGED, AttributeCard, ClassifierCard, ComparisonSettings, Score, VerifierCard
from celebflow.classifier.enrollment_trials import EnrollmentTrial
from celebflow.classifier.gallery import Gallery, LeftOutMatches
from celebflow.classifier.model import Classifier, save_classifier
from celebflow.classifier.pair_calibration import PairCalibration
from celebflow.classifier.plda import TwoCovariances
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.verifier import Verifier
from celebflow.features.faces import Face
from celebflow.features.transform import Transform
from celebflow.params import PreprocessingParams

NAMES = ("Ann", "Bo", "Cy")
ATTRIBUTES = ("Smiling", "=Hat", "<b>Young</b>", "Bald\x1b[31m", 'Old, "gray"', "Beard")


def make_classifier(
    class_names: Sequence[str],
    hidden_units: Sequence[int],
    dropout: float,
    transform: Transform,
    backbone: BackboneSource,
    preprocessing: PreprocessingParams = UNCHANGED,
    calibration: Calibration = UNCALIBRATED,
) -> Classifier:
    """Build a classifier that is not trained; its weights follow from torch's global seed."""
    names, widths = tuple(class_names), tuple(hidden_units)
    return Classifier(
        ClassifierCard(names, widths, dropout, transform, backbone, preprocessing, calibration=calibration)
    )


def save_model(
    folder: Path,
    backbone: Backbone,
    backbone_file: Path,
    transform: Transform,
    threshold: float | None = None,
    names: Sequence[str] = NAMES,
) -> Path:
    """Save a model that is not trained, and whose calibration is neither the identity nor fitted.

    With a threshold, it has a gallery.
    """
    torch.manual_seed(0)
    calibration = Calibration(0.5, 0.9, threshold, 0.05)
    classifier = make_classifier(names, (32,), 0.5, transform, backbone.source, calibration=calibration)
    if threshold is not None:
        classifier.gallery = make_gallery(len(names), transform)
    save_classifier(classifier, folder / "classifier.safetensors")
    (folder / "backbone.safetensors").symlink_to(backbone_file)
    return folder


def make_gallery(person_count: int, transform: Transform, dimensions: int = 4) -> Gallery:
    """Make a gallery of random people, each of whom has another number of photographs."""
    random = np.random.default_rng(0)
    preprocessor = _make_projection(transform, dimensions)
    people, folds = np.arange(60) % person_count, np.arange(60) % min(5, person_count)
    left_out = LeftOutMatches(random.normal(size=60), people, folds)
    means, counts = random.normal(size=(person_count, dimensions)), np.arange(1, person_count + 1)
    model = TwoCovariances(random.uniform(0.5, 4, dimensions))
    trials = (EnrollmentTrial(1, Calibration(1.0, 0.99, None, 1.0), np.sort(random.normal(-9, 1, 60))),)
    return Gallery(preprocessor, model, means, counts, left_out, trials)


def make_verifier(transform: Transform, backbone: BackboneSource, score: Score = "plda") -> Verifier:
    """Build a verifier that is not trained; all that draw_noise draws is one person to it, and plain blue another."""
    preprocessor = _make_projection(transform, 8)
    card = VerifierCard(
        score=score,
        settings=ComparisonSettings(8, 0.1, 0.5, 0),
        people_count=20,
        transform=transform,
        backbone=backbone,
        preprocessing=preprocessor.settings,
        calibration=PairCalibration(2.0, -3.0, max_probability=0.99, false_match_rate=0.125, false_non_match_rate=0.25),
    )
    return Verifier(preprocessor, TwoCovariances(np.random.default_rng(0).uniform(0.5, 2, 8)), card)


def make_attribute_model(
    names: Sequence[str],
    transform: Transform,
    backbone: BackboneSource,
    hidden_units: Sequence[int] = (),
    preprocessing: PreprocessingParams = UNCHANGED,
) -> AttributeModel:
    """Build a model of attributes that is not trained; its answers to a photograph of noise differ."""
    random = np.random.default_rng(0)
    count = len(names)
    slopes, offsets = random.uniform(0.5, 2, count), random.normal(0, 2, count)
    balanced = random.uniform(0.2, 0.8, count)
    calibration = AttributeCalibration(
        slopes=tuple(slopes.tolist()),
        offsets=tuple(offsets.tolist()),
        max_probabilities=tuple(np.linspace(0.9, 0.99, count).tolist()),
        accuracy_thresholds=(0.5,) * count,
        balanced_thresholds=tuple(balanced.tolist()),
        used="balanced_accuracy",
    )
    card = AttributeCard(
        class_names=tuple(names),
        hidden_units=tuple(hidden_units),
        dropout=0.5,
        transform=transform,
        backbone=backbone,
        preprocessing=preprocessing,
        calibration=calibration,
        yes_fractions=(0.25,) * count,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AttributeModel(card).eval()


def save_attribute_model(
    folder: Path, backbone: Backbone, backbone_file: Path, transform: Transform, names: Sequence[str] = ATTRIBUTES
) -> Path:
    """Save such a model and its backbone."""
    make_attribute_model(names, transform, backbone.source, (16,)).save(folder / "classifier.safetensors")
    (folder / "backbone.safetensors").symlink_to(backbone_file)
    return folder


def _make_projection(transform: Transform, dimensions: int) -> Preprocessor:
    random = np.random.default_rng(0)
    settings = PreprocessingParams(square_root=True, l2_normalize=True, pca_components=dimensions)
    preprocessor = Preprocessor(settings, count_features(transform.layers))
    assert preprocessor.projection is not None
    preprocessor.projection.weight.copy_(torch.from_numpy(random.normal(size=preprocessor.projection.weight.shape)))
    return preprocessor.eval()


def save_verifier(
    folder: Path, backbone: Backbone, backbone_file: Path, transform: Transform, score: Score = "plda"
) -> Path:
    """Save such a verifier and its backbone."""
    make_verifier(transform, backbone.source, score).save(folder / "classifier.safetensors")
    (folder / "backbone.safetensors").symlink_to(backbone_file)
    return folder


def make_face(left: float, top: float, right: float, bottom: float) -> Face:
    """Return a face in this box."""
    landmarks = ((left, top), (right, top), (left + 4, top + 4), (left + 1, bottom), (right - 1, bottom))
    return Face(left, top, right, bottom, score=0.9, landmarks=landmarks)


def draw_blue(kind: str = "PNG") -> bytes:
    """Return an image file that is blue all over."""
    content = io.BytesIO()
    Image.new("RGB", (60, 40), "blue").save(content, kind)
    return content.getvalue()


def draw_noise(seed: int = 0, size: tuple[int, int] = (60, 40), kind: str = "PNG") -> bytes:
    """Return an image file of noise, of this width and height."""
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, kind)
    return content.getvalue()
