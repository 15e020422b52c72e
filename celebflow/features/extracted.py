"""A photograph → its features and faces, in this process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from celebflow.data.photos import Photo
from celebflow.features.faces import Face
from celebflow.features.sparse import SparseRow
from celebflow.features.transform import Transform

if TYPE_CHECKING:
    from celebflow.features.runtimes import Runtime


@dataclass(frozen=True)
class Missing:
    """What is to be computed of a photograph: these regions of the transform, and its faces unless they are known."""

    photo: Photo
    regions: list[Transform]
    faces: list[Face] | None


@dataclass(frozen=True)
class Extracted:
    """What was computed of a photograph: features by the transform's parts, and its faces."""

    rows: dict[Transform, SparseRow]
    faces: list[Face]


def extract_photograph(
    photograph: Image.Image, missing: Missing, transform: Transform, runtime: "Runtime"
) -> Extracted:
    """Compute what is missing of an RGB photograph."""
    faces = transform.find_faces(photograph) if missing.faces is None else missing.faces
    face = faces[0] if faces else None
    rows = {}
    for region in missing.regions:
        for view, image in zip(region.views, region.make_inputs(photograph, face), strict=True):
            rows[region.only(view)] = SparseRow.from_dense(runtime.extract(image))
    return Extracted(rows, faces)


def extract_views(
    photograph: Image.Image, face: Face | None, transform: Transform, runtime: "Runtime"
) -> list[SparseRow]:
    """Turn an RGB photograph, or a face in it, into the features of each of the transform's views.

    Extraction and inference share this function, so that they cannot disagree.
    """
    rows = [SparseRow.from_dense(runtime.extract(image)) for image in transform.make_inputs(photograph, face)]
    regions = len(transform.regions)
    views = [rows[start : start + regions] for start in range(0, len(rows), regions)]
    return [SparseRow.join(view, transform.feature_count) for view in views]
