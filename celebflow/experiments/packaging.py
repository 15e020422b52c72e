"""A run's result → an MLflow model with everything that prediction needs: code, weights and card, without pickle."""

import base64
import io
import shutil
from collections.abc import Mapping
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

_MODEL = "model"  # the model's name in its run
_MODEL_SCRIPT = Path(__file__).with_name("mlflow_model.py")


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
        files = {
            "classifier": Path(folder) / paths.CLASSIFIER.name,
            "backbone": Path(folder) / paths.BACKBONE.name,
            "model_card": Path(folder) / "model_card.md",
        }
        _link(classifier, files["classifier"])
        _link(backbone, files["backbone"])
        predictor = Predictor.load(Path(folder))  # raises an error for a model that could not predict
        libraries = list_libraries(predictor.card.transform.detects_faces)
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


def list_libraries(detects_faces: bool) -> list[str]:
    """Return the distributions that a packaged model needs: those that its code imports, its runtime and detector."""
    distributions = packages_distributions()
    names = find_libraries({_MODEL_SCRIPT, *find_reached(_MODEL_SCRIPT)})
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
    tags, params = run.data.tags, run.data.params
    warning = tags.get("celebflow.warning", "")
    data = [f"- {item.dataset.name}" for item in run.inputs.dataset_inputs] if run.inputs is not None else []
    data.append(f"- md5 of the photographs: {tags.get('celebflow.data_md5', 'unknown')}")
    chosen = (
        f" It was chosen by {chosen_by} from the runs on the same split; test data chose nothing." if chosen_by else ""
    )
    recipe = [f"- {name}: {escape(value)}" for name, value in sorted(params.items())]
    recipe.append(
        f"- backbone: {escape(tags.get('celebflow.backbone_weights', ''))}, "
        f"fingerprint {tags.get('celebflow.backbone_fingerprint', '')[:12]}"
    )
    if params.get("extract.face.crop") == "detect":
        seen = "the face of the photograph's subject, or the center square where it detects no face"
    else:
        seen = "the photograph as a whole, because it does not detect faces"
    sections = [
        "# Who is in a photograph",
        f"**{warning}**" if warning else "",
        "A classifier on the features of a VGG19 whose convolutions are frozen. It takes photographs in base64 and "
        "returns the most probable name and the probability of every name.",
        "## Data",
        "\n".join(data),
        "## Metrics",
        _format_metrics(run.data.metrics),
        f"The model was not trained on the test photographs.{chosen}",
        "## Params",
        "\n".join(recipe),
        "## Limits",
        f"The model always predicts one of the people that it was trained on. It sees {seen}. Where `known` is false, "
        "the person may be unknown. The threshold was fitted on photographs of validation, each as if its person were "
        "unknown; more photographs of truly unknown people may reach it. Predictions for people with few photographs "
        "are less reliable (see the run's reports/val/people.csv). A prediction may be wrong: do not base decisions "
        "about people on it.",
        "## Restore the result",
        f"`{tags['celebflow.restore']}`" if "celebflow.restore" in tags else "See the run's params.yaml.",
    ]
    return "\n\n".join(section for section in sections if section)


def _format_metrics(metrics: Mapping[str, float]) -> str:
    """Return a table of the final metrics of validation and test."""
    table = ["| | validation | test |", "|---|---|---|"]
    for name, value in sorted(metrics.items()):
        split, _, figure = name.partition("/final_")
        if split == "val" and figure:
            test_value = metrics.get(f"test/final_{figure}")
            test_cell = "" if test_value is None else f"{test_value:.4f}"
            table.append(f"| {figure.replace('_', ' ')} | {value:.4f} | {test_cell} |")
    return "\n".join(table)


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
    """Return a small gray photograph in base64."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "gray").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
