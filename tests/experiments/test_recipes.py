"""Recipes differ from the base in what they are about, and DVC makes params.yaml into them."""

import subprocess
import sys
from pathlib import Path

import pytest

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments.recipes import find_changes, list_arguments, list_recipes, load_recipe
from celebflow.params import Params, load_params
from tests.conftest import COMMITTED_PARAMS, REPOSITORY
from tests.repository import EVERY_STAGE, Repository, make_repository

NAMES = sorted(file.stem for file in (REPOSITORY / "recipes").glob("*.yaml"))
ABOUT = {"extract", "train"}


def _write_recipes(folder: Path, **changes: dict[str, str]) -> None:
    """Write recipes that differ from the committed params by replacements."""
    (folder / "recipes").mkdir()
    for name, replacements in changes.items():
        content = COMMITTED_PARAMS
        for old, new in replacements.items():
            assert old in content
            content = content.replace(old, new)
        (folder / "recipes" / f"{name}.yaml").write_text(content, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a base recipe and two others, and go there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(COMMITTED_PARAMS, encoding="utf-8")
    _write_recipes(
        tmp_path,
        base={},
        alternative={"pca_components: null": "pca_components: 600", "classifier: network": "classifier: lda"},
        zooming={
            "  - original\n": "  - original\n  - mirrored\n",
            "learning_rate: 0.0001": "learning_rate: 0.00001",
            "square_root: false": "square_root: true",
            "crop: none": "crop: center",
        },
    )
    return tmp_path


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "celebflow.cli", "recipe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_base_recipe_is_the_committed_params() -> None:
    assert (REPOSITORY / "recipes" / "base.yaml").read_text(encoding="utf-8") == COMMITTED_PARAMS


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_differs_from_the_base_in_features_and_training_alone(
    name: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    recipe = load_recipe(name)
    for section in set(Params.model_fields) - ABOUT:
        assert getattr(recipe, section) == getattr(params, section), section
    assert (find_changes(params, recipe) == {}) == (name == "base")


@pytest.mark.parametrize("name", NAMES)
def test_arguments_of_every_recipe_hold_nothing_that_a_shell_would_split(
    name: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    for argument in list_arguments(find_changes(params, load_recipe(name))):
        assert not set(argument) & set(" \t\n'\"\\$;&|<>(){}*?"), argument


def test_changes_are_those_of_features_and_training_between_any_two(folder: Path, params: Params) -> None:
    assert find_changes(params, load_recipe("zooming")) == {
        "extract.face.crop": "center",
        "extract.views": ["original", "mirrored"],
        "train.transform.square_root": True,
        "train.learning_rate": 1e-5,
    }
    back = find_changes(load_recipe("alternative"), params)
    assert back == {"train.transform.pca_components": None, "train.classifier": "network"}
    elsewhere = params.model_copy(update={"prepare": params.prepare.model_copy(update={"seed": 7})})
    assert find_changes(params, elsewhere) == {}


def test_arguments_are_written_as_dvc_reads_them() -> None:
    changes = {"a.b": None, "c": True, "d": False, "e": 1e-05, "f": 600, "g": ["x", "y"], "h": [], "i": "none"}
    assert list_arguments(changes) == [
        "--set-param=a.b=null",
        "--set-param=c=true",
        "--set-param=d=false",
        "--set-param=e=1e-05",
        "--set-param=f=600",
        "--set-param=g=[x,y]",
        "--set-param=h=[]",
        "--set-param=i=none",
    ]


def test_recipes_are_listed_with_the_base_first(folder: Path) -> None:
    listed = list_recipes()
    assert [recipe.name for recipe in listed] == ["base", "alternative", "zooming"]
    assert listed[0].changes == {}
    assert listed[1].changes == {"train.transform.pca_components": 600, "train.classifier": "lda"}


def test_the_command_lists_recipes_and_says_how_they_differ_from_the_base(folder: Path) -> None:
    (folder / "params.yaml").write_text(COMMITTED_PARAMS.replace("epochs: 10", "epochs: 3"), encoding="utf-8")
    result = _run(folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "base: what params.yaml is committed with",
        "alternative",
        "  train.transform.pca_components=600",
        "  train.classifier=lda",
        "zooming",
        "  extract.face.crop=center",
        "  extract.views=[original,mirrored]",
        "  train.transform.square_root=true",
        "  train.learning_rate=1e-05",
    ]


def test_the_command_prints_what_changes_params_yaml_as_it_is_now(folder: Path) -> None:
    content = COMMITTED_PARAMS.replace("epochs: 10", "epochs: 3").replace("classifier: network", "classifier: logistic")
    (folder / "params.yaml").write_text(content, encoding="utf-8")
    result = _run(folder, "alternative")
    expected = ["--set-param=train.transform.pca_components=600", "--set-param=train.classifier=lda"]
    assert result.stdout.split() == [*expected, "--set-param=train.epochs=10"]
    assert _run(folder, "base").stdout.split() == [
        "--set-param=train.classifier=network",
        "--set-param=train.epochs=10",
    ]


def test_the_committed_recipes_are_listed() -> None:
    result = _run(REPOSITORY)
    assert [line.split(":")[0] for line in result.stdout.splitlines() if not line.startswith(" ")] == [
        "base",
        *(name for name in NAMES if name != "base"),
    ]


def test_an_unknown_recipe_is_an_error_that_names_those_that_there_are(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match="no recipe 'bset' in recipes, but alternative, base, zooming"):
        load_recipe("bset")
    with pytest.raises(CelebflowError, match="no recipe '../params' in recipes"):
        load_recipe("../params")
    result = _run(folder, "bset")
    assert (result.returncode, result.stdout) == (1, "")
    assert "alternative, base, zooming" in result.stderr and "Traceback" not in result.stderr
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "params.yaml").write_text(COMMITTED_PARAMS, encoding="utf-8")
    result = _run(tmp_path / "elsewhere", "base")
    assert "but none. Run from the folder that dvc.yaml stands in" in result.stderr


def test_a_recipe_that_does_not_fit_is_an_error_by_key(folder: Path) -> None:
    file = folder / "recipes" / "zooming.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("epochs: 10", "epochs: ten"), encoding="utf-8")
    result = _run(folder, "zooming")
    assert result.returncode == 1
    assert "zooming.yaml does not fit" in result.stderr and "train.epochs" in result.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Make a small repository with the committed recipes, and with params of its own elsewhere."""
    repository = make_repository(tmp_path_factory.mktemp("repository"))
    repository.edit("prepare:\n  seed: 0", "prepare:\n  seed: 3")
    repository.run("git", "commit", "--quiet", "--all", "--message", "another split")
    return repository


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_dvc_makes_params_yaml_into_the_recipe(repository: Repository, name: str) -> None:
    before = load_params(repository.folder / "params.yaml")
    arguments = repository.run("celebflow", "recipe", name).split()
    assert len(arguments) > 3, "the repository's own params differ from all"
    try:
        repository.run("dvc", "exp", "run", *arguments, "--single-item", "prepare")
        after = load_params(repository.folder / "params.yaml")
    finally:
        repository.run("git", "checkout", "--quiet", "--force", "HEAD")
    wanted = load_params(repository.folder / paths.RECIPES / f"{name}.yaml")
    for section in Params.model_fields:
        expected = getattr(wanted if section in ABOUT else before, section)
        assert getattr(after, section) == expected, section


@pytest.mark.slow
def test_a_recipe_is_run_as_an_experiment(repository: Repository) -> None:
    arguments = repository.run("celebflow", "recipe", "best").split()
    small = ["--set-param=extract.image_size_px=64", "--set-param=train.transform.pca_components=8"]
    output = repository.run("dvc", "exp", "run", "--name", "best-in-small", *arguments, *small)
    for stage in EVERY_STAGE[2:]:
        assert f"Running stage '{stage}'" in output
    wanted = load_recipe_of(repository, "best")
    (run,) = repository.runs()
    assert run.info.status == "FINISHED"
    assert run.data.params["train.classifier"] == wanted.train.classifier
    assert run.data.params["extract.views"] == str(list(wanted.extract.views))
    assert run.data.params["extract.image_size_px"] == "64"
    assert (repository.folder / "reports" / "index.html").stat().st_size > 0
    repository.run("git", "checkout", "--quiet", "--force", "HEAD")


def load_recipe_of(repository: Repository, name: str) -> Params:
    return load_params(repository.folder / paths.RECIPES / f"{name}.yaml")
