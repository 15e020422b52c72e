"""What models say of the faces in files → tables for people, and JSON and CSV for programs."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from celebflow.classifier.calibration import format_confidence
from celebflow.data.tables import write_table
from celebflow.errors import escape_controls
from celebflow.inference.attribute_predictor import AnsweredFace, AttributeAnswer, AttributePredictor
from celebflow.inference.extractor import NO_FACE, Box
from celebflow.inference.face_predictor import FacePredictor
from celebflow.inference.files import FaceAnswers, FilePrediction
from celebflow.inference.predictor import Candidate, Predictor, RankedFace

_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Questions:
    """What was asked of each face: who it is, and which of these attributes it has."""

    people: bool
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, predictors: Sequence[FacePredictor[Any, Any]]) -> "Questions":
        """Return the questions that predictors answer."""
        names = [predictor.card.class_names for predictor in predictors if isinstance(predictor, AttributePredictor)]
        people = any(isinstance(predictor, Predictor) for predictor in predictors)
        return cls(people, names[0] if names else ())

    def find_note(self, prediction: FilePrediction) -> str:
        """Return the note that a question has no answer in a photograph, or an empty one."""
        without_people = self.people and not any(face.people for face in prediction.faces)
        without_attributes = self.attributes and not any(face.attributes for face in prediction.faces)
        return NO_FACE if without_people or without_attributes else ""


def format_table(predictions: Sequence[FilePrediction], questions: Questions) -> str:
    """Return a table for people, with a column for boxes if any face has one."""
    from tabulate import tabulate

    headers = ["photograph", "face (left top right bottom)"]
    headers += ["name", "probability", "or"] if questions.people else []
    headers += ["yes", "uncertain"] if questions.attributes else []
    rows = []
    for prediction in predictions:
        found_people = any(face.people for face in prediction.faces)
        found_attributes = any(face.attributes for face in prediction.faces)
        for face in prediction.faces or [FaceAnswers(None)]:
            row = [_escape(prediction.photograph), " ".join(f"{side:.0f}" for side in _list_sides(face.box))]
            if questions.people:
                row += _list_people_cells(face.people) if face.people else _list_empty_cells(3, found_people)
            if questions.attributes:
                row += (
                    _list_attribute_cells(face.attributes)
                    if face.attributes
                    else _list_empty_cells(2, found_attributes)
                )
            rows.append(row)
    if not any(face.box for prediction in predictions for face in prediction.faces):
        for each in (headers, *rows):
            del each[1]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def _list_people_cells(face: RankedFace) -> list[str]:
    first, *others = face.candidates
    name = _mark(first) if face.known else f"unknown ({_mark(first)}?)"
    alternatives = ", ".join(f"{_mark(other)} {other.probability:.1%}" for other in others)
    return [_escape(name), format_confidence(first.probability), _escape(alternatives)]


def _mark(candidate: Candidate) -> str:
    return f"{candidate.name} [enrolled]" if candidate.enrolled else candidate.name


def _list_attribute_cells(face: AnsweredFace) -> list[str]:
    """Return the attributes that a face surely has, and those that are uncertain, each on a line."""
    sure = [answer for answer in face.attributes if answer.answer == "yes" and not answer.uncertain]
    uncertain = [answer for answer in face.attributes if answer.uncertain]
    return [
        "\n".join(map(_format_answer, sure)),
        "\n".join(f"{_format_answer(answer)}, rather {answer.answer}" for answer in uncertain),
    ]


def _format_answer(answer: AttributeAnswer) -> str:
    return f"{_escape(answer.name)} {format_confidence(answer.probability)}"


def _escape(text: str) -> str:
    return escape_controls(text, keep="")


def _list_empty_cells(count: int, found: bool) -> list[str]:
    """Return the cells of a question that a row does not answer; they say so where no row of the photograph does."""
    return ["" if found else NO_FACE, *[""] * (count - 1)]


def format_json(predictions: Sequence[FilePrediction], questions: Questions) -> str:
    """Return a JSON array: of one question, with an object for each face, and one with a note for no face.

    Of several, it has an object for each photograph with all of its `faces`; where a model says nothing of a face, such
    as one that sees whole photographs, its fields are null.
    """
    objects: list[dict[str, object]] = []
    for prediction in predictions:
        note = questions.find_note(prediction)
        if questions.people and questions.attributes:
            faces = [_describe_face(face, questions) for face in prediction.faces]
            objects.append({"photograph": prediction.photograph, "faces": faces, "note": note or None})
            continue
        nothing = FaceAnswers(None, RankedFace(None, False, None, []), AnsweredFace(None, []))
        for face in prediction.faces or [nothing]:
            values = {"photograph": prediction.photograph, **_describe_face(face, questions)}
            objects.append(values | ({"note": note} if note else {}))
    return json.dumps(objects, indent=2, ensure_ascii=False, allow_nan=False)


def _describe_face(face: FaceAnswers, questions: Questions) -> dict[str, object]:
    """Return a face's box, and what the questions are about."""
    values: dict[str, object] = {"box": None if face.box is None else asdict(face.box)}
    if questions.people:
        nobody = dict.fromkeys(("known", "unknown_p_value", "candidates"))
        values |= nobody if face.people is None else _without_box(asdict(face.people))
    if questions.attributes:
        values |= {"attributes": None} if face.attributes is None else _without_box(asdict(face.attributes))
    return values


