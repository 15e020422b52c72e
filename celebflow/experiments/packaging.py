"""A run's result → a model of MLflow's that holds all that prediction needs: code, weights, card, and no pickle."""

import base64
import io
import shutil
from html import escape
from importlib.metadata import packages_distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import pandas as pd
from mlflow import MlflowClient, pyfunc
from mlflow.entities import Run
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, DataType, Map, Schema
from PIL import Image

from celebflow import paths
from celebflow.experiments.imports import PACKAGE, find_libraries, find_reached
from celebflow.experiments.mlflow_model import COLUMN
from celebflow.features.faces import DETECTOR_LIBRARIES
from celebflow.features.runtimes import choose_runtime
from celebflow.inference.predictor import Predictor

_MODEL = "model"  # its name within a run
_MODEL_SCRIPT = Path(__file__).with_name("mlflow_model.py")


def package_model(client: MlflowClient, run: Run, classifier: Path, backbone: Path, chosen_by: str = "") -> str:
    """Log a run's model: code, classifier, backbone, signature, example, pinned requirements and card, and no pickle.

    Returns its id. A run that has its model already keeps it.

    Raises CelebflowError when classifier and backbone are not what they should be.
    """
    experiment, mine = [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
    for logged in client.search_logged_models(experiment, mine):
        if logged.name == _MODEL and str(logged.status) == "READY":
            return str(logged.model_id)
    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_experiment(experiment_id=run.info.experiment_id)
    paths.own_folder().mkdir(exist_ok=True)
    with TemporaryDirectory(dir=paths.own_folder()) as folder:
        files = {
            "classifier": Path(folder) / paths.CLASSIFIER.name,
            "backbone": Path(folder) / paths.BACKBONE.name,
            "model_card": Path(folder) / "model_card.md",
        }
        _link(classifier, files["classifier"])
        _link(backbone, files["backbone"])
        predictor = Predictor.load(Path(folder))  # refuses what would not answer
        libraries = _list_libraries(predictor.card.transform.detects_faces)
        files["model_card"].write_text(describe_model(run, chosen_by), encoding="utf-8")
        info = Model.log(
            None,
            pyfunc,
            name=_MODEL,
            run_id=run.info.run_id,
            python_model=str(_MODEL_SCRIPT),
            code_paths=[str(PACKAGE)],
            artifacts={name: str(file) for name, file in files.items()},
            signature=_describe_signature(),
            input_example=pd.DataFrame({COLUMN: [_draw_example()]}),
            pip_requirements=[f"{library}=={version(library).partition('+')[0]}" for library in libraries],
        )
    return str(info.model_id)


def _list_libraries(detects_faces: bool) -> list[str]:
    """Return the distributions that the packaged model needs, by what its code imports."""
    distributions = packages_distributions()
    names = find_libraries({_MODEL_SCRIPT, *find_reached(_MODEL_SCRIPT)})
    # One name may belong to several distributions, as mlflow's does to mlflow-skinny; celebflow requires the plain one.
    libraries = {min(distributions[name], key=len) for name in names}
    if choose_runtime("auto", "cpu") == "ncnn":
        libraries.add("ncnn")
    return sorted(libraries | set(DETECTOR_LIBRARIES if detects_faces else ()))


def _link(source: Path, target: Path) -> None:
    """Give a file another name, as DVC's cache has names of its own, and MLflow follows no symbolic links."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # the file system knows no links
        shutil.copyfile(source, target)


def describe_model(run: Run, chosen_by: str = "") -> str:
    """Return a model card in Markdown: data, metrics with their splits, recipe, limits, and how to have it again."""
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    datasets = run.inputs.dataset_inputs if run.inputs is not None else []
    warning = tags.get("celebflow.warning", "")
    figures = {
        name.removeprefix("val/final_"): (value, metrics.get(name.replace("val/", "test/")))
        for name, value in sorted(metrics.items())
        if name.startswith("val/final_")
    }
    detects = params.get("extract.face.crop") == "detect"
    where = "from its subject's face, or its middle where none is found" if detects else "and finds no faces"
    chosen = (
        f" Of the runs on the same split it was chosen by {chosen_by}; test data chose nothing." if chosen_by else ""
    )
    table = ["| | validation | test |", "|---|---|---|"]
    for name, values in figures.items():
        cells = " | ".join("" if value is None else f"{value:.4f}" for value in values)
        table.append(f"| {name.replace('_', ' ')} | {cells} |")
    return "\n\n".join(
        [
            "# Who is in a photograph",
            *([f"**{warning}**"] if warning else []),
            "A VGG19 whose convolutions are frozen, and a classifier taught on top. It takes photographs in base64 and "
            "answers with a name and the probability of every name it knows.",
            "## Data",
            "\n".join(f"- {item.dataset.name}" for item in datasets)
            + f"\n- md5 of the photographs: {tags.get('celebflow.data_md5', 'unknown')}",
            "## Metrics",
            "\n".join(table),
            f"Test photographs had no part in the training.{chosen}",
            "## Recipe",
            "\n".join(f"- {name}: {escape(value)}" for name, value in sorted(params.items())),
            f"- backbone: {escape(tags.get('celebflow.backbone_weights', ''))}, "
            f"fingerprint {tags.get('celebflow.backbone_fingerprint', '')[:12]}",
            "## Limits",
            f"It names one of the people it was taught, whoever is in the photograph, {where}; where `known` "
            "is false, none of them may be in it. That threshold was fitted on photographs of validation as if the "
            "classifier lacked their person; real strangers may pass it more often. Who has few photographs in the "
            "data is named less reliably (see the run's reports/val/people.csv). A name is a guess, and no ground for "
            "decisions about people.",
            "## Have it again",
            f"`{tags['celebflow.restore']}`" if "celebflow.restore" in tags else "See the run's params.yaml.",
        ]
    )


def _describe_signature() -> ModelSignature:
    inputs = Schema([ColSpec(DataType.string, COLUMN)])
    outputs = Schema(
        [
            ColSpec(DataType.string, "name"),
            ColSpec(DataType.double, "probability"),
            ColSpec(DataType.boolean, "known"),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
    )
    return ModelSignature(inputs, outputs)


def _draw_example() -> str:
    """Return a small photograph of nobody, in base64."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "gray").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
