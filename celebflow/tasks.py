"""The tasks of params.yaml: what each of them does in each stage, and with a trained model, as module:function."""

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any, Literal

from celebflow.params import TaskName

Step = Literal["split", "train", "evaluate", "publish", "model", "service", "export", "mlflow_model"]


@dataclass(frozen=True)
class Task:
    """The functions and words of a task. Functions are named, so that a stage imports no more than it runs.

    `split` takes the checked photographs, the people, params.prepare and the folder of data; it returns a Split.
    `train` takes features, params.train, params.compute, checkpoints and a function that logs an epoch; it returns a
    model, which has a method `save`, and its history. `evaluate` takes the model's file, features, params.compute and
    the folder of reports; it writes a folder there for each split, and returns metrics by split. `publish` takes
    features, flat params, the resolution of the figures or None to keep those that are there, and perhaps a comparison;
    it draws the figures, and returns a page, which has a method `save`. `picture` names the figure that describes a
    result in MLflow.

    `model` loads a trained model with its backbone from a folder. `service` is the class of the Service that answers
    requests with it; it takes the model, Limits, whether it may show photographs of train, and Metrics. `path` is where
    the server has it. `export` takes the model and the ONNX file to write; it returns the largest difference to what
    ONNX Runtime computes. `mlflow_model` is the class of what MLflow serves, in a module of its own, and
    `registered_name` the name of the model of which runs become versions.

    `folders_are_people` tells whether the folders of data are people; otherwise, `split` says whom photographs show.

    `unit` is what has a prediction each, in the plural. `metrics` are those that val and test may have.
    """

    split: str
    folders_are_people: bool
    train: str
    evaluate: str
    publish: str
    picture: str
    model: str
    service: str
    path: str
    export: str
    mlflow_model: str
    registered_name: str
    unit: str
    metrics: tuple[str, ...]


TASKS: dict[TaskName, Task] = {
    "recognition": Task(
        split="celebflow.data.splits:split_each_person",
        folders_are_people=True,
        train="celebflow.classifier.classifier_training:train_classifier",
        evaluate="celebflow.evaluation.classifier_evaluation:evaluate_classifier",
        publish="celebflow.report.publication:publish",
        picture="val_confusion_matrix",
        model="celebflow.inference.predictor:Predictor.load",
        service="celebflow.inference.recognition_service:RecognitionService",
        path="/predict",
        export="celebflow.inference.onnx_export:export_model",
        mlflow_model="celebflow.experiments.mlflow_model:FaceRecognizer",
        registered_name="celebflow",
        unit="photographs",
        metrics=(
            "accuracy",
            "balanced_accuracy",
            "macro_auc",
            "top_5_accuracy",
            "loss",
            "calibration_error",
            "uncalibrated_loss",
            "uncalibrated_calibration_error",
            "coverage",
            "false_acceptance_rate",
            "unknown_folder_far",
            "unknown_folder_auc",
            "open_set_auc",
            "coverage_at_far_5_percent",
            "coverage_at_far_1_percent",
            "dir_at_far_5_percent",
            "dir_at_far_1_percent",
            "measured_far_at_5_percent",
            "measured_far_at_1_percent",
        ),
    ),
    "verification": Task(
        split="celebflow.data.person_splits:split_people",
        folders_are_people=True,
        train="celebflow.classifier.verifier_training:train_verifier",
        evaluate="celebflow.evaluation.verifier_evaluation:evaluate_verifier",
        publish="celebflow.report.pair_publication:publish_pairs",
        picture="val_scores",
        model="celebflow.inference.pair_verifier:PairVerifier.load",
        service="celebflow.inference.verification_service:VerificationService",
        path="/verify",
        export="celebflow.inference.onnx_verifier:export_verifier",
        mlflow_model="celebflow.experiments.mlflow_verifier:PairComparer",
        registered_name="celebflow-verification",
        unit="pairs",
        metrics=(
            "accuracy",
            "auc",
            "equal_error_rate",
            "tmr_at_fmr_1_percent",
            "tmr_at_fmr_0_1_percent",
            "false_match_rate",
            "false_non_match_rate",
            "loss",
            "calibration_error",
        ),
    ),
    "attributes": Task(
        split="celebflow.data.attribute_splits:split_by_attributes",
        folders_are_people=False,
        train="celebflow.classifier.attribute_training:train_attributes",
        evaluate="celebflow.evaluation.attribute_evaluation:evaluate_attributes",
        publish="celebflow.report.attribute_publication:publish_attributes",
        picture="val_average_precision",
        model="celebflow.inference.attribute_predictor:AttributePredictor.load",
        service="celebflow.inference.attribute_service:AttributeService",
        path="/attributes",
        export="celebflow.inference.onnx_attributes:export_attributes",
        mlflow_model="celebflow.experiments.mlflow_attributes:AttributeFinder",
        registered_name="celebflow-attributes",
        unit="answers",
        metrics=(
            "accuracy",
            "trivial_accuracy",
            "balanced_accuracy",
            "f1",
            "auc",
            "average_precision",
            "loss",
            "calibration_error",
            "accuracy_at_its_thresholds",
            "balanced_accuracy_at_its_thresholds",
            "certain_fraction",
            "certain_accuracy",
        ),
    ),
}


# What every task's train is given, which needs PyTorch as train does.
OPEN_CHECKPOINTS = "celebflow.classifier.checkpoints:open_checkpoints"


def load_step(name: TaskName, step: Step) -> Callable[..., Any]:
    """Import a function or class of a task; Task describes what it takes."""
    return load_quickly(getattr(TASKS[name], step))


def load_quickly(name: str) -> Callable[..., Any]:
    """Import a function or class by its name, module:function; a first import goes without the garbage collector.

    It creates hundreds of thousands of objects that stay, and looking at them would take a quarter of the time.
    """
    module, _, function = name.partition(":")
    if module not in sys.modules:
        collecting = gc.isenabled()
        gc.disable()
        try:
            import_module(module)
        finally:
            gc.freeze()
            if collecting:
                gc.enable()
    loaded: Callable[..., Any] = attrgetter(function)(sys.modules[module])
    return loaded
