"""A model that is not trained, and a server for it, that nobody changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from celebflow.backbone.vgg19 import Backbone
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference.attribute_predictor import AttributePredictor
from celebflow.inference.pair_verifier import PairVerifier
from celebflow.inference.predictor import Predictor
from tests.inference.serving import start_server
from tests.models import save_attribute_model, save_model, save_verifier


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path) -> Path:
    """Save a model for whole photographs, whose threshold lies between the matches of those that tests draw."""
    return save_model(tmp_path_factory.mktemp("model"), backbone, backbone_file, Transform(32), threshold=0.8)


@pytest.fixture(scope="session")
def predictor(model: Path) -> Predictor:
    """Load it."""
    return Predictor.load(model)


@pytest.fixture(scope="session")
def face_predictor(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path) -> Predictor:
    """Load a model that detects faces, and takes two views of each."""
    transform = Transform(32, WHOLE.model_copy(update={"crop": "detect"}), ("original", "mirrored"))
    return Predictor.load(save_model(tmp_path_factory.mktemp("model"), backbone, backbone_file, transform))


@pytest.fixture(scope="session")
def address(predictor: Predictor) -> Iterator[str]:
    """Serve it; yield the server's address."""
    with start_server(predictor) as address:
        yield address


@pytest.fixture(scope="session")
def verifier_model(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path) -> Path:
    """Save a verifier that detects faces, and takes two views of each."""
    transform = Transform(32, WHOLE.model_copy(update={"crop": "detect"}), ("original", "mirrored"))
    return save_verifier(tmp_path_factory.mktemp("verifier"), backbone, backbone_file, transform)


@pytest.fixture(scope="session")
def pair_verifier(verifier_model: Path) -> PairVerifier:
    """Load it."""
    return PairVerifier.load(verifier_model)


@pytest.fixture(scope="session")
def verifier_address(pair_verifier: PairVerifier) -> Iterator[str]:
    """Serve it; yield the server's address."""
    with start_server(pair_verifier) as address:
        yield address


@pytest.fixture(scope="session")
def attribute_model(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path) -> Path:
    """Save a model of attributes that takes the features of `model`."""
    return save_attribute_model(tmp_path_factory.mktemp("attributes"), backbone, backbone_file, Transform(32))


@pytest.fixture(scope="session")
def attribute_predictor(attribute_model: Path) -> AttributePredictor:
    """Load it."""
    return AttributePredictor.load(attribute_model)


@pytest.fixture(scope="session")
def attribute_address(attribute_predictor: AttributePredictor) -> Iterator[str]:
    """Serve it; yield the server's address."""
    with start_server(attribute_predictor) as address:
        yield address
