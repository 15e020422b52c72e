"""Files → who is in each: read and asked in batches, and written for people and for programs."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from celebflow.data.decoding import PhotographError, decode_photograph
from celebflow.data.files import find_files
from celebflow.errors import CelebflowError
from celebflow.inference.predictor import Identity, Predictor, identify

STANDARD_INPUT = "-"
_BATCH_SIZE = 16
_BATCH_PIXELS = 50_000_000  # 150 MB; when so many are decoded, the batch is full, too


@dataclass(frozen=True)
class Answer:
    """Who somebody in a photograph that has a name is."""

    photograph: str
    identity: Identity


def list_photographs(names: Sequence[str]) -> list[str]:
    """Replace each folder by the files in it, at any depth; raise CelebflowError where one holds none."""
    listed = []
    for name in names:
        if name != STANDARD_INPUT and Path(name).is_dir():
            files, _ = find_files(Path(name))
            if not files:
                raise CelebflowError(f"{name} holds no photograph.")
            listed += [str(Path(name) / file) for file in files]
        else:
            listed.append(name)
    return listed


def predict_photographs(
    photographs: Iterable[str],
    read: Callable[[str], bytes],
    predictor: Predictor,
    most_candidates: int,
    refuse: Callable[[str, str], object],
) -> Iterator[Answer]:
    """Say of every face in every photograph who it is, in their order; `refuse` gets what is none, and why."""
    for batch in decode_in_batches(photographs, read, refuse):
        names = [name for name, _ in batch]
        for name, faces in zip(names, predictor.predict_faces([image for _, image in batch]), strict=True):
            for face in faces:
                yield Answer(name, identify(face, predictor.card, most_candidates))


def decode_in_batches(
    photographs: Iterable[str], read: Callable[[str], bytes], refuse: Callable[[str, str], object]
) -> Iterator[list[tuple[str, Image.Image]]]:
    """Yield photographs with their names, so few at once that their memory is bounded.

    `refuse` gets the name of what is none, and the reason.
    """
    batch: list[tuple[str, Image.Image]] = []
    for name in photographs:
        try:
            batch.append((name, decode_photograph(read(name))))
        except PhotographError as error:
            refuse(name, str(error))
            continue
        except OSError as error:
            refuse(name, f"cannot be read ({error.strerror})")
            continue
        if len(batch) == _BATCH_SIZE or sum(image.width * image.height for _, image in batch) >= _BATCH_PIXELS:
            yield batch
            batch.clear()  # and not a new list: whoever asks still holds this one while the next is filled
    if batch:
        yield batch


def format_table(answers: Sequence[Answer]) -> str:
    """Return a table for people; a box is shown where any face has one."""
    from tabulate import tabulate

    boxed = any(answer.identity.box for answer in answers)
    rows = []
    for answer in answers:
        identity = answer.identity
        first, *others = identity.candidates
        box = "" if identity.box is None else " ".join(f"{side:.0f}" for side in asdict(identity.box).values())
        rows.append(
            [
                answer.photograph,
                *([box] if boxed else []),
                first.name if identity.known else f"unknown ({first.name}?)",
                f"{first.probability:.1%}",
                ", ".join(f"{other.name} {other.probability:.1%}" for other in others),
            ]
        )
    headers = ["photograph", *(["face (left top right bottom)"] if boxed else []), "name", "probability", "or"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def format_json(answers: Sequence[Answer]) -> str:
    """Return a JSON array with an object for each face."""
    faces = [{"photograph": answer.photograph} | asdict(answer.identity) for answer in answers]
    return json.dumps(faces, indent=2, ensure_ascii=False)


def format_csv(answers: Sequence[Answer]) -> str:
    """Return a row for each candidate of each face."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["photograph", "left", "top", "right", "bottom", "known", "rank", "name", "probability"])
    for answer in answers:
        identity = answer.identity
        box = [""] * 4 if identity.box is None else list(asdict(identity.box).values())
        for rank, each in enumerate(identity.candidates, 1):
            known = str(identity.known).lower()
            writer.writerow([answer.photograph, *box, known, rank, each.name, each.probability])
    return file.getvalue().rstrip("\n")
