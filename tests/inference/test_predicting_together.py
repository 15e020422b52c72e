"""A model of people and one of attributes predict together: what both need is computed once, and faces are matched."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from celebflow.backbone.vgg19 import Backbone
from celebflow.cli import main
from celebflow.data.decoding import decode_photograph
from celebflow.errors import CelebflowError
from celebflow.features import extracted
from celebflow.features import transform as transform_module
from celebflow.features.faces import Face
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference.attribute_predictor import AttributePredictor
from celebflow.inference.predictor import Predictor
from tests.models import ATTRIBUTES, draw_blue, draw_noise, make_face, save_attribute_model, save_model

DETECTING = WHOLE.model_copy(update={"crop": "detect"})
FACES = [make_face(20, 5, 40, 25), make_face(2, 3, 14, 16)]


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of views whose features are computed, a number for each face."""
    counts: list[int] = []
    extract_views = extracted.extract_views

    def count(photograph: Image.Image, face: Face | None, transform: Transform, runtime: object) -> object:
        counts.append(len(transform.views))
        return extract_views(photograph, face, transform, runtime)  # type: ignore[arg-type]

    monkeypatch.setattr("celebflow.inference.extractor.extract_views", count)
    return counts


def _predict(models: list[Path], *arguments: str) -> Result:
    options = [argument for model in models for argument in ("--model", str(model))]
    return CliRunner().invoke(main, ["predict", *options, *arguments])


def _list_probabilities(names: list[str] | tuple[str, ...], answers: list[dict[str, float]]) -> NDArray[np.float64]:
    by_name = {str(each["name"]): each["probability"] for each in answers}
    return np.array([by_name[name] for name in names])


def test_equal_features_are_computed_once_and_both_answer_as_they_do_alone(
    model: Path,
    attribute_model: Path,
    predictor: Predictor,
    attribute_predictor: AttributePredictor,
    tmp_path: Path,
    views: list[int],
) -> None:
    files = [str(tmp_path / name) for name in ("noise.png", "blue.png")]
    for file, content in zip(files, (draw_noise(), draw_blue()), strict=True):
        Path(file).write_bytes(content)
    found = json.loads(_predict([attribute_model, model], "--json", *files).stdout)
    assert views == [1, 1], "once for each photograph"
    assert [photograph["photograph"] for photograph in found] == files
    images = [decode_photograph(Path(file).read_bytes()) for file in files]
    people = predictor.predict(images)
    for photograph, expected, (attributes,) in zip(
        found, people, attribute_predictor.predict_faces(images), strict=True
    ):
        (face,) = photograph["faces"]
        names = predictor.card.class_names
        np.testing.assert_allclose(_list_probabilities(names, face["candidates"]), expected, atol=1e-5)
        np.testing.assert_allclose(
            _list_probabilities(ATTRIBUTES, face["attributes"]), attributes.probabilities, atol=1e-5
        )
    table = _predict([model, attribute_model], *files).stdout
    assert "uncertain" in table and "or" in table.splitlines()[0].split()


def test_other_features_are_computed_for_each_and_faces_are_matched_by_their_boxes(
    tmp_path: Path, backbone: Backbone, backbone_file: Path, monkeypatch: pytest.MonkeyPatch, views: list[int]
) -> None:
    monkeypatch.setattr(transform_module, "detect_faces", lambda photo: FACES if photo.width > photo.height else [])
    transforms = {"people": Transform(32, DETECTING), "attributes": Transform(32, DETECTING, ("original", "mirrored"))}
    for name in transforms:
        (tmp_path / name).mkdir()
    people = save_model(tmp_path / "people", backbone, backbone_file, transforms["people"])
    attributes = save_attribute_model(tmp_path / "attributes", backbone, backbone_file, transforms["attributes"])
    (tmp_path / "wide.png").write_bytes(draw_noise())
    (tmp_path / "tall.png").write_bytes(draw_noise(size=(40, 60)))
    files = [str(tmp_path / "wide.png"), str(tmp_path / "tall.png")]
    wide, tall = json.loads(_predict([people, attributes], "--json", *files).stdout)
    assert sorted(views) == [1, 1, 2, 2]
    assert [face["box"]["left"] for face in wide["faces"]] == [20, 2]
    assert all(len(face["candidates"]) == 3 and len(face["attributes"]) == 6 for face in wide["faces"])
    assert (tall["faces"], tall["note"]) == ([], "no face found")
    rows = csv.DictReader(_predict([people, attributes], "--csv", "--whole", *files).stdout.splitlines())
    assert [(row["left"], row["name"] != "", row["Smiling_answer"] != "") for row in rows] == [
        ("20", True, True),
        ("2", True, True),
        ("", True, True),
    ]


