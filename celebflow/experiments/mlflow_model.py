"""The model that MLflow serves: photographs in base64 → names and probabilities. MLflow runs this file itself."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image

from celebflow.data.decoding import PhotographError, decode_base64, decode_photograph
from celebflow.inference.predictor import PredictedFace, Predictor, rank_candidates

COLUMN = "photograph"


class FaceRecognizer(PythonModel):
    """Predicts who is in each photograph."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load classifier and backbone from the model's artifacts."""
        self._predictor = Predictor.load(Path(context.artifacts["classifier"]).parent)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the most probable name of each row's photograph, its probability, and the probability of every name.

        `known` says whether the probability reaches the threshold; below it, the person is unknown.

        Raises MlflowException, which a server reports as a bad request, when a row holds no photograph in base64.
        """
        if model_input.empty:
            raise MlflowException("There is no row with a photograph.", INVALID_PARAMETER_VALUE)
        photographs = [_decode(row, text) for row, text in enumerate(model_input[COLUMN])]
        predictions = []
        for probabilities in self._predictor.predict(photographs):
            face = rank_candidates(PredictedFace(None, probabilities), self._predictor.card)
            everybody = {each.name: each.probability for each in face.candidates}
            predictions.append({**asdict(face.candidates[0]), "known": face.known, "probabilities": everybody})
        return pd.DataFrame(predictions)


def _decode(row: int, text: object) -> Image.Image:
    try:
        return decode_photograph(decode_base64(str(text)))
    except PhotographError as error:
        raise MlflowException(f"{COLUMN} of row {row} {error}.", INVALID_PARAMETER_VALUE) from None


set_model(FaceRecognizer())
