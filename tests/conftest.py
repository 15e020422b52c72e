"""Photographs, params and a small pipeline that tests share."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.backbone import Backbone, make_backbone, save_backbone
from celebflow.params import Params, load_params

REPOSITORY = Path(__file__).resolve().parent.parent
# params.yaml as committed, also after `make demo` has changed this one line.
COMMITTED_PARAMS = (
    (REPOSITORY / "params.yaml").read_text(encoding="utf-8").replace("weights: untrained", "weights: imagenet")
)

# A shell that runs the tests in the background has them ignore SIGINT, and programs that they start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def params(tmp_path: Path) -> Params:
    """Return the base recipe as committed."""
    (tmp_path / "base.yaml").write_text(COMMITTED_PARAMS, encoding="utf-8")
    return load_params(tmp_path / "base.yaml")


@pytest.fixture
def draw_people(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that draws `count` different noise photographs of each named person into tmp_path/data."""

    def draw(*names: str, count: int = 8, size: int = 40) -> Path:
        for person, name in enumerate(names):
            (tmp_path / "data" / name).mkdir(parents=True)
            for number in range(count):
                noise = np.random.default_rng([person, number]).integers(0, 255, (size, size, 3), np.uint8)
                noise[..., person % 3] = 255  # a person's own colour, so that there is something to learn
                Image.fromarray(noise).save(tmp_path / "data" / name / f"{number}.jpg")
        return tmp_path / "data"

    return draw


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """Return an untrained VGG19, whole and frozen."""
    return make_backbone("untrained", 0, Path())


@pytest.fixture(scope="session")
def backbone_file(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> Path:
    """Save it, as the stage backbone does."""
    file = tmp_path_factory.mktemp("models") / "backbone.safetensors"
    save_backbone(backbone, file)
    return file
