"""The design holds: imports point one way, and dvc.yaml declares what the stages read."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from celebflow.experiments.imports import PACKAGE, find_libraries, find_reached
from celebflow.params import Params, TaskName, list_informative
from celebflow.tasks import TASKS, Step, load_step
from tests import REPOSITORY

# A module imports only from its own folder and from those before it; modules without a folder come first.
FOLDERS = (
    "data",
    "backbone",
    "features",
    "classifier",
    "evaluation",
    "tracking",
    "report",
    "inference",
    "experiments",
)
SHARED = ("cluster", "errors", "params", "paths", "tasks", "versions")
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
SCRIPTS = {path.stem: path for path in (REPOSITORY / "stages").glob("*.py") if path.stem != "__init__"}


def _level(module: Path) -> int:
    folder = module.parent.name
    if folder in FOLDERS:
        return FOLDERS.index(folder)
    return -1 if module.stem in SHARED else len(FOLDERS)


def find_wrong_arrows(package: Path) -> list[str]:
    """Return each direct import that points backward, as "module -> module"."""
    wrong = []
    for module in package.rglob("*.py"):
        for imported in find_reached(module, package.parent, directly=True):
            if _level(imported) > _level(module):
                wrong.append(f"{module.relative_to(package)} -> {imported.relative_to(package)}")
    return wrong


def _find_steps(stage: str) -> list[Path]:
    """Return the modules of the functions that the tasks have for a stage."""
    step = {"prepare": "split", "train": "train", "evaluate": "evaluate", "plot": "publish"}.get(stage)
    names = [getattr(task, step).partition(":")[0] for task in TASKS.values()] if step else []
    return [(REPOSITORY / Path(*name.split("."))).with_suffix(".py") for name in names]


def _find_uses_of_params(path: Path) -> tuple[set[str], set[str]]:
    """Return the sections that a stage reads of `params` or `load_params(…)`, and what it passes all params to."""
    sections, takers = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for child in ast.iter_child_nodes(node):
            is_name = isinstance(child, ast.Name) and child.id == "params" and isinstance(child.ctx, ast.Load)
            is_loaded = isinstance(child, ast.Call) and ast.unparse(child.func) == "load_params"
            if isinstance(node, ast.Attribute) and (is_name or is_loaded):
                sections.add(node.attr)
            elif is_name or (is_loaded and isinstance(node, ast.Call | ast.keyword)):
                takers.add(ast.unparse(node.func if isinstance(node, ast.Call) else node))
    return sections, takers


def test_every_module_is_in_a_folder_of_the_list_or_shared() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(FOLDERS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*SHARED, "__init__", "cli"}


def test_imports_point_one_way() -> None:
    assert find_wrong_arrows(PACKAGE) == []


def test_no_module_imports_itself_through_others() -> None:
    imports = {module: find_reached(module, directly=True) for module in PACKAGE.rglob("*.py")}
    TopologicalSorter(imports).prepare()  # raises CycleError, which lists the cycle


@pytest.mark.parametrize("number", range(len(FOLDERS)))
def test_a_wrong_arrow_is_found(number: int, tmp_path: Path) -> None:
    package = tmp_path / "celebflow"
    later = FOLDERS[number + 1] if number + 1 < len(FOLDERS) else None
    module = package / FOLDERS[number] / "early.py"
    target = package / later / "late.py" if later else package / "cli.py"
    for file in (module, target):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    name = f"celebflow.{later}.late" if later else "celebflow.cli"
    module.write_text(f"def run():\n    import {name}\n")
    assert find_wrong_arrows(package) == [f"{FOLDERS[number]}/early.py -> {target.relative_to(package)}"]


@pytest.mark.parametrize(
    ("library", "modules"),
    [
        (
            "mlflow",
            {
                "tracking/mlflow_runs",
                "tracking/stores",
                "tracking/syncing",
                "experiments/packaging",
                "experiments/registry",
                "experiments/mlflow_attributes",
                "experiments/mlflow_model",
                "experiments/mlflow_photographs",
                "experiments/mlflow_verifier",
            },
        ),
        ("dvc", {"experiments/results"}),
    ],
)
def test_only_some_modules_import(library: str, modules: set[str]) -> None:
    importers = {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
        if library in find_libraries({path})
    }
    assert importers == modules
    assert not any(library in find_libraries({script}) for script in SCRIPTS.values())


def test_stages_are_the_six_and_have_a_script_of_their_name() -> None:
    assert list(STAGES) == ["prepare", "backbone", "extract", "train", "evaluate", "plot"]
    assert set(SCRIPTS) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_short_and_declares_the_code_that_it_reaches(stage: str) -> None:
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"
    assert len(SCRIPTS[stage].read_text(encoding="utf-8").splitlines()) <= 25
    # A folder stands for all of its modules; stages/__init__.py only starts and ends the process.
    expected = {f"stages/{stage}.py"}
    reached = find_reached(SCRIPTS[stage])
    for module in _find_steps(stage):  # which the stage imports by name
        reached |= {module, *find_reached(module)}
    for module in reached:
        place = module.parent if module.parent != PACKAGE else module
        expected.add(place.relative_to(REPOSITORY).as_posix())
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("stages/", "celebflow/"))}
    assert declared == expected
    assert len(declared) <= 12


@pytest.mark.parametrize("stage", STAGES)
def test_stage_declares_exactly_the_params_that_it_reads(stage: str, params: Params) -> None:
    sections, takers = _find_uses_of_params(SCRIPTS[stage])
    if "list_informative" in takers:  # what is shown of them must be what the result came from
        sections |= {name.split(".")[0] for name in list_informative(params)}
    assert takers <= {"list_informative", "runs.start_run", "runs.continue_run"}
    # Of tracking, only where the run is makes a difference.
    tracking = {"train": {"tracking.experiment"}}.get(stage, set())
    # Where photographs are decoded and features computed makes none, so that another cluster runs no stage again.
    compute = {"compute.device"} if "compute" in sections and stage != "prepare" else set()
    assert set(STAGES[stage].get("params", [])) == sections - {"compute", "tracking"} | compute | tracking


@pytest.mark.parametrize("name", TASKS)
def test_every_step_of_a_task_exists(name: TaskName) -> None:
    for step in get_args(Step):
        assert callable(load_step(name, step))


def test_json_holds_no_numbers_that_are_not_finite() -> None:
    writers = 0
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dump", "json.dumps"):
                writers += 1
                assert "allow_nan=False" in map(ast.unparse, node.keywords), f"{module}, line {node.lineno}"
    assert writers > 5
