"""A photograph → the faces in it and their features, with the backbone that a saved model was trained on."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from celebflow import paths
from celebflow.backbone.source import BackboneSource
from celebflow.backbone.weights import load_backbone
from celebflow.errors import CelebflowError
from celebflow.features.extracted import extract_views
from celebflow.features.faces import Face
from celebflow.features.origin import RuntimeName, choose_runtime
from celebflow.features.runtimes import build_runtime
from celebflow.features.sparse import SparseBatch, SparseRow
from celebflow.features.transform import Transform
from celebflow.tracking.provenance import advise_to_make

NO_FACE = "no face found"


@dataclass(frozen=True)
class Box:
    """A face's box in pixels of the upright photograph; it may reach beyond the photograph."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class FeatureKey:
    """What determines the features of a photograph: the backbone by its fingerprint, the transform and the runtime."""

    fingerprint: str
    transform: Transform
    runtime: RuntimeName


@dataclass(frozen=True, eq=False)
class ExtractedFace:
    """A face, None for the photograph as a whole, and the features of each of its views.

    `face_count` is the number of faces in the photograph.
    """

    face: Face | None
    views: list[SparseRow]
    face_count: int


def make_box(face: Face | None) -> Box | None:
    """Return the box of a face, or None for the photograph as a whole."""
    return None if face is None else Box(face.left, face.top, face.right, face.bottom)


class Extractor:
    """The backbone on the CPU, and the transform that a model's card says."""

    def __init__(self, transform: Transform, source: BackboneSource, backbone_file: Path) -> None:
        """Load the backbone; raise CelebflowError when it is another one than the model was trained on."""
        self.backbone = load_backbone(backbone_file, "cpu")
        if self.backbone.source.fingerprint != source.fingerprint:
            raise CelebflowError(
                f"{backbone_file} is not the backbone that the model was trained on ({source.weights}). "
                "Run `dvc repro`."
            )
        self._transform = transform
        self.key = FeatureKey(source.fingerprint, transform, choose_runtime("auto", "cpu"))
        self._runtime = build_runtime(self.key.runtime, self.backbone, transform.layers)

    @property
    def workers(self) -> int:
        """Return from how many threads at once `extract` is fastest."""
        return self._runtime.workers

    def extract(
        self, photograph: Image.Image, max_faces: int | None = None, *, whole: bool = False
    ) -> Iterator[ExtractedFace]:
        """Compute the features of up to `max_faces` faces in an RGB photograph, one by one, the subject first.

        A model that does not detect faces takes the photograph as a whole. One that does, but finds none, takes
        nothing, or the photograph as a whole if `whole` is true.
        """
        transform = self._transform
        found = transform.find_faces(photograph)
        faces: Sequence[Face | None] = found[:max_faces]
        if not faces and (whole or not transform.detects_faces):
            faces = [None]
        for face in faces:
            yield self.extract_face(photograph, face, len(found))

    def extract_face(self, photograph: Image.Image, face: Face | None, found_count: int = 0) -> ExtractedFace:
        """Compute the features of a face in an RGB photograph, of so many found, or of the photograph as a whole."""
        return ExtractedFace(face, extract_views(photograph, face, self._transform, self._runtime), found_count)

    def extract_all(
        self, photographs: Sequence[Image.Image], max_faces: int | None = None, *, whole: bool = False
    ) -> list[list[ExtractedFace]]:
        """Compute the features of the faces in each of N RGB photographs, several photographs at a time."""
        with ThreadPoolExecutor(self.workers) as workers:
            return list(workers.map(lambda each: list(self.extract(each, max_faces, whole=whole)), photographs))

    def stack_views(self, faces: Sequence[ExtractedFace]) -> list[SparseBatch]:
        """Return the features of each view of several faces, as models take them."""
        count = self._transform.feature_count
        view_numbers = range(len(self._transform.views))
        return [SparseBatch.from_rows([face.views[number] for face in faces], count) for number in view_numbers]


def find_model_files(folder: Path) -> tuple[Path, Path]:
    """Return the files of the trained model and of its backbone in a folder.

    It is `models` of a repository, or an MLflow model with its `artifacts`.

    Raises CelebflowError when the folder holds no model.
    """
    artifacts = folder / "artifacts" if (folder / "artifacts").is_dir() else folder
    files = artifacts / paths.CLASSIFIER.name, artifacts / paths.BACKBONE.name
    for file in files:
        if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises for some names
            raise CelebflowError(f"{file} is missing. {advise_to_make(file)}, or choose another model.")
    return files
