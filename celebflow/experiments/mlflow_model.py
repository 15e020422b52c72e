"""The model that MLflow serves: photographs in base64 → names and probabilities. MLflow runs this file itself."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import ColSpec, DataType, Map, Schema

from celebflow.experiments.mlflow_photographs import COLUMN, predict_rows
from celebflow.inference.extractor import NO_FACE
from celebflow.inference.predictor import Predictor


class FaceRecognizer(PythonModel):
    """Predicts who is in each photograph."""

    columns: ClassVar[tuple[str, ...]] = (COLUMN,)
    outputs: ClassVar[Schema] = Schema(
        [
            ColSpec(DataType.string, "name"),
            ColSpec(DataType.double, "probability"),
            ColSpec(DataType.boolean, "known"),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
    )

    def load_context(self, context: PythonModelContext) -> None:
        """Load classifier and backbone from the model's artifacts."""
        self._predictor = Predictor.load(Path(context.artifacts["classifier"]).parent)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the most probable name of each row's photograph, its probability, and the probability of every name.

        Where `known` is false, the person is unknown. Where no face is found, the name says so, and nobody has a
        probability.

        Raises MlflowException, as predict_rows does.
        """
        rows: list[list[object]] = []
        for predicted in predict_rows(self._predictor, model_input):
            if predicted is None:
                rows.append([NO_FACE, 0.0, False, {}])
                continue
            candidates = self._predictor.describe(predicted).candidates
            everybody = {candidate.name: candidate.probability for candidate in candidates}
            rows.append([candidates[0].name, candidates[0].probability, predicted.known, everybody])
        return pd.DataFrame(rows, columns=self.outputs.input_names())


set_model(FaceRecognizer())
