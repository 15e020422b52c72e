"""The model that MLflow serves decodes few photographs at once, and names the row that holds none."""

import base64
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext
from PIL import Image

from celebflow.experiments.mlflow_model import FaceRecognizer
from celebflow.experiments.mlflow_photographs import COLUMN
from celebflow.inference import files
from celebflow.inference.predictor import PredictedPerson, Predictor
from tests.models import draw_noise
from tests.results import make_card

_CONTEXT = PythonModelContext({}, {})  # type: ignore[no-untyped-call]


class _Predictor(Predictor):
    """Finds a face in every photograph that is wider than high, and notes how many photographs each call gets."""

    def __init__(self) -> None:
        self.card, self.enrolled = make_card(["Ann", "Bo"]), None
        self.counts: list[int] = []

    def predict_faces(
        self, photographs: Sequence[Image.Image], max_faces: int | None = None, *, whole: bool = False
    ) -> list[list[PredictedPerson]]:
        self.counts.append(len(photographs))
        face = PredictedPerson(None, np.array([0.25, 0.75]), True, None, None)
        return [[face] if photograph.width > photograph.height else [] for photograph in photographs]


def _predict(*contents: bytes) -> tuple[pd.DataFrame, list[int]]:
    model, predictor = FaceRecognizer(), _Predictor()
    model._predictor = predictor
    rows = pd.DataFrame({COLUMN: [base64.b64encode(content).decode() for content in contents]})
    return model.predict(_CONTEXT, rows), predictor.counts


def test_many_rows_are_predicted_in_batches_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large, high = draw_noise(), draw_noise(size=(200, 100)), draw_noise(size=(40, 60))
    monkeypatch.setattr(files, "_BATCH_PIXELS", 15_000)
    predicted, counts = _predict(*[small] * 4, high, large, large)
    assert counts == [6, 1]
    assert [name == "Bo" for name in predicted["name"]] == [True] * 4 + [False, True, True]
    assert predicted["probabilities"][0] == {"Ann": 0.25, "Bo": 0.75}
    monkeypatch.undo()
    assert _predict(*[small] * 20)[1] == [16, 4]


def test_a_row_without_a_photograph_is_named() -> None:
    with pytest.raises(MlflowException, match=f"{COLUMN} of row 1 is not a JPEG"):
        _predict(draw_noise(), b"nothing", draw_noise())
