"""A packaged model pins the libraries that it needs, and its card says what the model is."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

from celebflow.experiments import packaging
from celebflow.experiments.imports import PACKAGE, find_libraries, find_reached
from celebflow.experiments.packaging import describe_model, list_libraries
from celebflow.features.faces import DETECTOR_LIBRARIES

DISTRIBUTIONS = packages_distributions()
SCRIPTS = [PACKAGE / "experiments" / f"{name}.py" for name in ("mlflow_model", "mlflow_verifier", "mlflow_attributes")]


@pytest.fixture(autouse=True)
def distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into the environment once, which takes seconds."""
    monkeypatch.setattr(packaging, "packages_distributions", lambda: DISTRIBUTIONS)


@pytest.mark.slow  # Python starts anew and imports MLflow and torch
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_library_that_the_model_s_code_imports_is_pinned(script: Path) -> None:
    # What Python is told to import, in the place of what celebflow.experiments.imports reads from the code.
    code = f"""
import builtins, json, sys
import_module, imported = builtins.__import__, set()

def record(name, globals=None, locals=None, fromlist=(), level=0):
    if globals and str(globals.get("__name__")).startswith("celebflow"):
        imported.add(name.partition(".")[0])
    return import_module(name, globals, locals, fromlist, level)

builtins.__import__ = record
import celebflow.experiments.{script.stem}
print(json.dumps(sorted(imported - sys.stdlib_module_names - {{"celebflow"}})))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    imported = set(json.loads(output.splitlines()[-1]))
    assert {"mlflow", "torch", "numpy", "PIL", "pandas"} <= imported
    pinned = set(list_libraries(script, detects_faces=False))
    for name in imported:
        assert pinned & set(DISTRIBUTIONS[name]), name


@pytest.mark.parametrize("runtime", ["ncnn", "torch"])
def test_ncnn_is_pinned_where_it_computes_the_features(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "choose_runtime", lambda runtime_name, device: runtime)
    assert ("ncnn" in list_libraries(SCRIPTS[0], detects_faces=False)) == (runtime == "ncnn")


@pytest.mark.parametrize("detects_faces", [True, False])
def test_the_detector_is_pinned_where_it_detects_faces(detects_faces: bool) -> None:
    pinned = set(list_libraries(SCRIPTS[0], detects_faces))
    assert pinned & set(DETECTOR_LIBRARIES) == (set(DETECTOR_LIBRARIES) if detects_faces else set())


def test_pinned_libraries_are_installed_and_required_by_celebflow() -> None:
    required = {re.split(r"[^\w.-]", requirement)[0] for requirement in requires("celebflow") or []}
    pinned = list_libraries(SCRIPTS[0], detects_faces=True)
    assert pinned == sorted(set(pinned))
    assert set(pinned) <= required
    for library in pinned:
        assert version(library)


def test_libraries_are_those_imported_at_module_level(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import os\nimport torch.nn as nn\nfrom PIL import Image\nfrom celebflow import paths\n"
        "def run():\n    import onnx\n    from sklearn.metrics import roc_auc_score\n"
    )
    assert find_libraries({file}) == {"torch", "PIL"}


def test_modules_are_found_through_others_and_inside_functions(tmp_path: Path) -> None:
    package = tmp_path / "celebflow"
    package.mkdir()
    contents = {
        "first": "from celebflow.second import name\n",
        "second": "def run():\n    from celebflow import third\n",
        "third": "import celebflow.first\nimport json\n",
        "unrelated": "from celebflow import first\n",
    }
    files = {name: package / f"{name}.py" for name in contents}
    for name, content in contents.items():
        files[name].write_text(content)
    assert find_reached(files["first"], tmp_path) == {files["second"], files["third"]}
    assert find_reached(files["first"], tmp_path, directly=True) == {files["second"]}


def _make_run(params: dict[str, str], tags: dict[str, str]) -> Run:
    metrics = {"val/final_accuracy": 0.75, "test/final_accuracy": 0.5, "val/final_loss": 1.25, "train/loss": 0.125}
    data = RunData(
        metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()],
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    return Run(RunInfo("f" * 32, "1", "user", "FINISHED", 0, 1, "active"), data)


def test_the_card_has_metrics_params_limits_and_the_command_that_restores_the_result() -> None:
    tags = {
        "celebflow.warning": "UNTRAINED BACKBONE",
        "celebflow.data_md5": "0123.dir",
        "celebflow.backbone_weights": "<vgg19>.pth",
        "celebflow.backbone_fingerprint": "abcdef0123456789",
        "celebflow.restore": "dvc exp apply lower-rate",
    }
    card = describe_model(_make_run({"train.classifier": "<mlp>"}, tags), "val/final_accuracy")
    for line in (
        "**UNTRAINED BACKBONE**",
        "- md5 of the photographs: 0123.dir",
        "| accuracy | 0.7500 | 0.5000 |",
        "| loss | 1.2500 |  |",
        "- train.classifier: &lt;mlp&gt;",
        "- backbone: &lt;vgg19&gt;.pth, fingerprint abcdef012345",
        "`dvc exp apply lower-rate`",
    ):
        assert line in card.splitlines()
    assert "chosen by val/final_accuracy" in card
    assert "0.125" not in card
    assert "unknown" in card and "does not detect faces" in card


def test_the_card_of_a_detecting_model_says_that_it_sees_faces_alone() -> None:
    card = describe_model(_make_run({"extract.face.crop": "detect"}, {}))
    assert "the face of the photograph's subject" in card
    assert "does not detect faces" not in card
    assert "chosen by" not in card
    assert "See the run's params.yaml." in card


def test_the_card_of_a_verifier_says_what_it_answers_and_how_often_it_is_wrong() -> None:
    params = {"task": "verification", "extract.face.crop": "detect"}
    card = describe_model(_make_run(params, {"celebflow.warning": "UNTRAINED BACKBONE"}), "val/final_accuracy")
    lines = card.splitlines()
    assert lines[0] == "# Whether two photographs show the same person"
    assert "**UNTRAINED BACKBONE**" in lines and "| accuracy | 0.7500 | 0.5000 |" in lines
    assert "## Data" in lines and "## Limits" in lines, "nothing runs into a heading"
    for part in ("A verifier", "log odds", "equally likely", "false match rate", "no answer", "val/final_accuracy"):
        assert part in card
    assert "always predicts" not in card


def test_the_card_of_a_model_of_attributes_says_what_the_answers_are_not() -> None:
    card = describe_model(_make_run({"task": "attributes", "extract.face.crop": "detect"}, {}))
    assert card.splitlines()[0] == "# Which attributes a face has"
    for part in ("probability of yes", "uncertain", "gender identity", "groups.csv", "it has no answer", "## Params"):
        assert part in card
