"""features/faces.csv: every face that extract detected, for the stages that follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from celebflow.data.tables import load_rows, save_rows
from celebflow.features.faces import Face


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
    rows = []
    for photo, faces in faces_by_path.items():
        if not faces:
            rows.append(FaceRow(photo, 0, 0, None, None, None, None, None, ""))
        for rank, face in enumerate(faces, 1):
            box = face.left, face.top, face.right, face.bottom
            landmarks = " ".join(repr(value) for point in face.landmarks for value in point)
            rows.append(FaceRow(photo, len(faces), rank, *box, face.score, landmarks))
    save_rows(FaceRow, rows, path)


def load_subjects(path: Path) -> dict[str, Face]:
    """Return the face of each photograph's subject, by path; photographs without faces are left out."""
    return {row.path: _to_face(row) for row in load_rows(FaceRow, path) if row.rank == 1}


def _to_face(row: FaceRow) -> Face:
    if row.left is None or row.top is None or row.right is None or row.bottom is None or row.score is None:
        raise ValueError(f"the face of {row.path} has no box")
    values = [float(value) for value in row.landmarks.split()]
    landmarks = tuple(zip(values[0::2], values[1::2], strict=True))
    return Face(row.left, row.top, row.right, row.bottom, row.score, landmarks)
