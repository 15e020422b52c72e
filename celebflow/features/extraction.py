"""Compute the features and faces that the cache lacks."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from celebflow import paths
from celebflow.data.decoding import load_photograph
from celebflow.data.photos import Photo
from celebflow.errors import CelebflowError, list_some
from celebflow.features.cache import FeatureCache
from celebflow.features.extracted import Extracted, Missing, extract_photograph
from celebflow.features.faces import Face
from celebflow.features.origin import FeatureOrigin
from celebflow.features.transform import Transform
from celebflow.params import ComputeParams

if TYPE_CHECKING:
    from celebflow.features.runtimes import Runtime

_STORE_SECONDS = 0.25  # the work that a kill can lose
_RIVAL_AREA = 0.5  # of the subject's face, from which on another one may be meant


def extract_missing(
    photos: Sequence[Photo], folder: Path, backbone_file: Path, compute: ComputeParams, cache: FeatureCache
) -> int:
    """Compute what the cache lacks of `photos`, and return the number of photographs that lacked something.

    The backbone is loaded from `backbone_file` only if it is needed. Each of the runtime's workers reads, transforms
    and computes a photograph of its own, here or on the nodes of a cluster.

    Raises CelebflowError when a file is missing or has changed since prepare, or the cluster cannot be used.
    """
    incomplete = list({photo.sha256: photo for photo in photos if not cache.is_complete(photo)}.values())
    if not incomplete:
        return 0
    # They import PyTorch, which takes seconds and is of no use when nothing is missing.
    from celebflow.backbone.weights import load_backbone
    from celebflow.features.runtimes import build_runtime

    transform = cache.origin.transform
    backbone = load_backbone(backbone_file, compute.device)
    missing = [_find_missing(photo, cache) for photo in incomplete]
    if compute.cluster is not None:
        from celebflow.features.cluster_extraction import extract_on_cluster

        extracted = extract_on_cluster(compute.cluster, missing, folder, backbone, cache.origin, compute)
    else:
        extracted = _extract_here(
            missing, folder, transform, build_runtime(cache.origin.runtime, backbone, transform.layers)
        )
    progress = tqdm(extracted, f"extracting with {cache.origin.runtime}", len(missing), unit="photograph", disable=None)
    store_extracted(progress, cache)
    return len(missing)


def store_extracted(extracted: Iterable[tuple[Photo, Extracted]], cache: FeatureCache) -> None:
    """Store what was extracted every now and then, because the disk takes longer to store one than many nodes do."""
    unstored, stored_at = [], time.monotonic()
    try:
        for photo, result in extracted:
            unstored.append((photo, result.rows, result.faces))
            if time.monotonic() - stored_at >= _STORE_SECONDS:
                cache.put_all(unstored)
                unstored, stored_at = [], time.monotonic()
    finally:  # also when extraction is interrupted
        cache.put_all(unstored)


def _find_missing(photo: Photo, cache: FeatureCache) -> Missing:
    faces = cache.get_faces(photo) if cache.origin.transform.detects_faces else []
    return Missing(photo, cache.find_missing(photo), faces)


def _extract_here(
    missing: Sequence[Missing], folder: Path, transform: Transform, runtime: "Runtime"
) -> Iterator[tuple[Photo, Extracted]]:
    def extract(each: Missing) -> Extracted:
        return extract_photograph(
            load_photograph(folder / each.photo.path, each.photo.sha256), each, transform, runtime
        )

    with ThreadPoolExecutor(runtime.workers) as workers:
        # Only a few photographs are in progress at once, so that memory does not grow with their number.
        in_progress: deque[Future[Extracted]] = deque()
        waiting = iter(missing)
        for each in missing:
            while len(in_progress) < 2 * runtime.workers and (following := next(waiting, None)) is not None:
                in_progress.append(workers.submit(extract, following))
            yield each.photo, in_progress.popleft().result()


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
