"""Photographs of a person → an enrolled person, whom the model predicts from then on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from filelock import FileLock
from PIL import Image

from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.enrollment import Enrollment, load_enrollment, save_enrollment, start_enrollment
from celebflow.classifier.gallery import MIN_ENROLLMENT_PEOPLE, Gallery
from celebflow.data.decoding import decode_photograph
from celebflow.data.duplicates import HashArray, find_near_duplicates, hash_photograph
from celebflow.data.formats import PhotographError, explain_refusal
from celebflow.data.layout import is_nobody, list_similar_names
from celebflow.errors import CelebflowError, escape_controls
from celebflow.inference.extractor import NO_FACE
from celebflow.inference.predictor import Predictor

_DUPLICATE_DISTANCE_BITS = 48  # as params.yaml has it
_MAX_CHARACTERS = 255  # of a name, as file systems have it: trained people are folders


@dataclass(frozen=True)
class EnrolledPerson:
    """An enrolled person and the number of photographs."""

    name: str
    photograph_count: int

    def count_photographs(self) -> str:
        """Write the number of photographs with its noun."""
        return "1 photograph" if self.photograph_count == 1 else f"{self.photograph_count} photographs"


def list_enrolled(predictor: Predictor) -> list[EnrolledPerson]:
    """Return the people who are enrolled beside a model, in the order in which they were added."""
    return _list_people(_load(predictor))


def enroll(
    name: str,
    photographs: Sequence[str],
    read: Callable[[str], bytes],
    predictor: Predictor,
    note: Callable[[str], object],
    *,
    whole: bool = False,
) -> EnrolledPerson:
    """Add photographs of a person to those who are enrolled beside a model, and save them there.

    `note` gets what may be wrong with a photograph. With `whole`, one without a face is taken as a whole.

    Raises CelebflowError, and enrolls nothing, when the name cannot be taken or one of the photographs cannot be used.
    """
    with _change(predictor) as enrollment:
        return _enroll(name, photographs, read, predictor, enrollment, note, whole)


def _enroll(
    name: str,
    photographs: Sequence[str],
    read: Callable[[str], bytes],
    predictor: Predictor,
    enrollment: Enrollment,
    note: Callable[[str], object],
    whole: bool,
) -> EnrolledPerson:
    gallery = _require_gallery(predictor)
    _check_name(name, enrollment, predictor)
    taken: list[FloatArray] = []
    hash_of: dict[str, HashArray] = {}
    refused: list[str] = []
    for photograph in photographs:
        try:
            image = decode_photograph(read(photograph))
            coordinates = _embed(image, photograph, predictor, gallery, note, whole)
        except (PhotographError, OSError) as error:
            refused.append(f"{photograph or repr(photograph)} {explain_refusal(error)}")
            continue
        hashes = hash_photograph(image)
        if (holder := enrollment.find_photograph(coordinates)) not in (None, name):
            refused.append(f"{photograph} is already enrolled as {holder}")
        elif holder == name or any(np.array_equal(coordinates, each) for each in taken):
            note(f"{photograph}: this photograph is already enrolled; it counts once.")
        elif (holder := enrollment.find_near_duplicate(hashes, _DUPLICATE_DISTANCE_BITS)) not in (None, name):
            refused.append(f"{photograph} is a near-duplicate of a photograph that is enrolled as {holder}")
        elif holder == name:
            note(f"{photograph}: this is a near-duplicate of a photograph that is already enrolled; they count once.")
        elif original := _find_near_duplicate(hashes, hash_of):
            note(f"{photograph}: this is a near-duplicate of {original}; they count once.")
        else:
            taken.append(coordinates)
            hash_of[photograph] = hashes
    if refused:
        listed = escape_controls("; ".join(refused), keep="")
        raise CelebflowError(f"Nobody was enrolled: {listed}. Leave that out, or give other photographs of {name}.")
    if taken:
        enrollment = enrollment.add(name, np.stack(taken), np.stack([*hash_of.values()]))
        save_enrollment(enrollment, predictor.enrolled_file)
    return next(each for each in _list_people(enrollment) if each.name == name)


def _find_near_duplicate(hashes: HashArray, hash_of: Mapping[str, HashArray]) -> str | None:
    """Return the first of the photographs with these hashes of which one with `hashes` is a near-duplicate."""
    near = (
        each for each in hash_of if len(find_near_duplicates(hashes, hash_of[each][None], _DUPLICATE_DISTANCE_BITS))
    )
    return next(near, None)


def remove_enrolled(name: str, predictor: Predictor) -> None:
    """Remove an enrolled person; raise CelebflowError when nobody of this name is enrolled."""
    with _change(predictor) as enrollment:
        if name not in enrollment.names:
            enrolled = ", ".join(enrollment.names) or "nobody"
            raise CelebflowError(f"Nobody is enrolled as {name}. Enrolled: {enrolled}.")
        save_enrollment(enrollment.remove(name), predictor.enrolled_file)


@contextmanager
def _change(predictor: Predictor) -> Iterator[Enrollment]:
    """Yield who is enrolled, and keep other processes from changing it meanwhile: they would lose what this one saves.

    The lock is a file beside the model, because that of the enrolled people is replaced by each change.
    """
    _require_gallery(predictor)
    with FileLock(predictor.enrolled_file.with_suffix(".lock")):
        yield _load(predictor)


def _list_people(enrollment: Enrollment) -> list[EnrolledPerson]:
    counts = enrollment.counts.tolist()
    return [EnrolledPerson(name, count) for name, count in zip(enrollment.names, counts, strict=True)]


def _load(predictor: Predictor) -> Enrollment:
    gallery = _require_gallery(predictor)
    return load_enrollment(predictor.enrolled_file, gallery) or start_enrollment(gallery)


def _require_gallery(predictor: Predictor) -> Gallery:
    gallery = predictor.classifier.gallery
    if gallery is None or not gallery.trials:
        raise CelebflowError(
            f"People can be enrolled beside a classifier that was trained on at least {MIN_ENROLLMENT_PEOPLE} people "
            f"with several photographs each, and this one knows {len(predictor.card.class_names)} people. Add people "
            "or photographs to data, and run `dvc repro`."
        )
    return gallery


def _check_name(name: str, enrollment: Enrollment, predictor: Predictor) -> None:
    """Raise CelebflowError when nobody can read a name, or it is that of another person, or looks like it."""
    if not name.strip() or escape_controls(name, keep="") != name:
        raise CelebflowError(f"{name!r} is not a name that people can read. Choose another one.")
    if len(name) > _MAX_CHARACTERS:
        raise CelebflowError(
            f"The name {name[:_MAX_CHARACTERS]}… has {len(name)} characters. Choose one of at most {_MAX_CHARACTERS}."
        )
    if name in enrollment.names:
        return
    if is_nobody(name):
        raise CelebflowError(f"The name {name} says that nobody knows who it is. Choose another one.")
    for other in (*predictor.card.class_names, *enrollment.names):
        if other != name and not list_similar_names([name, other]):
            continue
        if other in enrollment.names:
            raise CelebflowError(f"{other} is enrolled, which {name} resembles. Give the same name, or another one.")
        raise CelebflowError(
            f"The classifier was trained on {other}. Add the photographs to that person's folder in data and run "
            "`dvc repro`, or choose another name."
        )


def _embed(
    image: Image.Image,
    photograph: str,
    predictor: Predictor,
    gallery: Gallery,
    note: Callable[[str], object],
    whole: bool,
) -> FloatArray:
    """Return the (D,) coordinates of a photograph's subject, and note what may be wrong with the photograph.

    Raises PhotographError when no face is found.
    """
    faces = list(predictor.extract(image, 2, whole=whole))
    if not faces:
        raise PhotographError(f"shows no face that the detector finds ({NO_FACE}); --whole takes it as a whole")
    if len(faces) > 1:
        note(f"{photograph}: of several faces, the largest is enrolled.")
    ((predicted,),) = predictor.classify([faces[:1]])
    if predicted.known:
        trained = predictor.card.class_names[int(predicted.probabilities.argmax())]
        note(f"{photograph}: the classifier takes this person for {trained}, whom it was trained on.")
    coordinates: FloatArray = gallery.embed(predictor.stack_views(faces[:1]))[0]
    return coordinates
