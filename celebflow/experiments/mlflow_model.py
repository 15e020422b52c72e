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

from celebflow.data.decoding import decode_base64, decode_photograph
from celebflow.data.formats import PhotographError
from celebflow.inference.extractor import NO_FACE
from celebflow.inference.predictor import Candidate, Predictor, RankedFace, rank_candidates

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

        `known` says whether the probability reaches the threshold; below it, the person is unknown. Where no face is
        found, the name says so, and nobody has a probability.

        Raises MlflowException, which a server reports as a bad request, when a row holds no photograph in base64.
        """
        if model_input.empty:
            raise MlflowException("There is no row with a photograph.", INVALID_PARAMETER_VALUE)
        photographs = [_decode(row, text) for row, text in enumerate(model_input[COLUMN])]
        predictions = []
        for faces in self._predictor.predict_faces(photographs, 1):
            ranked = [rank_candidates(face, self._predictor.card) for face in faces]
            face = next(iter(ranked), RankedFace(None, False, [Candidate(NO_FACE, 0.0)]))
            everybody = {each.name: each.probability for ranking in ranked for each in ranking.candidates}
            predictions.append({**asdict(face.candidates[0]), "known": face.known, "probabilities": everybody})
        return pd.DataFrame(predictions)


def _decode(row: int, text: object) -> Image.Image:
    try:
        return decode_photograph(decode_base64(str(text)))
    except PhotographError as error:
        raise MlflowException(f"{COLUMN} of row {row} {error}.", INVALID_PARAMETER_VALUE) from None


set_model(FaceRecognizer())
