"""However one asks a model of attributes, it gives the same answers, which are those that evaluate measures."""

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import requests
from click.testing import CliRunner
from mlflow.pyfunc.model import PythonModelContext
from PIL import Image

from celebflow import paths
from celebflow.backbone.vgg19 import Backbone
from celebflow.cli import main
from celebflow.data.attributes import AttributeTable, save_attributes
from celebflow.data.decoding import decode_photograph
from celebflow.data.photos import save_photos
from celebflow.data.tables import load_table
from celebflow.evaluation.attribute_evaluation import evaluate_attributes
from celebflow.experiments.mlflow_attributes import AttributeFinder
from celebflow.features import transform as transform_module
from celebflow.features.cache import open_cache
from celebflow.features.extraction import collect_faces, extract_missing
from celebflow.features.face_table import save_faces
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin, choose_runtime
from celebflow.features.store import load_features, save_features
from celebflow.features.transform import WHOLE, Transform
from celebflow.inference.attribute_predictor import AttributePredictor
from celebflow.inference.onnx_attributes import OUTPUT, export_attributes
from celebflow.inference.onnx_graph import INPUT
from celebflow.params import ComputeParams, FaceParams, PrepareParams, View
from tests.inference.serving import start_server
from tests.models import ATTRIBUTES, make_face, save_attribute_model
from tests.preparing import prepare

VIEWS: tuple[View, ...] = ("original", "mirrored")
TWO_VIEWS = Transform(48, views=VIEWS)
# So many features that their positions take 32 bits.
WITH_CONTEXT = Transform(
    48,
    FaceParams(crop="detect", margin=0.0, align=True, context="margin", context_margin=0.4),
    VIEWS,
    ("pool4", "pool5"),
)


def _find_middle(photograph: Image.Image) -> list[Face]:
    """Find a face in the middle of every photograph."""
    width, height = photograph.size
    return [make_face(0.3 * width, 0.25 * height, 0.65 * width, 0.7 * height)]


