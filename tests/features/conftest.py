"""Prepared photographs, a runtime that counts, and detected faces, that the tests of features share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebflow.backbone import weights
from celebflow.backbone.source import BackboneSource
from celebflow.data.decoding import decode_photograph
from celebflow.data.photos import Photo
from celebflow.features import runtimes, transform
from celebflow.features.cache import open_cache
from celebflow.features.extraction import extract_missing
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin
from celebflow.features.transform import Transform
from celebflow.params import ComputeParams, PrepareParams
from tests.preparing import prepare

CPU = ComputeParams()
SOURCE = BackboneSource("untrained", False, "0" * 64)


class CountingRuntime:
    """A runtime whose features are the first pixels of the image, and that keeps the images."""

    workers = 1

    def __init__(self) -> None:
        self.images: list[NDArray[np.float32]] = []

    def extract(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features that are mostly zeros."""
        self.images.append(image)
        features = np.zeros(25088, np.float32)
        features[: image.size] = image.ravel()
        return features


@pytest.fixture
def data(draw_people: Callable[..., Path]) -> Path:
    """Draw the photographs of two people."""
    return draw_people("Ann", "Bo", count=4)


@pytest.fixture
def photos(data: Path) -> list[Photo]:
    """Prepare them."""
    return prepare(data, PrepareParams())[0]


@pytest.fixture
def decoded(data: Path, photos: list[Photo]) -> list[Image.Image]:
    """Decode them."""
    return [decode_photograph((data / photo.path).read_bytes()) for photo in photos]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> CountingRuntime:
    """Replace the backbone with a runtime that counts."""
    counting = CountingRuntime()
    monkeypatch.setattr(weights, "load_backbone", lambda *_: None)
    monkeypatch.setattr(runtimes, "build_runtime", lambda *_: counting)
    return counting


@pytest.fixture
def extract(tmp_path: Path, data: Path, runtime: CountingRuntime) -> Callable[[list[Photo], Transform], int]:
    """Return a function that extracts what the cache in tmp_path/cache lacks, with the counting runtime."""

    def run(photos: list[Photo], transform: Transform) -> int:
        with open_cache(tmp_path / "cache", FeatureOrigin(SOURCE, transform, "ncnn")) as cache:
            return extract_missing(photos, data, tmp_path / "no backbone", CPU, cache)

    return run


@pytest.fixture
def faces(photos: list[Photo], decoded: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Face]]:
    """Replace the detector with one that finds 0, 1, 2, 0, 1, 2, 0 and 1 faces; return these by path."""
    by_path = {}
    by_pixels = {}
    for number, (photo, photograph) in enumerate(zip(photos, decoded, strict=True)):
        points = ((4.0, 5.5), (9.0, 5.0), (6.5, 7.0), (5.0, 10.0), (8.5, 9.5 + number / 3))
        subject = Face(3, 4, 10 + number, 12, 0.9, points)
        found = [subject, make_face(20, 22.5, 28, 31, 0.8)][: number % 3]
        by_path[photo.path] = found
        by_pixels[photograph.tobytes()] = found
    monkeypatch.setattr(transform, "detect_faces", lambda photograph: by_pixels[photograph.tobytes()])
    return by_path


def make_face(left: float, top: float, right: float, bottom: float, score: float = 1.0) -> Face:
    """Return a face with all landmarks in the middle of its box."""
    middle = ((left + right) / 2, (top + bottom) / 2)
    return Face(left, top, right, bottom, score, (middle, middle, middle, middle, middle))
