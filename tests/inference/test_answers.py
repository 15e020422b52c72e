"""What models say of faces is formatted for people and for programs, and no name breaks a format."""

import csv
import io
import json
from dataclasses import replace

from celebflow.inference.answers import Questions, format_csv, format_json, format_table
from celebflow.inference.attribute_predictor import AnsweredFace, AttributeAnswer
from celebflow.inference.extractor import Box
from celebflow.inference.face_predictor import DescribedFace
from celebflow.inference.files import FilePrediction, join_faces
from celebflow.inference.predictor import Candidate, RankedFace

PEOPLE = Questions(people=True, attributes=())
HOSTILE = "=Hat\x1b[31m\n<b>"
ATTRIBUTES = Questions(people=False, attributes=("Smiling", HOSTILE, "Old"))
BOTH = replace(ATTRIBUTES, people=True)
BOX = Box(1, 2, 3, 4)
ANSWERS = [
    AttributeAnswer(HOSTILE, 0.9, 0.5, "yes", uncertain=False),
    AttributeAnswer("Smiling", 0.55, 0.6, "no", uncertain=True),
    AttributeAnswer("Old", 0.05, 0.5, "no", uncertain=False),
]
PERSON = RankedFace(BOX, True, 0.25, [Candidate("Ann", 0.75), Candidate("Bo", 0.125)])
ANSWERED = AnsweredFace(BOX, ANSWERS)


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


def test_the_table_lists_sure_and_uncertain_attributes_each_on_a_line() -> None:
    sure = AttributeAnswer("Smiling", 0.8, 0.6, "yes", uncertain=False)
    table = format_table([_predict("a.jpg", AnsweredFace(None, [*ANSWERS[:1], sure, *ANSWERS[1:]]))], ATTRIBUTES)
    header, first, second = table.splitlines()
    assert header.split() == ["photograph", "yes", "uncertain"]
    assert first.split(maxsplit=1)[1].startswith("=Hat\\u001b[31m\\u000a<b> 90.0%  ")
    assert first.endswith("Smiling 55.0%, rather no")
    assert second.split() == ["Smiling", "80.0%"]
    assert "Old" not in table


def test_json_of_attributes_has_an_object_for_each_face_with_all_its_answers() -> None:
    one, none = json.loads(format_json([_predict("a.jpg", ANSWERED), _predict("none.jpg")], ATTRIBUTES))
    assert one["box"] == {"left": 1, "top": 2, "right": 3, "bottom": 4} and "note" not in one
    assert one["attributes"][1] == {
        "name": "Smiling",
        "probability": 0.55,
        "threshold": 0.6,
        "answer": "no",
        "uncertain": True,
    }
    assert none == {"photograph": "none.jpg", "box": None, "attributes": [], "note": "no face found"}


def test_csv_of_attributes_has_three_columns_for_each_and_no_formula_in_its_header() -> None:
    text = format_csv([_predict("a.jpg", ANSWERED), _predict("none.jpg")], ATTRIBUTES)
    header = next(csv.reader(io.StringIO(text, newline="")))
    assert header[6:9] == ["Smiling_probability", "Smiling_answer", "Smiling_uncertain"], "in the model's order"
    assert header[9] == f"'{HOSTILE}_probability", "no formulas"
    one, none = csv.DictReader(io.StringIO(text, newline=""))
    assert (one["Smiling_probability"], one["Smiling_answer"], one["Smiling_uncertain"]) == ("0.55", "no", "true")
    assert (one["left"], one["note"], one["Old_answer"]) == ("1", "", "no")
    assert (none["left"], none["note"], none["Old_answer"]) == ("", "no face found", "")


def test_two_models_share_the_row_and_the_object_of_a_face() -> None:
    predictions = [_predict("a.jpg", PERSON, ANSWERED)]
    (photograph,) = json.loads(format_json(predictions, BOTH))
    (face,) = photograph["faces"]
    assert list(face) == ["box", "known", "unknown_p_value", "candidates", "attributes"]
    assert [each["name"] for each in face["candidates"]] == ["Ann", "Bo"]
    assert face["box"]["left"] == 1 and len(face["attributes"]) == 3 and photograph["note"] is None
    (row,) = csv.DictReader(io.StringIO(format_csv(predictions, BOTH), newline=""))
    found = {name: row[name] for name in ("name", "probability", "known", "enrolled", "Old_answer", "Old_probability")}
    assert list(found.values()) == ["Ann", "0.75", "true", "false", "no", "0.05"]
    header, line = format_table(predictions, BOTH).splitlines()
    assert header.split()[-5:] == ["name", "probability", "or", "yes", "uncertain"]
    assert "1 2 3 4" in line and "Ann" in line and "Smiling 55.0%" in line


def test_a_model_that_sees_whole_photographs_has_its_answer_beside_the_faces_of_the_other() -> None:
    predictions = [_predict("a.jpg", PERSON, replace(ANSWERED, box=None))]
    (photograph,) = json.loads(format_json(predictions, BOTH))
    face, whole = photograph["faces"]
    assert (face["attributes"], whole["candidates"], whole["known"]) == (None, None, None)
    assert whole["box"] is None and len(whole["attributes"]) == 3 and photograph["note"] is None
    rows = [*csv.DictReader(io.StringIO(format_csv(predictions, BOTH), newline=""))]
    assert [(row["name"], row["Old_answer"]) for row in rows] == [("Ann", ""), ("", "no")]
    assert "no face found" not in format_table(predictions, BOTH)


def test_a_model_that_finds_no_face_says_so_beside_the_answer_of_the_other() -> None:
    predictions = [_predict("a.jpg", replace(ANSWERED, box=None))]
    (photograph,) = json.loads(format_json(predictions, BOTH))
    assert photograph["note"] == "no face found" and photograph["faces"][0]["candidates"] is None
    (row,) = csv.DictReader(io.StringIO(format_csv(predictions, BOTH), newline=""))
    assert (row["note"], row["name"], row["Old_answer"]) == ("no face found", "", "no")
    _, line = format_table(predictions, BOTH).splitlines()
    assert "no face found" in line and "Smiling" in line
    assert format_table([_predict("none.jpg")], BOTH).count("no face found") == 2
