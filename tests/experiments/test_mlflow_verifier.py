"""The model that MLflow serves for verification answers row by row, and names what is not a photograph."""

import base64
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext
from PIL import Image

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.pair_calibration import PairCalibration
from celebflow.experiments.mlflow_verifier import PairComparer
from celebflow.inference.extractor import ExtractedFace
from celebflow.inference.pair_verifier import PairVerifier, Verdict
from tests.models import draw_noise

_CONTEXT = PythonModelContext({}, {})  # type: ignore[no-untyped-call]
WIDE, OTHER, TALL = draw_noise(), draw_noise(1), draw_noise(size=(40, 60))


class _Verifier:
    """Finds a face in every photograph that is wider than high, and counts the photographs that it gets."""

    def __init__(self) -> None:
        self.count = 0
        self.card = SimpleNamespace(calibration=PairCalibration(1.0, 0.0, 1.0, 0.125, 0.25))

    def extract(self, photograph: Image.Image, *, whole: bool) -> ExtractedFace | None:
        self.count += 1
        face_count = 1 if photograph.width < 100 else 2
        return ExtractedFace(None, [], face_count) if photograph.width > photograph.height else None

    def embed_faces(self, faces: Sequence[ExtractedFace]) -> FloatArray:
        return np.ones((len(faces), 1))

    def compare(self, first: FloatArray | None, second: FloatArray | None) -> Verdict:
        found = first is not None and second is not None
        return Verdict("same", 0.75, 1.5) if found else Verdict("no face found", None, None)


def _predict(*pairs: tuple[bytes, bytes]) -> tuple[pd.DataFrame, int]:
    rows = [[base64.b64encode(content).decode() for content in pair] for pair in pairs]
    return _predict_table(pd.DataFrame(rows, columns=["first", "second"]))


def _predict_table(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    model, verifier = PairComparer(), _Verifier()
    model._verifier = cast(PairVerifier, verifier)
    return model.predict(_CONTEXT, table), verifier.count


def test_rows_are_answered_in_their_order_and_each_photograph_is_extracted_once() -> None:
    predicted, count = _predict((WIDE, OTHER), (WIDE, TALL), (OTHER, WIDE))
    assert count == 3
    assert predicted["answer"].tolist() == ["same", "no face found", "same"]
    assert json.loads(json.dumps(predicted.to_dict(orient="records")))[1] == {
        "answer": "no face found",
        "probability": None,
        "log_odds": None,
        "note": None,
    }


def test_a_note_says_in_which_photographs_one_face_of_several_was_compared() -> None:
    crowd = draw_noise(size=(120, 80))
    predicted, _ = _predict((WIDE, crowd), (WIDE, OTHER), (crowd, crowd), (crowd, TALL))
    one, two = (
        f"Of several faces in a photograph, the most prominent was compared: {names}. Crop those in which "
        "another one is meant."
        for names in ("second", "first, second")
    )
    assert predicted["note"].tolist() == [one, None, two, None]


def test_what_is_not_a_photograph_is_named_by_column_and_row() -> None:
    with pytest.raises(MlflowException, match="second of row 1 is not a JPEG"):
        _predict((WIDE, OTHER), (WIDE, b"nothing"))
    with pytest.raises(MlflowException, match="no row"):
        _predict()
    text = base64.b64encode(WIDE).decode()
    for missing in (None, np.nan):
        with pytest.raises(MlflowException, match="second of row 1 is missing"):
            _predict_table(pd.DataFrame({"first": [text, text], "second": [text, missing]}))
