"""Photographs → the people in them, with a trained classifier and the backbone that it was trained on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from celebflow import paths
from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.enrollment import EnrolledPeople, load_enrollment
from celebflow.classifier.model import Classifier, ClassifierCard, load_classifier
from celebflow.features.faces import Face
from celebflow.features.sparse import SparseBatch
from celebflow.inference.extractor import Box, ExtractedFace, Extractor, find_model_files, make_box
from celebflow.params import TaskName


@dataclass(frozen=True, eq=False)
class PredictedFace:
    """A face, None for the photograph as a whole, and its (people,) probabilities: of trained people, then enrolled.

    `known` says whether its match, as Gallery describes it, reaches the threshold. `unknown_p_value` is the fraction of
    unknown people's photographs that match at least as well. Both figures are None where nobody is unknown.
    """

    face: Face | None
    probabilities: FloatArray
    known: bool
    match: float | None
    unknown_p_value: float | None


@dataclass(frozen=True)
class Candidate:
    """A person whom a face may show, and whether that person was enrolled, rather than trained on."""

    name: str
    probability: float
    enrolled: bool = False


@dataclass(frozen=True)
class RankedFace:
    """A face's most probable people, the most probable first.

    `box` is None for the photograph as a whole; `known` and `unknown_p_value` are those of PredictedFace. The most
    probable person of a face that is not known is only the one whom it resembles most.
    """

    box: Box | None
    known: bool
    unknown_p_value: float | None
    candidates: list[Candidate]


def rank_candidates(
    predicted: PredictedFace,
    card: ClassifierCard,
    max_candidates: int | None = None,
    enrolled_names: Sequence[str] = (),
) -> RankedFace:
    """Rank the people whom a face may show."""
    names = (*card.class_names, *enrolled_names)
    ranked = np.argsort(-predicted.probabilities, kind="stable")[:max_candidates].tolist()
    trained_count = len(card.class_names)
    candidates = [
        Candidate(names[person], float(predicted.probabilities[person]), person >= trained_count) for person in ranked
    ]
    return RankedFace(make_box(predicted.face), predicted.known, predicted.unknown_p_value, candidates)


class Predictor:
    """A classifier with its backbone on the CPU, ready for photographs; its card holds all that it needs.

    It predicts the people whom the classifier was trained on, and after `with_enrolled` also those of `enrolled_file`.
    """

    task: ClassVar[TaskName] = "recognition"

    def __init__(self, classifier: Classifier, backbone_file: Path, enrolled_file: Path) -> None:
        self.card = classifier.card
        self.enrolled_file = enrolled_file
        self.enrolled: EnrolledPeople | None = None
        self._extractor = Extractor(self.card.transform, self.card.backbone, backbone_file)
        self.backbone = self._extractor.backbone
        self.classifier = classifier.eval()

    @classmethod
    def load(cls, folder: Path) -> "Predictor":
        """Load the model in a folder: `models` of a repository, or an MLflow model with its `artifacts`.

        Raises CelebflowError when the folder holds no model.
        """
        file, backbone = find_model_files(folder)
        return cls(load_classifier(file), backbone, file.with_name(paths.ENROLLED.name))

    def with_enrolled(self) -> "Predictor":
        """Return a predictor that also knows the people who were enrolled beside the classifier, if any.

        Raises CelebflowError when they cannot be read, or were enrolled beside another classifier.
        """
        gallery = self.classifier.gallery
        enrollment = load_enrollment(self.enrolled_file, gallery)
        if enrollment is None or gallery is None:
            return self
        predictor = copy(self)
        predictor.enrolled = EnrolledPeople(enrollment, gallery, self.card.calibration.false_acceptance_rate)
        return predictor

    @property
    def enrolled_names(self) -> tuple[str, ...]:
        """Return the names of the enrolled people."""
        return () if self.enrolled is None else self.enrolled.names

    def predict(self, photographs: Sequence[Image.Image]) -> FloatArray:
        """Return (N, people) probabilities for the subjects of N RGB photographs, in the order of PredictedFace.

        A photograph without a face is predicted as a whole, as evaluate does.
        """
        return np.stack([faces[0].probabilities for faces in self.predict_faces(photographs, 1, whole=True)])

    def predict_faces(
        self, photographs: Sequence[Image.Image], max_faces: int | None = None, *, whole: bool = False
    ) -> list[list[PredictedFace]]:
        """Return for each of N RGB photographs the faces that `extract` finds in it, the subject first."""
        with ThreadPoolExecutor(self.workers) as workers:
            extracted = list(workers.map(lambda each: list(self.extract(each, max_faces, whole=whole)), photographs))
        return self.classify(extracted)

    @property
    def workers(self) -> int:
        """Return from how many threads at once `extract` is fastest."""
        return self._extractor.workers

    def extract(
        self, photograph: Image.Image, max_faces: int | None = None, *, whole: bool = False
    ) -> Iterator[ExtractedFace]:
        """Compute the features of up to `max_faces` faces in an RGB photograph, as Extractor does."""
        return self._extractor.extract(photograph, max_faces, whole=whole)

    @torch.inference_mode()
    def classify(self, photographs: Sequence[Sequence[ExtractedFace]]) -> list[list[PredictedFace]]:
        """Classify the faces of several photographs in one pass of the classifier."""
        faces = [face for extracted in photographs for face in extracted]
        if not faces:
            return [[] for _ in photographs]
        views = self.stack_views(faces)
        probabilities = self.card.calibration.compute_probabilities(self.classifier.average(views).numpy())
        gallery, threshold = self.classifier.gallery, self.card.calibration.threshold
        if gallery is None or threshold is None:
            predicted = [
                PredictedFace(face.face, row, True, None, None) for face, row in zip(faces, probabilities, strict=True)
            ]
        else:
            coordinates = gallery.embed(views)
            scores = gallery.people.score(coordinates)
            matches = scores.max(axis=1)
            known, p_values = matches >= threshold, gallery.left_out.compute_p_values(matches)
            if self.enrolled is not None:
                enrolled = self.enrolled.match(coordinates, scores)
                p_values = enrolled.p_values
                probabilities, known = enrolled.join(probabilities)
            columns = known.tolist(), matches.tolist(), p_values.tolist()
            predicted = [
                PredictedFace(face.face, row, *match)
                for face, row, *match in zip(faces, probabilities, *columns, strict=True)
            ]
        remaining = iter(predicted)
        return [list(islice(remaining, len(extracted))) for extracted in photographs]

    def stack_views(self, faces: Sequence[ExtractedFace]) -> list[SparseBatch]:
        """Return the features of each view of several faces, as the classifier takes them."""
        return self._extractor.stack_views(faces)
