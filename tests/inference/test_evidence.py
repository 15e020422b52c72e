"""The evidence is looked for in the face and around it, by heat maps and by hiding either of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celebflow.evaluation import grad_cam
from celebflow.features.faces import Face
from celebflow.features.store import Features
from celebflow.inference import evidence as evidence_module
from celebflow.inference.evidence import measure_evidence
from celebflow.inference.predictor import PredictedPerson, Predictor
from tests.conftest import draw_features
from tests.images import hash_photos
from tests.models import make_face

GRAY = (124, 116, 104)
# The left half of the upper three quarters.
BOX = make_face(0, 0, 40, 60)


@pytest.fixture
def features(tmp_path: Path) -> Features:
    """Return features of photographs in the folder, of which every fourth is in val, and each shows a face but one."""
    drawn = draw_features(24)
    random = np.random.default_rng(0)
    for photo in drawn.photos:
        noise = random.integers(0, 255, (80, 80, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / photo.path, format="PNG")
    photos = hash_photos(drawn.photos, tmp_path)
    faceless = next(photo.path for photo in photos if photo.split == "val")
    subjects = {photo.path: BOX for photo in photos if photo.path != faceless}
    return replace(drawn, photos=photos, subjects=subjects)


def _heat(*, left: float, right: float) -> NDArray[np.float32]:
    heat = np.zeros((7, 7), np.float32)
    heat[0, 0], heat[0, 6] = left, right
    return heat


def _watch_explainer(
    monkeypatch: pytest.MonkeyPatch, heat: NDArray[np.float32]
) -> list[tuple[list[str], NDArray[np.int64]]]:
    """Let every heat map be this one; return where the photographs and classes of each call will be."""
    explained = []

    def explain(
        self: object, photographs: Sequence[str], classes: NDArray[np.int64], features: Features
    ) -> list[NDArray[np.float32]]:
        explained.append((list(photographs), classes))
        return [heat for _ in photographs]

    monkeypatch.setattr(grad_cam.Explainer, "explain", explain)
    return explained


def test_whole_photographs_are_looked_at_in_parts(
    predictor: Predictor, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = _watch_explainer(monkeypatch, _heat(left=0.25, right=1))
    faces = iter([[BOX]] * 2 + [[]] + [[BOX]] * 3)
    monkeypatch.setattr(evidence_module, "detect_faces", lambda photograph: next(faces))
    val = [photo for photo in features.photos if photo.split == "val"]
    monkeypatch.setattr(type(predictor), "workers", 1)  # so that faces come in the order of photographs
    occlusions = measure_evidence(predictor, features, tmp_path)
    assert [each.evidence.path for each in occlusions] == [photo.path for photo in (*val[:2], *val[3:])], (
        "without a face"
    )
    for each, photo in zip(occlusions, (*val[:2], *val[3:]), strict=True):
        photograph = Image.open(tmp_path / photo.path)
        without_face, face_alone = photograph.copy(), Image.new("RGB", (80, 80), GRAY)
        without_face.paste(GRAY, (0, 0, 40, 60))
        face_alone.paste(photograph.crop((0, 0, 40, 60)), (0, 0))
        names = [predictor.card.class_names[row.argmax()] for row in predictor.predict([without_face, face_alone])]
        assert [each.evidence.without_face, each.evidence.face_alone] == names
        assert each.evidence.actual == photo.person
        assert tuple(each.without_face[40, 20]) == tuple(each.face_alone[140, 140]) == GRAY
        assert tuple(each.original[40, 20]) != GRAY and tuple(each.face_alone[40, 20]) != GRAY
        assert each.evidence.face_fraction == pytest.approx(0.5 * 0.75, abs=0.03)
        assert each.evidence.outside_fraction == pytest.approx(0.8)
    [(photographs, classes)] = explained
    assert photographs == [each.evidence.path for each in occlusions]
    assert [predictor.card.class_names[label] for label in classes] == [each.evidence.predicted for each in occlusions]


def test_in_a_crop_the_face_that_extract_chose_counts(
    face_predictor: Predictor, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(photograph: Image.Image) -> list[Face]:
        raise AssertionError("extract has detected the faces")

    monkeypatch.setattr(evidence_module, "detect_faces", fail)
    for path in features.subjects:
        features.subjects[path] = make_face(20, 10, 60, 70)
    occlusions = measure_evidence(face_predictor, features, tmp_path)
    assert len(occlusions) == sum(photo.split == "val" for photo in features.photos) - 1
    for each in occlusions:
        # The square around the box is 60 wide, and the box 40.
        assert each.evidence.face_fraction == pytest.approx(2 / 3, abs=0.05)
        assert tuple(each.without_face[80, 80]) == GRAY
    features.subjects.clear()
    assert measure_evidence(face_predictor, features, tmp_path) == []


def test_the_heat_map_is_that_of_the_person_predicted_from_the_whole_photograph(
    face_predictor: Predictor, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = _watch_explainer(monkeypatch, _heat(left=0, right=0))
    parts = [PredictedPerson(None, row, True, None, None) for row in np.eye(3)]
    monkeypatch.setattr(face_predictor, "classify", lambda photographs: [parts for _ in photographs])
    occlusions = measure_evidence(face_predictor, features, tmp_path)
    [(_, classes)] = explained
    assert classes.tolist() == [0] * len(occlusions)
    for each in occlusions:
        assert (each.evidence.predicted, each.evidence.without_face, each.evidence.face_alone) == ("Ann", "Bo", "Cy")
        assert each.evidence.outside_fraction == pytest.approx(1 - each.evidence.face_fraction), "of no evidence at all"


def test_the_sample_is_bounded_and_the_same_each_time(
    face_predictor: Predictor, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_module, "_SAMPLE_SIZE", 3)
    first, second = (measure_evidence(face_predictor, features, tmp_path) for _ in range(2))
    assert 2 <= len(first) <= 3
    assert [each.evidence for each in first] == [each.evidence for each in second]
