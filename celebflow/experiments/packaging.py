"""A run's result → an MLflow model with everything that prediction needs: code, weights and card, without pickle."""

import base64
import inspect
import io
import shutil
from html import escape
from importlib.metadata import packages_distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from mlflow import MlflowClient, pyfunc
from mlflow.entities import Run
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, DataType, Schema
from PIL import Image

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments.imports import PACKAGE, find_libraries, find_reached
from celebflow.features.faces import DETECTOR_LIBRARIES
from celebflow.features.origin import choose_runtime
from celebflow.inference.loading import load_model
from celebflow.params import TaskName
from celebflow.tasks import TASKS, load_step

_MODEL = "model"  # the model's name in its run
_TEMPLATES = Path(__file__).parent / "templates"


def package_model(client: MlflowClient, run: Run, classifier: Path, backbone: Path, chosen_by: str = "") -> str:
    """Log a run's model and return its id; a run that already has a model keeps it.

    The model holds the code, the classifier, the backbone, a signature, an example, pinned libraries and a model card.

    Raises CelebflowError when the classifier or the backbone cannot be used.
    """
    filter_string = f"source_run_id = '{run.info.run_id}'"
    for logged in client.search_logged_models([run.info.experiment_id], filter_string):
        if logged.name == _MODEL and str(logged.status) == "READY":
            return str(logged.model_id)
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    paths.own_folder().mkdir(exist_ok=True)
    with TemporaryDirectory(dir=paths.own_folder()) as folder:
        names = {"classifier": paths.CLASSIFIER.name, "backbone": paths.BACKBONE.name, "model_card": "model_card.md"}
        files = {artifact: Path(folder) / name for artifact, name in names.items()}
        _link(classifier, files["classifier"])
        _link(backbone, files["backbone"])
        model = load_model(Path(folder))  # raises an error for a model that could not predict
        served: Any = load_step(model.task, "mlflow_model")
        script = Path(inspect.getfile(served))
        libraries = list_libraries(script, model.card.transform.detects_faces)
        files["model_card"].write_text(describe_model(run, chosen_by), encoding="utf-8")
        info = Model.log(
            None,
            pyfunc,
            name=_MODEL,
            run_id=run.info.run_id,
            python_model=str(script),
            code_paths=[str(PACKAGE)],
            artifacts={name: file.as_uri() for name, file in files.items()},  # MLflow would unquote a path
            signature=ModelSignature(
                Schema([ColSpec(DataType.string, name) for name in served.columns]), served.outputs
            ),
            input_example=pd.DataFrame({name: [_draw_example()] for name in served.columns}),
            pip_requirements=[f"{library}=={version(library).partition('+')[0]}" for library in libraries],
        )
    return str(info.model_id)


def list_libraries(script: Path, detects_faces: bool) -> list[str]:
    """Return the distributions that a packaged model needs: those that its code imports, its runtime and detector.

    `script` is the file that MLflow runs.
    """
    distributions = packages_distributions()
    names = find_libraries({script, *find_reached(script)})
    # Several distributions may provide a name, such as mlflow and mlflow-skinny; celebflow requires the plain one.
    libraries = {min(distributions[name], key=len) for name in names}
    if choose_runtime("auto", "cpu") == "ncnn":
        libraries.add("ncnn")
    return sorted(libraries | set(DETECTOR_LIBRARIES if detects_faces else ()))


def _link(source: Path, target: Path) -> None:
    """Give a file of DVC's cache the name that it has in a model; MLflow does not follow symbolic links."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, target)


def describe_model(run: Run, chosen_by: str = "") -> str:
    """Return a model card in Markdown: data, metrics by split, params, limits, and how to restore the result.

    `chosen_by` is the metric of validation that chose the run, or empty.
    """
    # A card in Markdown, in which only what people wrote is escaped.
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), trim_blocks=True)  # noqa: S701
    template = environment.get_template(f"{find_task(run)}_card.md.jinja")
    return template.render(run=run, chosen_by=chosen_by, escape=escape)


def find_task(run: Run) -> TaskName:
    """Return the task of a run; runs of earlier versions have no param that says it.

    Raises CelebflowError when there is no such task, as in a run that another program logged to the same store.
    """
    task = run.data.params.get("task", "recognition")
    if task not in TASKS:
        raise CelebflowError(
            f"Run {run.info.run_id} has the task {task}, which is none of celebflow's: {', '.join(TASKS)}. Choose "
            "another run: `celebflow runs` lists them."
        )
    return task


def _draw_example() -> str:
    """Return a small gray photograph in base64."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "gray").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