def test_a_model_without_a_detector_answers_for_the_whole_photograph(
    tmp_path: Path, attribute_model: Path, backbone: Backbone, backbone_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transform_module, "detect_faces", lambda photo: FACES[:1] if photo.width > photo.height else [])
    (tmp_path / "people").mkdir()
    people = save_model(tmp_path / "people", backbone, backbone_file, Transform(32, DETECTING))
    (tmp_path / "wide.png").write_bytes(draw_noise())
    (photograph,) = json.loads(_predict([people, attribute_model], "--json", str(tmp_path / "wide.png")).stdout)
    described = [
        (face["box"] is None, face["candidates"] is None, face["attributes"] is None) for face in photograph["faces"]
    ]
    assert described == [(False, False, True), (True, True, False)]


def test_top_limits_names_and_attributes_but_no_columns(model: Path, attribute_model: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.png").write_bytes(draw_noise())
    file = str(tmp_path / "noise.png")
    (photograph,) = json.loads(_predict([model, attribute_model], "--json", "--top", "1", file).stdout)
    (face,) = photograph["faces"]
    assert (len(face["candidates"]), len(face["attributes"])) == (1, 1)
    assert face["attributes"][0]["probability"] == max(
        each["probability"] for each in json.loads(_predict([attribute_model], "--json", file).stdout)[0]["attributes"]
    )
    (row,) = csv.DictReader(_predict([attribute_model], "--csv", "--top", "1", file).stdout.splitlines())
    assert row["Smiling_answer"] and row["Beard_answer"]


def test_files_that_are_not_photographs_are_reported_and_standard_input_is_read(
    model: Path, attribute_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    arguments = ["predict", "--model", str(model), "--model", str(attribute_model), "--json"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "notes.txt"), "-"], input=draw_noise())
    assert isinstance(result.exception, CelebflowError) and "1 of 2 files" in str(result.exception)
    assert "notes.txt" in result.stderr
    (photograph,) = json.loads(result.stdout)
    assert photograph["photograph"] == "-" and len(photograph["faces"]) == 1


@pytest.mark.parametrize(
    ("models", "parts"),
    [
        (["verifier_model"], ["compares photographs", "`celebflow verify`", "recognition or attributes"]),
        (["model", "verifier_model"], ["compares photographs", "`celebflow verify`"]),
        (["model", "model"], ["task recognition", "different tasks", "leave one"]),
        (["attribute_model", "attribute_model"], ["task attributes", "different tasks"]),
    ],
)
def test_models_that_cannot_predict_together_are_refused(
    request: pytest.FixtureRequest, models: list[str], parts: list[str]
) -> None:
    folders: list[Path] = [request.getfixturevalue(name) for name in models]
    error = _predict(folders, "-").exception
    assert isinstance(error, CelebflowError) and str(folders[-1]) in str(error)
    assert all(part in str(error) for part in parts), error


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        (["verify", "a.jpg", "b.jpg"], "verification"),
        (["enroll", "Ann", "a.jpg"], "recognition"),
    ],
)
def test_commands_of_other_tasks_say_what_they_need_instead_of_attributes(
    attribute_model: Path, command: list[str], needed: str
) -> None:
    error = CliRunner().invoke(main, [command[0], "--model", str(attribute_model), *command[1:]]).exception
    assert isinstance(error, CelebflowError)
    parts = (str(attribute_model), "predicts attributes", "`celebflow predict`", f"set task to {needed}")
    assert all(part in str(error) for part in parts), error
