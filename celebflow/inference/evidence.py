"""Look where the evidence for predictions lies: Grad-CAM inside and outside of the face, and parts of it hidden."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from celebflow.data.decoding import load_photograph
from celebflow.evaluation.evidence import Evidence
from celebflow.evaluation.explanations import HEAT_MAP_SIDE
from celebflow.evaluation.grad_cam import Explainer
from celebflow.features.faces import Face, detect_faces
from celebflow.features.store import Features
from celebflow.features.transform import Transform
from celebflow.inference.extractor import ExtractedFace
from celebflow.inference.predictor import Predictor
from celebflow.report.thumbnails import make_thumbnail
from celebflow.report.why_section import Occlusion

_SAMPLE_SIZE = 60
_GRAY = (124, 116, 104)  # the mean of ImageNet, which normalization turns into 0


@dataclass(frozen=True, eq=False)
class _Parts:
    """A photograph as it is, with the face hidden, and with all else hidden: pictures, and their features.

    `mask` (7, 7) is how much of each part of the picture is the face.
    """

    path: str
    pictures: list[NDArray[np.uint8]]
    extracted: list[ExtractedFace]
    mask: NDArray[np.float32]


def measure_evidence(predictor: Predictor, features: Features, folder: Path) -> list[Occlusion]:
    """Look where the evidence lies in a sample of val, whose photographs are in `folder`.

    That is inside or outside of the face on the Grad-CAM map of the predicted person. Each photograph is also
    predicted with its face below a gray box, and with everything else below one (occlusion; Zeiler and Fergus, 2014),
    in the same crop. Photographs without a face are left out.

    Raises CelebflowError when the face detector is not installed, where extract did not detect faces.
    """
    sample = _choose_sample(features)
    with ThreadPoolExecutor(predictor.workers) as workers:
        progress = tqdm(sample, "hiding faces", unit="photograph", disable=None)
        looked = workers.map(lambda path: _take_apart(predictor, features, folder, path), sample)
        parts = [each for each, _ in zip(looked, progress, strict=True) if each is not None]
    if not parts:
        return []
    names = predictor.card.class_names
    predicted = predictor.classify([each.extracted for each in parts])
    labels = np.array([[face.probabilities.argmax() for face in faces] for faces in predicted])  # (photographs, 3)
    heat_maps = Explainer(predictor.classifier).explain([each.path for each in parts], labels[:, 0], features)
    person_of = {photo.path: photo.person for photo in features.photos}
    found = []
    for each, heat, row in zip(parts, heat_maps, labels, strict=True):
        total = float(heat.sum())
        outside = float((heat * (1 - each.mask)).sum()) / total if total else float(1 - each.mask.mean())
        said, without_face, face_alone = (names[label] for label in row)
        evidence = Evidence(
            each.path, person_of[each.path], said, float(each.mask.mean()), outside, without_face, face_alone
        )
        found.append(Occlusion(evidence, *each.pictures))
    return found


def _choose_sample(features: Features) -> list[str]:
    """Return the paths of photographs of val, the same for the same photographs."""
    val = [features.photos[row].path for row in features.find_rows("val")]
    drawn = np.random.default_rng(0).permutation(len(val))[:_SAMPLE_SIZE]
    return [val[position] for position in sorted(drawn.tolist())]


def _take_apart(predictor: Predictor, features: Features, folder: Path, path: str) -> _Parts | None:
    """Hide the face of a photograph, and all else; return None where there is no face."""
    transform, subject = predictor.card.transform, features.subjects.get(path)
    photograph = load_photograph(folder / path, features.find_sha256(path))
    face = subject if transform.detects_faces else next(iter(detect_faces(photograph)), None)
    if face is None:
        return None
    gray = Image.new("RGB", photograph.size, _GRAY)
    is_face = Image.new("L", photograph.size)
    is_face.paste(255, (round(face.left), round(face.top), round(face.right), round(face.bottom)))
    images = [
        photograph,
        Image.composite(gray, photograph, is_face),
        Image.composite(photograph, gray, is_face),
    ]
    return _Parts(
        path,
        [make_thumbnail(transform.shown.crop(image, subject)) for image in images],
        [predictor.extract_face(image, subject) for image in images],
        _reduce_mask(is_face, transform, subject),
    )


def _reduce_mask(is_face: Image.Image, transform: Transform, subject: Face | None) -> NDArray[np.float32]:
    """Return how much of each part of the heat map of a photograph is the face, (7, 7) from 0 to 1."""
    seen = transform.shown.only("original").make_views(is_face.convert("RGB"), subject)[-1]
    reduced = seen.convert("L").resize((HEAT_MAP_SIDE, HEAT_MAP_SIDE), Image.Resampling.BOX)
    return np.asarray(reduced, np.float32) / np.float32(255)
