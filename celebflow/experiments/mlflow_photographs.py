"""Rows of a request to MLflow → what a model predicts of the subject of each row's photograph."""

from collections.abc import Iterator
from typing import Any, TypeVar

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from celebflow.data.decoding import decode_base64
from celebflow.inference.face_predictor import FacePredictor, PredictedFace
from celebflow.inference.files import decode_in_batches

COLUMN = "photograph"
Predicted = TypeVar("Predicted", bound=PredictedFace)


def predict_rows(predictor: FacePredictor[Predicted, Any], model_input: pd.DataFrame) -> Iterator[Predicted | None]:
    """Predict the subject of each row's photograph in base64; yield None where no face is found.

    Raises MlflowException, which a server reports as a bad request, when a row holds no photograph in base64.
    """
    if model_input.empty:
        raise MlflowException("There is no row with a photograph.", INVALID_PARAMETER_VALUE)
    texts = read_cells(model_input, COLUMN)
    for batch in decode_in_batches(range(len(texts)), lambda row: decode_base64(texts[row]), _refuse):
        for faces in predictor.predict_faces([photograph for _, photograph in batch], 1):
            yield next(iter(faces), None)


def read_cells(model_input: pd.DataFrame, column: str) -> list[str]:
    """Return the texts of a column; raise MlflowException where one is missing, as null in JSON is."""
    if missing := [row for row, text in enumerate(model_input[column]) if pd.isna(text)]:
        raise MlflowException(f"{column} of row {missing[0]} is missing.", INVALID_PARAMETER_VALUE)
    return [str(text) for text in model_input[column]]


def _refuse(row: int, reason: str) -> None:
    raise MlflowException(f"{COLUMN} of row {row} {reason}.", INVALID_PARAMETER_VALUE)
