"""The model that MLflow serves for attributes: photographs in base64 → answers. MLflow runs this file itself."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import ColSpec, DataType, Map, Schema

from celebflow.experiments.mlflow_photographs import COLUMN, predict_rows
from celebflow.inference.attribute_predictor import AttributePredictor
from celebflow.inference.extractor import NO_FACE


class AttributeFinder(PythonModel):
    """Predicts which attributes the subject of each photograph has."""

    columns: ClassVar[tuple[str, ...]] = (COLUMN,)
    outputs: ClassVar[Schema] = Schema(
        [
            ColSpec(Map(DataType.double), "probabilities"),
            ColSpec(Map(DataType.string), "answers"),
            ColSpec(Map(DataType.boolean), "uncertain"),
            ColSpec(DataType.string, "note", required=False),
        ]
    )

    def load_context(self, context: PythonModelContext) -> None:
        """Load model and backbone from the model's artifacts."""
        self._predictor = AttributePredictor.load(Path(context.artifacts["classifier"]).parent)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return by attribute the probability of yes, the answer yes or no, and whether that is uncertain.

        Where no face is found, the note says so, and no attribute has an answer.

        Raises MlflowException, as predict_rows does.
        """
        rows: list[list[object]] = []
        for predicted in predict_rows(self._predictor, model_input):
            answers = [] if predicted is None else self._predictor.describe(predicted).attributes
            rows.append(
                [
                    {each.name: each.probability for each in answers},
                    {each.name: each.answer for each in answers},
                    {each.name: each.uncertain for each in answers},
                    NO_FACE if predicted is None else None,
                ]
            )
        # As objects: a column of None alone would become numbers, and NaN is not in JSON.
        return pd.DataFrame(rows, columns=self.outputs.input_names(), dtype=object)


set_model(AttributeFinder())
