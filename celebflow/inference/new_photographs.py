"""A folder of photographs → the features of those that are new beside train, and what a classifier predicts of them."""

import hashlib
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from celebflow.data.duplicates import group_near_duplicates, hash_photograph
from celebflow.data.files import find_files, read_file
from celebflow.data.formats import PhotographError, explain_refusal
from celebflow.data.given_tables import TABLES
from celebflow.features.faces import Face
from celebflow.features.sparse import SparseRow
from celebflow.inference.extractor import ExtractedFace, Extractor
from celebflow.inference.files import decode_in_batches
from celebflow.inference.predictor import PredictedPerson, Predictor

_SEED = 0


@dataclass(frozen=True, eq=False)
class NewPhotograph:
    """A new photograph: its path, its content, its subject's face, the features of each view, and the prediction.

    The face is None where none was looked for or found, and the prediction where no classifier predicts people.
    """

    path: str
    sha256: str
    face: Face | None
    views: list[SparseRow]
    predicted: PredictedPerson | None


@dataclass(frozen=True, eq=False)
class NewPhotographs:
    """The photographs of a folder, by path, that are neither train's own nor near-duplicates of others there.

    Of these, `known_count` and `duplicate_count` were left out; `unreadable` lists the files that are no photographs,
    with reasons.
    """

    photographs: list[NewPhotograph]
    known_count: int
    duplicate_count: int
    unreadable: list[str]


@dataclass(frozen=True)
class _File:
    path: str
    sha256: str
    content: bytes


def read_new_photographs(
    folder: Path, source: Predictor | Extractor, known: Set[str], max_count: int, duplicate_distance_bits: int | None
) -> NewPhotographs:
    """Read photographs in `folder`, at any depth, until `max_count` are new; their order is drawn with a fixed seed.

    `known` are the SHA-256 of train's photographs. Where the source is a Predictor, it predicts the new ones.

    Raises CelebflowError when the folder cannot be read.
    """
    files = [file for file in find_files(folder)[0] if file not in TABLES]
    found: list[NewPhotograph] = []
    hashes = []
    unreadable: list[str] = []
    known_count = 0

    def read_files() -> Iterator[_File]:
        nonlocal known_count
        for position in np.random.default_rng(_SEED).permutation(len(files)).tolist():
            if len(found) >= max_count:
                return
            path = files[position]
            try:
                content = read_file(folder / path)
            except (PhotographError, OSError) as error:
                unreadable.append(f"{folder / path}: {explain_refusal(error)}")
                continue
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 in known:
                known_count += 1
            else:
                yield _File(path, sha256, content)

    def refuse(file: _File, reason: str) -> None:
        unreadable.append(f"{folder / file.path}: {reason}")

    with tqdm(desc="reading", total=min(max_count, len(files)), unit="photograph", disable=None) as bar:
        for batch in decode_in_batches(read_files(), lambda file: file.content, refuse):
            faces = source.extract_all([image for _, image in batch], 1, whole=True)
            predicted = _predict(source, faces)
            for (file, image), (face,), of_face in zip(batch, faces, predicted, strict=True):
                found.append(NewPhotograph(file.path, file.sha256, face.face, face.views, of_face))
                hashes.append(hash_photograph(image))
            del file, image  # the last one would stay in memory while the next batch is read
            bar.update(len(batch))
    del found[max_count:], hashes[max_count:]
    if not found:
        return NewPhotographs([], known_count, 0, sorted(unreadable))
    groups = [each.sha256 for each in found]
    if duplicate_distance_bits is not None:
        groups = group_near_duplicates(np.stack(hashes), groups, duplicate_distance_bits)
    first_of: dict[str, NewPhotograph] = {}
    for each, group in sorted(zip(found, groups, strict=True), key=lambda pair: pair[0].path):
        first_of.setdefault(group, each)
    kept = list(first_of.values())
    return NewPhotographs(kept, known_count, len(found) - len(kept), sorted(unreadable))


def _predict(source: Predictor | Extractor, faces: list[list[ExtractedFace]]) -> list[PredictedPerson | None]:
    """Return the prediction of the only face of each photograph, or None for each without a classifier."""
    if isinstance(source, Extractor):
        return [None] * len(faces)
    return [person for (person,) in source.classify(faces)]
