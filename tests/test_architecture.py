"""The design holds: imports point one way, and dvc.yaml tells the truth about the stages."""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from celebflow import packaging
from celebflow.params import Params
from celebflow.provenance import list_informative
from tests.conftest import REPOSITORY

# A module imports only from rows above its own, or from its own.
LAYERS = [
    {"errors"},
    {"params", "paths", "tables", "style", "markup"},
    {
        "duplicates",
        "data",
        "faces",
        "images",
        "contact_sheets",
        "sparse",
        "feature_transforms",
        "layers",
        "backbone",
        "calibration",
        "classifier",
        "samples",
        "recipes",
    },
    {
        "provenance",
        "runtimes",
        "features",
        "optimizer",
        "fitting",
        "training",
        "checkpoints",
        "evaluation",
        "uncertainty",
        "reports",
        "comparison",
        "figures",
        "explanations",
        "exhibits",
        "page",
        "prediction",
        "neighbours",
        "export",
    },
    {"stores", "experiments", "mlflow_model", "naming", "strangers", "answering", "server", "connections"},
    {"tracking", "page_content"},
    {"packaging", "syncing", "registry", "searching"},
    {"lookup"},
    {"cli"},
]
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def _celebflow_imports(path: Path) -> set[str]:
    modules = {path.stem for path in (REPOSITORY / "celebflow").glob("*.py")}
    parts = (name.split(".") for name in _imports(path) if name.startswith("celebflow."))
    return {part[1] for part in parts if part[1] in modules}


def _reached(path: Path) -> set[str]:
    reached: set[str] = set()
    waiting = [path]
    while waiting:
        new = _celebflow_imports(waiting.pop()) - reached
        reached |= new
        waiting += [REPOSITORY / "celebflow" / f"{name}.py" for name in new]
    return reached


def _find_uses_of_params(path: Path) -> tuple[set[str], set[str]]:
    """Find which sections a stage reads of `params` or `load_params(…)`, and what it hands the whole of them to."""
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


def test_imports_point_one_way() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    modules = {path.stem: path for path in (REPOSITORY / "celebflow").glob("*.py") if path.stem != "__init__"}
    assert set(level) == set(modules)
    for name, path in modules.items():
        assert all(level[imported] <= level[name] for imported in _celebflow_imports(path)), name
        assert name not in _reached(path), f"{name} imports itself by a detour"


@pytest.mark.parametrize(
    ("library", "modules"),
    [("mlflow", {"stores", "tracking", "syncing", "packaging", "registry", "mlflow_model"}), ("dvc", {"experiments"})],
)
def test_only_some_modules_import(library: str, modules: set[str]) -> None:
    paths = [*(REPOSITORY / "celebflow").glob("*.py"), *(REPOSITORY / "stages").glob("*.py")]
    importers = {path.stem for path in paths if any(name.split(".")[0] == library for name in _imports(path))}
    assert importers == modules


def test_a_packaged_model_asks_for_all_that_its_code_imports() -> None:
    script = REPOSITORY / "celebflow" / "mlflow_model.py"
    files = [script, *(REPOSITORY / "celebflow" / f"{name}.py" for name in _reached(script))]
    # What is imported in functions alone is for what the model does not do, or for finding faces.
    nodes = [node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    packages = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"celebflow"}
    called = {"PIL": "pillow", "ruamel": "ruamel.yaml"}
    assert {called.get(package, package) for package in packages} <= set(packaging._LIBRARIES)


def test_stages_are_the_six_and_have_a_script_of_their_name() -> None:
    assert list(STAGES) == ["prepare", "backbone", "extract", "train", "evaluate", "plot"]
    scripts = {path.stem for path in (REPOSITORY / "stages").glob("*.py")} - {"__init__"}
    assert scripts == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_short_and_declares_all_that_it_reaches(stage: str) -> None:
    script = REPOSITORY / "stages" / f"{stage}.py"
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 25
    code = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert code == {f"stages/{stage}.py"} | {f"celebflow/{name}.py" for name in _reached(script)}
    assert ("celebflow/templates" in STAGES[stage]["deps"]) == ("page" in _reached(script))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_declares_exactly_the_params_that_it_reads(stage: str, params: Params) -> None:
    sections, takers = _find_uses_of_params(REPOSITORY / "stages" / f"{stage}.py")
    if "provenance.list_informative" in takers:  # what is shown of them is to be what the result came from
        sections |= {name.split(".")[0] for name in list_informative(params)}
    assert takers <= {"provenance.list_informative", "tracking.start_run", "tracking.continue_run"}
    # Of tracking, each only what makes a difference: to where the run is, and to what is stored of it.
    tracking = {"train": {"tracking.experiment"}, "evaluate": {"tracking.log_model"}}.get(stage, set())
    assert set(STAGES[stage].get("params", [])) == sections - {"tracking"} | tracking
