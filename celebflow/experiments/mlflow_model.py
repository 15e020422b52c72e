"""The model that MLflow serves: photographs in base64 → names and probabilities. MLflow runs this file itself."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import ColSpec, DataType, Map, Schema

from celebflow.data.decoding import decode_base64
from celebflow.inference.extractor import NO_FACE
from celebflow.inference.files import decode_in_batches
from celebflow.inference.predictor import Candidate, Predictor, RankedFace, rank_candidates

COLUMN = "photograph"


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

        Raises MlflowException, which a server reports as a bad request, when a row holds no photograph in base64.
        """
        if model_input.empty:
            raise MlflowException("There is no row with a photograph.", INVALID_PARAMETER_VALUE)
        texts = [str(text) for text in model_input[COLUMN]]
        predictions = []
        for batch in decode_in_batches(range(len(texts)), lambda row: decode_base64(texts[row]), _refuse):
            for faces in self._predictor.predict_faces([photograph for _, photograph in batch], 1):
                ranked = [rank_candidates(face, self._predictor.card) for face in faces]
                face = next(iter(ranked), RankedFace(None, False, None, [Candidate(NO_FACE, 0.0)]))
                first = face.candidates[0]
                everybody = {each.name: each.probability for ranking in ranked for each in ranking.candidates}
                predictions.append(
                    {
                        "name": first.name,
                        "probability": first.probability,
                        "known": face.known,
                        "probabilities": everybody,
                    }
                )
        return pd.DataFrame(predictions)


def _refuse(row: int, reason: str) -> None:
    raise MlflowException(f"{COLUMN} of row {row} {reason}.", INVALID_PARAMETER_VALUE)


set_model(FaceRecognizer())
