"""features/faces.csv: every face that extract detected, for the stages that follow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from celebflow.features.faces import Face
from celebflow.tables import load_rows, save_rows


@dataclass(frozen=True)
class FaceRow:
    """One face in a photograph, or a photograph without faces.

    `faces` is the number of faces in the photograph. `rank` is 1 for its subject; it is 0 for a photograph without
    faces, whose other columns are empty. The box and `landmarks`, x and y of the eyes, the nose and the corners of the
    mouth, are in pixels of the upright photograph.
    """

    path: str
    faces: int
    rank: int
    left: float | None
    top: float | None
    right: float | None
    bottom: float | None
    score: float | None
    landmarks: str


def save_faces(faces_by_path: Mapping[str, Sequence[Face]], path: Path) -> None:
    """Write faces.csv; without photographs, only the header."""
    save_rows(FaceRow, _list_rows(faces_by_path), path)


def _list_rows(faces_by_path: Mapping[str, Sequence[Face]]) -> Iterator[FaceRow]:
    for path, faces in faces_by_path.items():
        if not faces:
            yield FaceRow(path, 0, 0, None, None, None, None, None, "")
        for rank, face in enumerate(faces, 1):
            landmarks = " ".join(repr(value) for point in face.landmarks for value in point)
            yield FaceRow(path, len(faces), rank, face.left, face.top, face.right, face.bottom, face.score, landmarks)


def load_subjects(path: Path) -> dict[str, Face]:
    """Return the face of each photograph's subject, by path; photographs without faces are left out."""
    return {row.path: _to_face(row) for row in load_rows(FaceRow, path) if row.rank == 1}


def _to_face(row: FaceRow) -> Face:
    if row.left is None or row.top is None or row.right is None or row.bottom is None or row.score is None:
        raise ValueError(f"the face of {row.path} has no box")
    values = [float(value) for value in row.landmarks.split()]
    one, two, nose, three, four = zip(values[0::2], values[1::2], strict=True)
    return Face(row.left, row.top, row.right, row.bottom, row.score, (one, two, nose, three, four))
