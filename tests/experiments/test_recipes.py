"""Recipes are overlays of the base recipe, and DVC turns params.yaml into them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from celebflow import cli
from celebflow.errors import CelebflowError
from celebflow.experiments.recipes import find_changes, list_arguments, list_recipes, load_recipe
from celebflow.params import Params, check_params, load_params
from tests import COMMITTED_PARAMS, REPOSITORY
from tests.repository import EVERY_STAGE, Repository

NAMES = ["base", *sorted(file.stem for file in (REPOSITORY / "recipes").glob("*.yaml"))]
CHANGEABLE = {"task", "extract", "train"}
NO_CONTEXT = {"context": "none", "context_margin": 0.25}
# Every param that a recipe determines, with the values that give the results in docs/accuracy.md.
BEST: dict[str, Any] = {
    "task": "recognition",
    "extract": {
        "image_size_px": 224,
        "face": {"crop": "detect", "center_fraction": 0.64, "margin": -0.05, "align": True, **NO_CONTEXT},
        "views": ["original", "mirrored", "closer", "closer_mirrored"],
        "layers": ["pool4", "pool5"],
        "runtime": "auto",
    },
    "train": {
        "seed": 0,
        "preprocessing": {"square_root": True, "l2_normalize": True, "standardize": False, "pca_components": 600},
        "classifier": "lda",
        "hidden_units": [4096, 4096],
        "dropout": 0.5,
        "learning_rate": 0.0001,
        "learning_rate_schedule": "constant",
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "class_weights": "none",
        "sampling": "none",
        "batch_size": 32,
        "epochs": 10,
        "patience_epochs": None,
        "keep_epoch": "last",
        "lda_shrinkage": 0.05,
        "plda_between_scale": 0.5,
        "logistic_c": 1.0,
        "ridge_penalty": 1.0,
        "false_acceptance_rate": 0.05,
        "attribute_thresholds": "accuracy",
    },
}
FAST: dict[str, Any] = {
    "task": "recognition",
    "extract": {**BEST["extract"], "views": ["original", "mirrored"]},
    "train": {
        **BEST["train"],
        "preprocessing": {"square_root": True, "l2_normalize": True, "standardize": False, "pca_components": 300},
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the committed params and two recipes, and go there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(COMMITTED_PARAMS, encoding="utf-8")
    _write_recipe("zooming", "# Smaller steps\nextract:\n  face:\n    crop: center\ntrain:\n  learning_rate: 0.00001\n")
    _write_recipe("alternative", "train:\n  preprocessing:\n    pca_components: 600\n  classifier: lda\n")
    return tmp_path


def _write_recipe(name: str, content: str) -> None:
    Path("recipes").mkdir(exist_ok=True)
    Path("recipes", f"{name}.yaml").write_text(content, encoding="utf-8")


def _run(*arguments: str) -> str:
    return CliRunner().invoke(cli.main, ["recipe", *arguments], catch_exceptions=False).output


@pytest.mark.parametrize(("name", "expected"), [("best", BEST), ("fast", FAST)])
def test_a_committed_recipe_determines_features_and_training_alone(
    name: str, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    recipe = load_recipe(name).model_dump(mode="json")
    assert {section: recipe[section] for section in CHANGEABLE} == expected
    others = Params().model_dump(mode="json", exclude=CHANGEABLE)
    assert {section: recipe[section] for section in others} == others


def test_the_base_recipe_is_the_committed_params(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert load_recipe("base") == params


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_recipe_runs_in_a_project_with_unknown_people(
    name: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    recipe = load_recipe(name)
    prepare = params.prepare.model_copy(update={"unknown_folder": "data/unknown"})
    checked = check_params({**recipe.model_dump(), "prepare": prepare.model_dump()}, "params.yaml")
    assert checked.task == recipe.task


@pytest.mark.parametrize("name", NAMES)
def test_arguments_of_a_committed_recipe_hold_nothing_that_a_shell_would_split(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    other = load_recipe("fast" if name == "base" else "base")
    arguments = list(list_arguments(find_changes(other, load_recipe(name))))
    assert arguments
    for argument in arguments:
        assert not set(argument) & set(" \t\n'\"\\$;&|<>(){}*?"), argument


def test_an_overlay_keeps_the_defaults_of_the_keys_that_it_does_not_have(folder: Path) -> None:
    recipe = load_recipe("zooming")
    assert find_changes(Params(), recipe) == {"extract.face.crop": "center", "train.learning_rate": 1e-5}
    assert recipe.extract.face.margin == Params().extract.face.margin


def test_changes_lead_from_any_params_to_a_recipe_in_features_and_training_alone(folder: Path) -> None:
    assert find_changes(load_recipe("alternative"), load_recipe("zooming")) == {
        "extract.face.crop": "center",
        "train.preprocessing.pca_components": None,
        "train.classifier": "mlp",
        "train.learning_rate": 1e-5,
    }
    base = Params()
    other_seed = base.model_copy(update={"prepare": base.prepare.model_copy(update={"seed": 7})})
    assert find_changes(base, other_seed) == {}


def test_arguments_are_written_as_dvc_parses_them() -> None:
    changes = {"a.b": None, "c": True, "d": False, "e": 1e-05, "f": 600, "g": ["x", "y"], "h": [], "i": "none"}
    assert list(list_arguments(changes)) == [
        "--set-param=a.b=null",
        "--set-param=c=true",
        "--set-param=d=false",
        "--set-param=e=1e-05",
        "--set-param=f=600",
        "--set-param=g=[x,y]",
        "--set-param=h=[]",
        "--set-param=i=none",
    ]


def test_recipes_are_listed_with_reason_and_changes_and_the_base_first(folder: Path) -> None:
    _write_recipe("alternative", "# Cheaper to train.\n# Not part of the reason.\ntrain:\n  classifier: linear\n")
    base, alternative, zooming = list_recipes()
    assert (base.name, base.changes) == ("base", {})
    assert (alternative.name, alternative.reason) == ("alternative", "Cheaper to train.")
    assert alternative.changes == {"train.classifier": "linear"}
    assert (zooming.name, zooming.reason) == ("zooming", "Smaller steps")
    first, *lines = _run().splitlines()
    assert first.startswith("base: ")
    assert lines == [
        "alternative: Cheaper to train.",
        "  train.classifier=linear",
        "zooming: Smaller steps",
        "  extract.face.crop=center",
        "  train.learning_rate=1e-05",
    ]


def test_the_list_does_not_depend_on_params_yaml(folder: Path) -> None:
    before = _run()
    (folder / "params.yaml").write_text(COMMITTED_PARAMS.replace("epochs: 10", "epochs: 3"), encoding="utf-8")
    assert _run() == before


def test_every_committed_recipe_is_listed_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    recipes = list_recipes()
    assert [recipe.name for recipe in recipes] == NAMES
    assert all(recipe.reason.endswith(".") for recipe in recipes)


def test_the_command_prints_what_changes_the_current_params_to_the_recipe(folder: Path) -> None:
    content = COMMITTED_PARAMS.replace("epochs: 10", "epochs: 3").replace("classifier: mlp", "classifier: logistic")
    (folder / "params.yaml").write_text(content, encoding="utf-8")
    assert _run("alternative").split() == [
        "--set-param=train.preprocessing.pca_components=600",
        "--set-param=train.classifier=lda",
        "--set-param=train.epochs=10",
    ]
    assert _run("base").split() == ["--set-param=train.classifier=mlp", "--set-param=train.epochs=10"]


@pytest.mark.parametrize("name", ["bset", "../params"])
def test_an_unknown_recipe_is_refused_with_the_names_of_all(folder: Path, name: str) -> None:
    with pytest.raises(CelebflowError) as caught:
        load_recipe(name)
    for part in (repr(name), "base, alternative, zooming", "dvc.yaml"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("prepare:\n  seed: 1\n", ["changes prepare", "extract and train"]),
        ("tracking:\n  required: false\nbackbone:\n  seed: 1\ntrain: {}\n", ["tracking, backbone", "params.yaml"]),
        ("train:\n  epochs: ten\n", ["train.epochs", "'ten'"]),
        ("train:\n  epoch: 3\n", ["train.epoch: unknown"]),
        ("train:\n  preprocessing:\n    whiten: true\n", ["train.preprocessing.whiten: unknown"]),
        ("train:\n  schedule: cosine\n", ["train.schedule", "train.learning_rate_schedule"]),
        ("extract: none\n", ["extract"]),
        ("train:\n  classifier: lda\n", ["train", "pca_components"]),
        ("best\n", ["no sections"]),
        ("", ["no sections"]),
        ("train: [\n", ["YAML"]),
    ],
)
def test_a_recipe_that_is_not_valid_is_refused_with_its_file_and_key(
    folder: Path, content: str, parts: list[str]
) -> None:
    _write_recipe("zooming", content)
    with pytest.raises(CelebflowError) as caught:
        load_recipe("zooming")
    for part in ["recipes/zooming.yaml", *parts]:
        assert part in str(caught.value)


def test_a_recipe_that_is_not_utf_8_is_refused_with_its_file(folder: Path) -> None:
    (folder / "recipes" / "zooming.yaml").write_bytes(b"# caf\xe9\ntrain: {}\n")
    with pytest.raises(CelebflowError, match="recipes/zooming.yaml"):
        list_recipes()


def test_a_recipe_that_is_not_valid_ends_the_command_without_a_traceback(folder: Path) -> None:
    _write_recipe("zooming", "prepare:\n  seed: 1\n")
    command = [sys.executable, "-m", "celebflow.cli", "recipe", "zooming"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert "recipes/zooming.yaml changes prepare" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_dvc_changes_params_yaml_to_the_recipe(
    repository: Repository, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_params(repository.folder / "params.yaml")
    arguments = repository.invoke("recipe", name).split()
    assert len(arguments) > 3, "the repository's own params differ from every recipe"
    repository.run("dvc", "exp", "run", *arguments, "--single-item", "backbone")
    after = load_params(repository.folder / "params.yaml")
    monkeypatch.chdir(REPOSITORY)
    wanted = load_recipe(name)
    for section in Params.model_fields:
        expected = getattr(wanted if section in CHANGEABLE else before, section)
        assert getattr(after, section) == expected, section


@pytest.mark.slow
def test_a_recipe_is_run_as_an_experiment(repository: Repository) -> None:
    arguments = repository.invoke("recipe", "best").split()
    small = ["--set-param=extract.image_size_px=64", "--set-param=train.preprocessing.pca_components=8"]
    output = repository.run("dvc", "exp", "run", "--name", "best-in-small", *arguments, *small)
    for stage in EVERY_STAGE[2:]:
        assert f"Running stage '{stage}'" in output
    run = repository.runs()[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["celebflow.dvc_experiment"] == "best-in-small"
    assert run.data.params["train.classifier"] == "lda"
    assert run.data.params["extract.views"] == str(["original", "mirrored", "closer", "closer_mirrored"])
    assert run.data.params["extract.image_size_px"] == "64"
    assert (repository.folder / "reports" / "index.html").stat().st_size > 0
