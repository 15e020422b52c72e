"""Compute the features and faces that the cache lacks."""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from tqdm import tqdm

from celebflow import paths
from celebflow.data.decoding import load_photograph
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError, list_some
from celebflow.features.cache import FeatureCache
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin
from celebflow.features.sparse import SparseRow
from celebflow.features.transform import Transform
from celebflow.params import ComputeParams

if TYPE_CHECKING:
    from celebflow.features.runtimes import Runtime

_RIVAL_AREA = 0.5  # of the subject's face, from which on another one may be meant


def extract_missing(
    photos: Sequence[Photo], folder: Path, backbone_file: Path, compute: ComputeParams, cache: FeatureCache
) -> int:
    """Compute what the cache lacks of `photos`, and return the number of photographs that lacked something.

    The backbone is loaded from `backbone_file` only if it is needed. Each of the runtime's workers reads, transforms
    and computes a photograph of its own.

    Raises CelebflowError when a file is missing or has changed since prepare.
    """
    missing = list({photo.sha256: photo for photo in photos if not cache.is_complete(photo)}.values())
    if not missing:
        return 0
    # They import PyTorch, which takes seconds and is of no use when nothing is missing.
    from celebflow.backbone.weights import load_backbone
    from celebflow.features.runtimes import build_runtime

    transform = cache.origin.transform
    backbone = load_backbone(backbone_file, compute.device)
    runtime = build_runtime(cache.origin.runtime, backbone, transform.layers)

    def extract(photo: Photo) -> tuple[dict[Transform, SparseRow], list[Face]]:
        photograph = load_photograph(folder / photo.path, photo.sha256)
        faces = cache.get_faces(photo) if transform.detects_faces else []
        if faces is None:
            faces = transform.find_faces(photograph)
        face = faces[0] if faces else None
        rows = {}
        for region in cache.find_missing(photo):
            for view, image in zip(region.views, region.make_inputs(photograph, face), strict=True):
                rows[region.only(view)] = SparseRow.from_dense(runtime.extract(image))
        return rows, faces

    description = f"extracting with {cache.origin.runtime}"
    with ThreadPoolExecutor(runtime.workers) as workers:
        # Only a few photographs are in progress at once, so that memory does not grow with their number.
        in_progress: deque[Future[tuple[dict[Transform, SparseRow], list[Face]]]] = deque()
        waiting = iter(missing)
        for photo in tqdm(missing, description, unit="photograph", disable=None):
            while len(in_progress) < 2 * runtime.workers and (following := next(waiting, None)) is not None:
                in_progress.append(workers.submit(extract, following))
            cache.put(photo, *in_progress.popleft().result())
    return len(missing)


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


def report(
    count: int, photos: Sequence[Photo], origin: FeatureOrigin, faces_by_path: Mapping[str, Sequence[Face]]
) -> None:
    """Print that features of `count` photographs were computed, and which show no face, or another large one."""
    print(
        f"{count} photographs extracted with {origin.runtime}, {len(photos) - count} found in the cache. "
        f"{origin.backbone.warning()}"
    )
    if faceless := [path for path, faces in faces_by_path.items() if not faces]:
        print(
            f"In {len(faceless)} photographs, no face was found, and their center squares count instead: "
            f"{list_some(faceless)}. Remove those that show nobody; in {paths.FACES}, their rank is 0."
        )
    if crowded := [path for path, faces in faces_by_path.items() if _has_rival(faces)]:
        print(
            f"In {len(crowded)} photographs, another face is at least half as large as the one that counts: "
            f"{list_some(crowded)}. Crop those in which it is the person's; in {paths.FACES}, the one that counts has "
            "rank 1."
        )


def _has_rival(faces: Sequence[Face]) -> bool:
    return any(face.area >= _RIVAL_AREA * faces[0].area for face in faces[1:])


def collect_faces(photos: Sequence[Photo], cache: FeatureCache) -> dict[str, list[Face]]:
    """Return the faces that were detected in each photograph, by its path; an empty dict unless faces are detected.

    Raises CelebflowError when the cache lacks those of a photograph.
    """
    if not cache.origin.transform.detects_faces:
        return {}
    faces_by_path = {}
    for photo in photos:
        if (faces := cache.get_faces(photo)) is None:
            raise CelebflowError(f"The faces of {photo.path} are missing from the cache. Run `dvc repro` again.")
        faces_by_path[photo.path] = faces
    return faces_by_path
