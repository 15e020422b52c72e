"""Params, photographs, a backbone, repositories and a browser that tests share."""

import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome

from celebflow.backbone.source import BackboneSource
from celebflow.backbone.vgg19 import Backbone
from celebflow.backbone.weights import load_backbone, make_backbone, save_backbone
from celebflow.data.photos import Photo
from celebflow.features.origin import FeatureOrigin
from celebflow.features.store import Features
from celebflow.features.transform import Transform
from celebflow.params import Params, View, load_params
from tests import COMMITTED_PARAMS
from tests.browser import require_browser, start_browser
from tests.preloaded import provide_programs
from tests.repository import (
    Repository,
    clone_repository,
    make_once,
    make_repository_once,
    make_repository_with_result,
)

# A shell that starts the tests in the background makes them ignore SIGINT, and their child processes would too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Let all workers share the preloaded programs."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        programs = ExitStack()
        programs.enter_context(provide_programs())
        config.add_cleanup(programs.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that hold slow tests, so that no worker is left alone with one of them at the end.

    Those that need a repository take turns with others: while one worker makes it, another need not wait for it.
    """
    slow = list(dict.fromkeys(item.path for item in items if item.get_closest_marker("slow")))
    with_repository = {item.path for item in items if "template" in getattr(item, "fixturenames", ())}
    first, second = ([path for path in slow if (path in with_repository) == with_it] for with_it in (True, False))
    order = [path for pair in zip_longest(first, second) for path in pair if path]
    order += dict.fromkeys(item.path for item in items if item.path not in order)
    items.sort(key=lambda item: order.index(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Free the models that a test leaves in cycles, as of an error and the frames in its traceback.

    The garbage collector counts objects, not bytes, and would let gigabytes of them wait. What stays is frozen, so that
    it is not looked at again.
    """
    result = yield
    gc.collect()
    gc.freeze()
    return result


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
                noise[..., person % 3] = 255  # a person's own color, so that there is something to learn
                Image.fromarray(noise).save(tmp_path / "data" / name / f"{number}.jpg")
        return tmp_path / "data"

    return draw


@pytest.fixture(scope="session")
def backbone_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of an untrained VGG19, as the stage backbone writes it."""

    def make(file: Path) -> None:
        save_backbone(make_backbone("untrained", 0, Path()), file)

    return make_once(tmp_path_factory, "backbone.safetensors", make)


@pytest.fixture(scope="session")
def backbone(backbone_file: Path) -> Backbone:
    """Return an untrained VGG19, whole and frozen."""
    return load_backbone(backbone_file, "cpu")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Start Chromium."""
    require_browser(os.environ)
    with start_browser(tmp_path_factory.mktemp("browser") / "profile") as driver:
        yield driver


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a cluster of two nodes with a processor each, and return its address."""
    from benchmarks.cluster import start_cluster  # it imports Ray, which takes seconds

    with start_cluster(2, processors=1) as nodes:
        yield nodes.address


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Return a repository with a committed result, of which tests change only copies."""
    return make_repository_once(tmp_path_factory, "template", make_repository_with_result)


@pytest.fixture(scope="session")
def two_results(template: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Return a repository with a result in HEAD and a worse one in the workspace, also as the experiment faint.

    The last result is the worse, so that nothing finds the best by its date. Tests change only copies of it.
    """

    def make(folder: Path) -> Repository:
        repository = clone_repository(template, folder)
        repository.edit("learning_rate: 0.001", "learning_rate: 1.0e-09")
        assert repository.repro() == ["train", "evaluate", "plot"]
        repository.run("dvc", "exp", "save", "--name", "faint")
        return repository

    return make_repository_once(tmp_path_factory, "two_results", make)


@pytest.fixture
def repository(template: Repository, tmp_path: Path) -> Repository:
    """Return a copy of the repository with a committed result."""
    return clone_repository(template, tmp_path / "repository")


def draw_features(
    count: int = 60, views: tuple[View, ...] = ("original",), people: tuple[str, ...] = ("Ann", "Bo", "Cy")
) -> Features:
    """Generate features of some people in all splits; each person has their own range of positions."""
    random = np.random.default_rng(0)
    splits = ("train", "train", "val", "test")
    photos = []
    positions = []
    for number in range(count):
        person = number % len(people)
        split = splits[number // len(people) % len(splits)]
        photos.append(Photo(f"{number}.jpg", people[person], split, f"{number:064}", f"{number:064}"))
        for _ in views:
            positions.append(np.sort(random.choice(5000, 100, replace=False)) + 2000 * person)
    indices = np.concatenate(positions).astype(np.uint16)
    values = random.random(len(indices), np.float32)
    offsets = np.arange(len(positions) + 1, dtype=np.int64) * 100
    origin = FeatureOrigin(BackboneSource("untrained", False, "0" * 64), Transform(224, views=views), "ncnn")
    return Features(offsets, indices, values, photos, origin, subjects={})
