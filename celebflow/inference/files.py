"""Files → what models say of the faces in each: decoded and predicted in batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from celebflow.data.decoding import decode_photograph
from celebflow.data.files import STANDARD_INPUT, find_files, is_folder
from celebflow.data.formats import PhotographError, explain_refusal
from celebflow.data.given_tables import TABLES
from celebflow.errors import CelebflowError
from celebflow.inference.attribute_predictor import AnsweredFace
from celebflow.inference.extractor import Box, ExtractedFace
from celebflow.inference.face_predictor import DescribedFace, FacePredictor
from celebflow.inference.predictor import RankedFace

Name = TypeVar("Name")
_BATCH_SIZE = 16
_BATCH_PIXELS = 50_000_000  # 150 MB: so many decoded pixels also fill a batch


@dataclass(frozen=True)
class FaceAnswers:
    """What models say of a face, or of a photograph as a whole where `box` is None; None where a model says nothing."""

    box: Box | None
    people: RankedFace | None = None
    attributes: AnsweredFace | None = None


@dataclass(frozen=True)
class FilePrediction:
    """A photograph's file and the faces in it; a model that found no face in it has no answer in `faces`."""

    photograph: str
    faces: list[FaceAnswers]


def list_photographs(names: Sequence[str]) -> list[str]:
    """Replace each folder with the files in it, at any depth, but for the tables of a project's data.

    Raises CelebflowError when a folder holds none.
    """
    listed = []
    for name in names:
        if name == STANDARD_INPUT or not is_folder(name):
            listed.append(name)
            continue
        files = [file for file in find_files(Path(name))[0] if file not in TABLES]
        if not files:
            raise CelebflowError(f"{name} holds no photograph.")
        listed += [str(Path(name) / file) for file in files]
    return listed


def predict_photographs(
    photographs: Iterable[str],
    read: Callable[[str], bytes],
    predictors: Sequence[FacePredictor[Any, Any]],
    max_answers: Sequence[int | None],
    refuse: Callable[[str, str], object],
    *,
    whole: bool = False,
) -> Iterator[FilePrediction]:
    """Predict the faces in each photograph, in their order; with `whole`, a photograph without one as a whole.

    Of each face, a predictor gives up to its number of `max_answers`. Predictors that take the same features share
    them. `refuse` gets the name of each file that is not a photograph, and the reason.
    """
    for batch in decode_in_batches(photographs, read, refuse):
        images = [image for _, image in batch]
        described = [
            [[predictor.describe(face, count) for face in faces] for faces in predicted]
            for predictor, predicted, count in zip(
                predictors, _predict_together(predictors, images, whole), max_answers, strict=True
            )
        ]
        for (name, _), *of_predictors in zip(batch, *described, strict=True):
            yield FilePrediction(name, join_faces([face for faces in of_predictors for face in faces]))


def _predict_together(
    predictors: Sequence[FacePredictor[Any, Any]], photographs: Sequence[Image.Image], whole: bool
) -> Iterator[list[list[Any]]]:
    """Yield what each predictor predicts of the faces in each photograph; equal features are computed once."""
    extracted: dict[object, list[list[ExtractedFace]]] = {}
    for predictor in predictors:
        key = predictor.feature_key
        if key not in extracted:
            extracted[key] = predictor.extract_all(photographs, whole=whole)
        yield predictor.classify(extracted[key])


def join_faces(described: Sequence[DescribedFace]) -> list[FaceAnswers]:
    """Put together what several models say of the faces in a photograph; a face has the same box for all of them."""
    people = {face.box: face for face in described if isinstance(face, RankedFace)}
    attributes = {face.box: face for face in described if isinstance(face, AnsweredFace)}
    boxes = dict.fromkeys(face.box for face in described)
    return [FaceAnswers(box, people.get(box), attributes.get(box)) for box in boxes]


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
