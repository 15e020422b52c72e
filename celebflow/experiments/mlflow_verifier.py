"""The model that MLflow serves for verification: pairs of photographs in base64 → answers. MLflow runs this file."""

from collections.abc import Set
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import ColSpec, DataType, Schema

from celebflow.data.decoding import decode_base64
from celebflow.experiments.mlflow_photographs import read_cells
from celebflow.inference.pair_verifier import PairVerifier
from celebflow.inference.verifying import PairAnswer, describe_crowded, verify_pairs


class PairComparer(PythonModel):
    """Tells whether the two photographs of each row show the same person."""

    columns: ClassVar[tuple[str, ...]] = ("first", "second")
    outputs: ClassVar[Schema] = Schema(
        [
            ColSpec(DataType.string, "answer"),
            ColSpec(DataType.double, "probability", required=False),
            ColSpec(DataType.double, "log_odds", required=False),
            ColSpec(DataType.string, "note", required=False),
        ]
    )

    def load_context(self, context: PythonModelContext) -> None:
        """Load verifier and backbone from the model's artifacts."""
        self._verifier = PairVerifier.load(Path(context.artifacts["classifier"]).parent)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the answer for each row, the probability of the same person, its log odds, and a note.

        Where no face is found in a photograph, the answer says so, and the others are None. The note says in which
        photographs one face of several was compared. A photograph that is in several rows is extracted once.

        Raises MlflowException, which a server reports as a bad request, when a row lacks a photograph in base64.
        """
        if model_input.empty:
            raise MlflowException("There is no row with photographs.", INVALID_PARAMETER_VALUE)
        pairs = list(zip(*(read_cells(model_input, column) for column in self.columns), strict=True))

        def refuse(text: str, reason: str) -> None:
            row, pair = next((row, pair) for row, pair in enumerate(pairs) if text in pair)
            raise MlflowException(f"{self.columns[pair.index(text)]} of row {row} {reason}.", INVALID_PARAMETER_VALUE)

        crowded: set[str] = set()
        answers = list(verify_pairs(pairs, decode_base64, self._verifier, refuse, note_faces=crowded.add))
        rows = [
            [answer.answer, answer.probability, answer.log_odds, self._describe_crowded(answer, crowded)]
            for answer in answers
        ]
        # As objects: in numbers, None would become NaN, which JSON does not have.
        return pd.DataFrame(rows, columns=self.outputs.input_names(), dtype=object)

    def _describe_crowded(self, answer: PairAnswer, crowded: Set[str]) -> str | None:
        """Return the note about the photographs of a pair that are among the crowded ones, if they were compared."""
        texts = zip(self.columns, (answer.first, answer.second), strict=True)
        names = [column for column, text in texts if text in crowded]
        return describe_crowded(names) if names and answer.answer != "no face found" else None


set_model(PairComparer())
