"""Files → who is in each: decoded and predicted in batches, and formatted for people and for programs."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from celebflow.classifier.calibration import format_confidence
from celebflow.data.decoding import decode_photograph
from celebflow.data.files import STANDARD_INPUT, find_files, is_folder
from celebflow.data.formats import PhotographError, explain_refusal
from celebflow.data.tables import write_table
from celebflow.errors import CelebflowError, escape_controls
from celebflow.inference.extractor import NO_FACE
from celebflow.inference.predictor import Candidate, Predictor, RankedFace, rank_candidates

Name = TypeVar("Name")
_BATCH_SIZE = 16
_BATCH_PIXELS = 50_000_000  # 150 MB: so many decoded pixels also fill a batch


@dataclass(frozen=True)
class FilePrediction:
    """Who a face in a photograph is, and the photograph's file; `face` is None when no face was found in it."""

    photograph: str
    face: RankedFace | None


def list_photographs(names: Sequence[str]) -> list[str]:
    """Replace each folder with the files in it, at any depth; raise CelebflowError when a folder holds none."""
    listed = []
    for name in names:
        if name == STANDARD_INPUT or not is_folder(name):
            listed.append(name)
            continue
        files, _ = find_files(Path(name))
        if not files:
            raise CelebflowError(f"{name} holds no photograph.")
        listed += [str(Path(name) / file) for file in files]
    return listed


def predict_photographs(
    photographs: Iterable[str],
    read: Callable[[str], bytes],
    predictor: Predictor,
    max_candidates: int,
    refuse: Callable[[str, str], object],
    *,
    whole: bool = False,
) -> Iterator[FilePrediction]:
    """Predict who each face in each photograph is, in their order; with `whole`, a photograph without one, too.

    `refuse` gets the name of each file that is not a photograph, and the reason.
    """
    for batch in decode_in_batches(photographs, read, refuse):
        predicted = predictor.predict_faces([image for _, image in batch], whole=whole)
        for (name, _), faces in zip(batch, predicted, strict=True):
            for face in faces:
                yield FilePrediction(
                    name, rank_candidates(face, predictor.card, max_candidates, predictor.enrolled_names)
                )
            if not faces:
                yield FilePrediction(name, None)


def decode_in_batches(
    photographs: Iterable[Name], read: Callable[[Name], bytes], refuse: Callable[[Name, str], object]
) -> Iterator[list[tuple[Name, Image.Image]]]:
    """Yield photographs with their names, in batches that fit in memory.

    `refuse` gets the name of each file that is not a photograph, and the reason.
    """
    batch: list[tuple[Name, Image.Image]] = []
    for name in photographs:
        try:
            batch.append((name, decode_photograph(read(name))))
        except (PhotographError, OSError) as error:
            refuse(name, explain_refusal(error))
        if len(batch) == _BATCH_SIZE or sum(image.width * image.height for _, image in batch) >= _BATCH_PIXELS:
            yield batch
            batch.clear()  # not a new list: the caller still holds this one while the next is filled
    if batch:
        yield batch


def format_table(predictions: Sequence[FilePrediction]) -> str:
    """Return a table for people, with a column for boxes if any face has one."""
    from tabulate import tabulate

    headers = ["photograph", "face (left top right bottom)", "name", "probability", "or"]
    rows = []
    for prediction in predictions:
        face = prediction.face
        if face is None:
            rows.append([prediction.photograph, "", NO_FACE, "", ""])
            continue
        first, *others = face.candidates
        sides = " ".join(f"{side:.0f}" for side in _list_sides(face))
        name = _mark(first) if face.known else f"unknown ({_mark(first)}?)"
        alternatives = ", ".join(f"{_mark(other)} {other.probability:.1%}" for other in others)
        rows.append([prediction.photograph, sides, name, format_confidence(first.probability), alternatives])
    rows = [[escape_controls(cell, keep="") for cell in row] for row in rows]
    if not any(prediction.face and prediction.face.box for prediction in predictions):
        for row in (headers, *rows):
            del row[1]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def _mark(candidate: Candidate) -> str:
    return f"{candidate.name} [enrolled]" if candidate.enrolled else candidate.name


def format_json(predictions: Sequence[FilePrediction]) -> str:
    """Return a JSON array with an object for each face, and one with a note for a photograph without any."""
    objects = []
    for prediction in predictions:
        face = asdict(prediction.face or RankedFace(None, False, None, []))
        note = {} if prediction.face else {"note": NO_FACE}
        objects.append({"photograph": prediction.photograph, **face, **note})
    return json.dumps(objects, indent=2, ensure_ascii=False, allow_nan=False)


def format_csv(predictions: Sequence[FilePrediction]) -> str:
    """Return a row for each candidate of each face, and one for a photograph without any."""
    sides_and_match = ["left", "top", "right", "bottom", "known", "unknown_p_value"]
    header = ["photograph", *sides_and_match, "rank", "name", "probability", "enrolled"]
    rows: list[Sequence[object]] = []
    for prediction in predictions:
        face = prediction.face
        if face is None:
            rows.append([prediction.photograph, "", "", "", "", "false", "", "", NO_FACE, "", ""])
            continue
        sides: Sequence[float | str] = _list_sides(face) or ("", "", "", "")
        match = str(face.known).lower(), "" if face.unknown_p_value is None else face.unknown_p_value
        for rank, candidate in enumerate(face.candidates, 1):
            of_candidate = [rank, candidate.name, candidate.probability, str(candidate.enrolled).lower()]
            rows.append([prediction.photograph, *sides, *match, *of_candidate])
    file = io.StringIO()
    write_table(file, header, rows)
    return file.getvalue().rstrip("\n")


def _list_sides(face: RankedFace) -> Sequence[float]:
    """Return the left, top, right and bottom of a face's box; nothing for the photograph as a whole."""
    return [] if face.box is None else list(asdict(face.box).values())