@pytest.mark.slow
@pytest.mark.parametrize("transform", [TWO_VIEWS, WITH_CONTEXT], ids=["whole", "context"])
def test_every_way_to_ask_gives_the_answers_that_evaluate_measures(
    transform: Transform,
    backbone: Backbone,
    backbone_file: Path,
    draw_people: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transform_module, "detect_faces", _find_middle)
    model = tmp_path / "model"
    model.mkdir()
    predictor = AttributePredictor.load(save_attribute_model(model, backbone, backbone_file, transform))
    photos = prepare(draw_people("Ann", "Bo", count=6), PrepareParams())[0]
    origin = FeatureOrigin(predictor.backbone.source, transform, choose_runtime("auto", "cpu"))
    with open_cache(tmp_path / "cache", origin) as cache:
        extract_missing(photos, paths.DATA, model / "backbone.safetensors", ComputeParams(), cache)
        save_features(photos, cache, paths.FEATURES)
        save_faces(collect_faces(photos, cache), paths.FACES)
    labels = np.arange(len(photos) * len(ATTRIBUTES)).reshape(len(photos), -1) // 2 % 2
    table = AttributeTable(ATTRIBUTES, tuple(photo.path for photo in photos), labels.astype(np.int8))
    save_attributes(table, paths.ATTRIBUTES)
    save_photos(photos, paths.PHOTOS)
    features = load_features(paths.FEATURES, paths.PHOTOS)
    evaluate_attributes(model / "classifier.safetensors", features, ComputeParams(), paths.REPORTS)
    expected: dict[str, dict[str, tuple[float, str, bool]]] = {}
    for row in load_table(paths.REPORTS / "val" / "predictions.csv"):
        path, name = next(
            (photo.path, name)
            for photo in photos
            for name in ATTRIBUTES
            if row["path"].startswith(photo.path) and row["path"].endswith(name)
        )
        answers = expected.setdefault(str(paths.DATA / path), {})
        answers[name] = float(row["probability"]), row["predicted"], row["uncertain"] == "1"
    assert len(expected) > 1 and all(len(answers) == len(ATTRIBUTES) for answers in expected.values())
    files = list(expected)
    assert {answer for answers in expected.values() for _, answer, _ in answers.values()} == {"yes", "no"}

    def check(found: dict[str, dict[str, tuple[float, str, bool]]]) -> None:
        assert found.keys() == expected.keys()
        for file, answers in expected.items():
            for name, (probability, *answer) in answers.items():
                assert found[file][name][0] == pytest.approx(probability, abs=1e-5)
                assert [*found[file][name][1:]] == answer

    def read(faces: list[dict[str, Any]]) -> dict[str, dict[str, tuple[float, str, bool]]]:
        return {
            file: {
                each["name"]: (each["probability"], each["answer"], each["uncertain"]) for each in face["attributes"]
            }
            for file, face in zip(files, faces, strict=True)
        }

    command = ["predict", "--model", str(model)]
    check(read(json.loads(CliRunner().invoke(main, [*command, "--json", *files]).stdout)))
    rows = csv.DictReader(io.StringIO(CliRunner().invoke(main, [*command, "--csv", *files]).stdout))
    column_of = {name: name.replace("=Hat", "'=Hat") for name in ATTRIBUTES}
    check(
        {
            row["photograph"]: {
                name: (
                    float(row[f"{column}_probability"]),
                    row[f"{column}_answer"],
                    row[f"{column}_uncertain"] == "true",
                )
                for name, column in column_of.items()
            }
            for row in rows
        }
    )
    contents = [Path(file).read_bytes() for file in files]
    with start_server(predictor) as address:
        responses = [
            requests.post(f"{address}/attributes", files={"photograph": each}, timeout=60) for each in contents
        ]
    check(read([response.json()["faces"][0] for response in responses]))
    finder = AttributeFinder()
    context = PythonModelContext({"classifier": str(model / "classifier.safetensors")}, {})  # type: ignore[no-untyped-call]
    finder.load_context(context)
    texts = [base64.b64encode(content).decode() for content in contents]
    table_of_rows = finder.predict(context, pd.DataFrame({"photograph": texts}))
    check(
        {
            file: {
                name: (row["probabilities"][name], row["answers"][name], row["uncertain"][name]) for name in ATTRIBUTES
            }
            for file, (_, row) in zip(files, table_of_rows.iterrows(), strict=True)
        }
    )
    export_attributes(predictor, tmp_path / "model.onnx")
    photographs = [decode_photograph(content) for content in contents]
    images = [
        np.stack([np.asarray(view) for view in transform.make_views(photo, transform.find_subject(photo))])
        for photo in photographs
    ]
    (probabilities,) = onnxruntime.InferenceSession("model.onnx").run([OUTPUT], {INPUT: np.stack(images)})
    in_python = predictor.predict_faces(photographs)
    for file, row, (face,) in zip(files, probabilities, in_python, strict=True):
        ordered = [expected[file][name] for name in ATTRIBUTES]
        assert row == pytest.approx([probability for probability, *_ in ordered], abs=1e-5)
        assert face.probabilities == pytest.approx([probability for probability, *_ in ordered], abs=1e-5)
        assert [
            ("yes" if yes else "no", bool(near)) for yes, near in zip(face.answers, face.uncertain, strict=True)
        ] == [(answer, uncertain) for _, answer, uncertain in ordered]


def test_every_face_is_answered_and_the_whole_photograph_only_on_request(
    tmp_path: Path, backbone: Backbone, backbone_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detecting = Transform(32, WHOLE.model_copy(update={"crop": "detect"}))
    predictor = AttributePredictor.load(save_attribute_model(tmp_path, backbone, backbone_file, detecting))
    noise = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    faces = [make_face(20, 5, 30, 15), make_face(2, 3, 14, 16)]
    wide, tall = Image.fromarray(noise), Image.fromarray(noise.transpose(1, 0, 2).copy())
    monkeypatch.setattr(transform_module, "detect_faces", lambda photo: faces if photo.width > photo.height else [])
    assert [[each.face for each in found] for found in predictor.predict_faces([wide, tall])] == [faces, []]
    first, second = predictor.predict_faces([wide])[0]
    assert not np.allclose(first.probabilities, second.probabilities, atol=1e-4)
    (whole,) = predictor.predict_faces([tall], whole=True)[0]
    assert whole.face is None and predictor.describe(whole).box is None


def test_attributes_are_sorted_by_probability_and_answered_from_their_thresholds_on(
    attribute_predictor: AttributePredictor,
) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8))
    (predicted,) = attribute_predictor.predict_faces([noise])[0]
    answers = attribute_predictor.describe(predicted).attributes
    assert [each.probability for each in answers] == sorted(predicted.probabilities, reverse=True)
    assert {each.name for each in answers} == set(ATTRIBUTES)
    assert {each.answer for each in answers} == {"yes", "no"} and {each.uncertain for each in answers} == {True, False}
    for each in answers:
        assert (each.answer == "yes") == (each.probability >= each.threshold)
        odds, threshold_odds = each.probability / (1 - each.probability), each.threshold / (1 - each.threshold)
        assert each.uncertain == (3 / 7 < odds / threshold_odds < 7 / 3)
    assert attribute_predictor.describe(predicted, 2).attributes == answers[:2]
