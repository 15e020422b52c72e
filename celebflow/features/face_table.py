"""features/faces.csv: every face that extract found, so that nothing after it has to search again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from celebflow.features.faces import Face
from celebflow.tables import load_rows, save_rows


@dataclass(frozen=True)
class FaceRow:
    """One face of a photograph, or a photograph without any.

    `rank` is 1 for the photograph's subject and 0 where no face was found; then all that follows is empty. Sides are
    in pixels of the upright photograph. `landmarks` are x and y of the eyes, the nose and the corners of the mouth.
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
    """Write faces.csv; only its header when faces are not detected."""
    save_rows(FaceRow, _list_rows(faces_by_path.items()), path)


def _list_rows(found: Iterable[tuple[str, Sequence[Face]]]) -> Iterator[FaceRow]:
    for path, faces in found:
        if not faces:
            yield FaceRow(path, 0, 0, None, None, None, None, None, "")
        for rank, face in enumerate(faces, 1):
            landmarks = " ".join(repr(value) for point in face.landmarks for value in point)
            yield FaceRow(path, len(faces), rank, face.left, face.top, face.right, face.bottom, face.score, landmarks)


def load_subjects(path: Path) -> dict[str, Face]:
    """Return the face of each photograph's subject by the photograph's path, without photographs that show none."""
    return {row.path: _to_face(row) for row in load_rows(FaceRow, path) if row.rank == 1}


def _to_face(row: FaceRow) -> Face:
    if row.left is None or row.top is None or row.right is None or row.bottom is None or row.score is None:
        raise ValueError(f"the face of {row.path} has no box")
    values = [float(value) for value in row.landmarks.split()]
    one, two, nose, three, four = zip(values[0::2], values[1::2], strict=True)
    return Face(row.left, row.top, row.right, row.bottom, row.score, (one, two, nose, three, four))
