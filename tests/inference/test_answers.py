"""What models say of faces is formatted for people and for programs, and no name breaks a format."""

import csv
import io
import json

from celebflow.inference.answers import Questions, format_csv, format_json, format_table
from celebflow.inference.attribute_predictor import AnsweredFace, AttributeAnswer
from celebflow.inference.extractor import Box
from celebflow.inference.face_predictor import DescribedFace
from celebflow.inference.files import FilePrediction, join_faces
from celebflow.inference.predictor import Candidate, RankedFace

PEOPLE = Questions(people=True, attributes=())


def _predict(photograph: str, *faces: DescribedFace) -> FilePrediction:
    return FilePrediction(photograph, join_faces(faces))


def test_the_table_shows_unknown_faces_and_boxes_if_there_are_any() -> None:
    candidates = [Candidate("Ann", 0.5), Candidate("Bo", 0.25)]
    known = _predict("a.jpg", RankedFace(None, True, 0.01, candidates))
    unknown = _predict("b.jpg", RankedFace(None, False, 0.5, candidates))
    boxed = _predict("a.jpg", RankedFace(Box(1.2, 2, 3, 4), True, None, candidates))
    table = format_table([known, unknown], PEOPLE)
    assert table.splitlines()[1].split() == ["a.jpg", "Ann", "50.0%", "Bo", "25.0%"]
    assert "unknown (Ann?)" in table
    assert "face" not in table
    assert "1 2 3 4" in format_table([boxed], PEOPLE)
    header, *lines = format_table([known, boxed], PEOPLE).splitlines()
    assert "face" in header
    assert [line.split()[1] for line in lines] == ["Ann", "1"]


def test_a_photograph_without_a_face_is_told_in_every_format() -> None:
    face = RankedFace(Box(1, 2, 3, 4), True, 0.01, [Candidate("=Ann", 0.75)])
    predictions = [FilePrediction("none.jpg", []), _predict("+one.jpg", face)]
    table = format_table(predictions, PEOPLE).splitlines()
    assert table[1].split() == ["none.jpg", "no", "face", "found"]
    none, one = json.loads(format_json(predictions, PEOPLE))
    nothing: dict[str, object] = {"box": None, "known": False, "unknown_p_value": None, "candidates": []}
    assert none == {"photograph": "none.jpg", **nothing, "note": "no face found"}
    assert "note" not in one
    first, second = csv.DictReader(io.StringIO(format_csv(predictions, PEOPLE)))
    assert (first["name"], first["known"], first["probability"], first["left"]) == ("no face found", "false", "", "")
    assert (first["unknown_p_value"], second["unknown_p_value"]) == ("", "0.01")
    assert (second["photograph"], second["name"]) == ("'+one.jpg", "'=Ann"), "no formulas"


def test_no_name_breaks_the_table() -> None:
    face = RankedFace(None, True, None, [Candidate("Ann\tAnn", 0.5)])
    table = format_table([_predict("a.jpg\nb.jpg  Bo  99.0%", face)], PEOPLE)
    assert len(table.splitlines()) == 2
    assert "Ann\\u0009Ann" in table
