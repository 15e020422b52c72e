"""The model that MLflow serves for attributes has an answer for each attribute of each row, or says why not."""

import base64
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext
from PIL import Image

from celebflow.backbone.source import BackboneSource
from celebflow.experiments.mlflow_attributes import AttributeFinder
from celebflow.features.transform import Transform
from celebflow.inference.attribute_predictor import AttributePredictor, PredictedAttributes
from tests.models import draw_noise, make_attribute_model

_CONTEXT = PythonModelContext({}, {})  # type: ignore[no-untyped-call]


class _Predictor(AttributePredictor):
    """Finds a face in every photograph that is wider than high."""

    def __init__(self) -> None:
        source = BackboneSource("untrained", False, "0" * 64)
        self.card = make_attribute_model(["Smiling", "Hat"], Transform(32), source).card

    def predict_faces(
        self, photographs: Sequence[Image.Image], max_faces: int | None = None, *, whole: bool = False
    ) -> list[list[PredictedAttributes]]:
        face = PredictedAttributes(None, np.array([0.25, 0.75]), np.array([False, True]), np.array([True, False]))
        return [[face] if photograph.width > photograph.height else [] for photograph in photographs]


def _predict(*contents: bytes) -> pd.DataFrame:
    return _predict_table(pd.DataFrame({"photograph": [base64.b64encode(content).decode() for content in contents]}))


def _predict_table(rows: pd.DataFrame) -> pd.DataFrame:
    model = AttributeFinder()
    model._predictor = _Predictor()
    return model.predict(_CONTEXT, rows)


def test_each_row_has_a_probability_and_an_answer_for_each_attribute() -> None:
    wide, tall = _predict(draw_noise(), draw_noise(size=(40, 60))).to_dict(orient="records")
    assert wide == {
        "probabilities": {"Smiling": 0.25, "Hat": 0.75},
        "answers": {"Smiling": "no", "Hat": "yes"},
        "uncertain": {"Smiling": True, "Hat": False},
        "note": None,
    }
    assert json.loads(json.dumps(tall)) == {
        "probabilities": {},
        "answers": {},
        "uncertain": {},
        "note": "no face found",
    }


def test_a_row_without_a_photograph_is_named() -> None:
    with pytest.raises(MlflowException, match="photograph of row 1 is not a JPEG"):
        _predict(draw_noise(), b"nothing")
    with pytest.raises(MlflowException, match="no row"):
        _predict()
    for missing in (None, np.nan):
        with pytest.raises(MlflowException, match="photograph of row 0 is missing"):
            _predict_table(pd.DataFrame({"photograph": [missing]}))
