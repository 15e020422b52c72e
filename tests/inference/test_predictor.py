"""The predictor predicts every face that is detected, and the photograph as a whole only on request."""

import numpy as np
import pytest
from PIL import Image

from celebflow.features import transform as transform_module
from celebflow.inference.predictor import Predictor
from tests.models import make_face

FACES = [make_face(20, 5, 30, 15), make_face(2, 3, 14, 16)]


def test_every_face_is_predicted_the_subject_first(face_predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    photographs = [Image.fromarray(noise), Image.fromarray(noise[:, ::-1].copy()), Image.fromarray(noise[::-1].copy())]
    detected = [FACES, [], FACES[1:]]
    faces_of = {photograph.tobytes(): faces for photograph, faces in zip(photographs, detected, strict=True)}
    monkeypatch.setattr(transform_module, "detect_faces", lambda photograph: faces_of[photograph.tobytes()])
    assert [len(faces) for faces in face_predictor.predict_faces(photographs)] == [2, 0, 1]
    assert face_predictor.predict_faces(photographs[1:2]) == [[]], "nobody is guessed"
    predicted = face_predictor.predict_faces(photographs, whole=True)
    assert [[face.face for face in faces] for faces in predicted] == [FACES, [None], FACES[1:]]
    probabilities = np.array([face.probabilities for faces in predicted for face in faces])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert not np.allclose(probabilities[0], probabilities[1], atol=1e-4)
    subjects = [faces[0].probabilities for faces in predicted]
    np.testing.assert_array_equal(face_predictor.predict(photographs), subjects)