def _without_box(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name != "box"}


def format_csv(predictions: Sequence[FilePrediction], questions: Questions) -> str:
    """Return CSV: of people alone, a row for each candidate of each face; with attributes, a row for each face.

    A photograph without a face has a row that says so. An attribute has three columns: the probability of yes, the
    answer, and whether that is uncertain.
    """
    lists: Callable[..., tuple[list[str], list[list[object]]]] = (
        _list_wide if questions.attributes else _list_candidates
    )
    header, rows = lists(predictions, questions)
    file = io.StringIO()
    write_table(file, header, rows)
    return file.getvalue().rstrip("\n")


def _list_candidates(
    predictions: Sequence[FilePrediction], questions: Questions
) -> tuple[list[str], list[list[object]]]:
    header = ["photograph", *_SIDES, "known", "unknown_p_value", "rank", "name", "probability", "enrolled"]
    rows: list[list[object]] = []
    for prediction in predictions:
        if note := questions.find_note(prediction):
            rows.append([prediction.photograph, "", "", "", "", "false", "", "", note, "", ""])
        for people in (face.people for face in prediction.faces if face.people):
            for rank, candidate in enumerate(people.candidates, 1):
                of_face = [prediction.photograph, *_list_side_cells(people.box), *_list_match_cells(people)]
                rows.append([*of_face, rank, *_list_candidate_cells(candidate)])
    return header, rows


def _list_wide(predictions: Sequence[FilePrediction], questions: Questions) -> tuple[list[str], list[list[object]]]:
    of_people = ["known", "unknown_p_value", "name", "probability", "enrolled"] if questions.people else []
    of_attributes = [
        f"{name}_{part}" for name in questions.attributes for part in ("probability", "answer", "uncertain")
    ]
    rows: list[list[object]] = []
    for prediction in predictions:
        note = questions.find_note(prediction)
        for face in prediction.faces or [FaceAnswers(None)]:
            row: list[object] = [prediction.photograph, *_list_side_cells(face.box), note]
            if face.people:
                row += [*_list_match_cells(face.people), *_list_candidate_cells(face.people.candidates[0])]
            else:
                row += [""] * len(of_people)
            if face.attributes:
                answers = {answer.name: answer for answer in face.attributes.attributes}
                for answer in map(answers.__getitem__, questions.attributes):
                    row += [answer.probability, answer.answer, _write(answer.uncertain)]
            else:
                row += [""] * len(of_attributes)
            rows.append(row)
    return ["photograph", *_SIDES, "note", *of_people, *of_attributes], rows


def _list_match_cells(face: RankedFace) -> list[object]:
    return [_write(face.known), "" if face.unknown_p_value is None else face.unknown_p_value]


def _list_candidate_cells(candidate: Candidate) -> list[object]:
    return [candidate.name, candidate.probability, _write(candidate.enrolled)]


def _write(value: bool) -> str:
    return str(value).lower()


def _list_side_cells(box: Box | None) -> list[object]:
    return [*_list_sides(box)] or ["", "", "", ""]


def _list_sides(box: Box | None) -> list[float]:
    """Return the left, top, right and bottom of a box; nothing for the photograph as a whole."""
    return [] if box is None else list(asdict(box).values())
