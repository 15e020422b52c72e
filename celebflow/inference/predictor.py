"""Photographs → the people in them, with a trained classifier and the backbone that it was trained on."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from celebflow import paths
from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.cards import ClassifierCard
from celebflow.classifier.enrollment import EnrolledPeople, load_enrollment
from celebflow.classifier.model import Classifier, load_classifier
from celebflow.inference.extractor import ExtractedFace, find_model_files, make_box
from celebflow.inference.face_predictor import DescribedFace, FacePredictor, PredictedFace
from celebflow.params import TaskName


@dataclass(frozen=True, eq=False)
class PredictedPerson(PredictedFace):
    """A face and its (people,) probabilities: of trained people, then enrolled.

    `known` says whether its match, as Gallery describes it, reaches the threshold. `unknown_p_value` is the fraction of
    unknown people's photographs that match at least as well. Both figures are None where nobody is unknown.
    """

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
class RankedFace(DescribedFace):
    """A face's most probable people, the most probable first.

    `known` and `unknown_p_value` are those of PredictedPerson. The most probable person of a face that is not known is
    only the one whom it resembles most.
    """

    known: bool
    unknown_p_value: float | None
    candidates: list[Candidate]


class Predictor(FacePredictor[PredictedPerson, RankedFace]):
    """A classifier with its backbone on the CPU, ready for photographs; its card holds all that it needs.

    It predicts the people whom the classifier was trained on, and after `with_enrolled` also those of `enrolled_file`.
    """

    task: ClassVar[TaskName] = "recognition"

    def __init__(self, classifier: Classifier, backbone_file: Path, enrolled_file: Path) -> None:
        self.card: ClassifierCard = classifier.card
        super().__init__(self.card, backbone_file)
        self.enrolled_file = enrolled_file
        self.enrolled: EnrolledPeople | None = None
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
        """Return (N, people) probabilities for the subjects of N RGB photographs, in the order of PredictedPerson.

        A photograph without a face is predicted as a whole, as evaluate does.
        """
        return np.stack([faces[0].probabilities for faces in self.predict_faces(photographs, 1, whole=True)])

    def describe(self, predicted: PredictedPerson, max_answers: int | None = None) -> RankedFace:
        """Rank the people whom a face may show."""
        names = (*self.card.class_names, *self.enrolled_names)
        ranked = np.argsort(-predicted.probabilities, kind="stable")[:max_answers].tolist()
        trained_count = len(self.card.class_names)
        candidates = [
            Candidate(names[person], float(predicted.probabilities[person]), person >= trained_count)
            for person in ranked
        ]
        return RankedFace(make_box(predicted.face), predicted.known, predicted.unknown_p_value, candidates)

    def _predict(self, faces: Sequence[ExtractedFace]) -> list[PredictedPerson]:
        views = self.stack_views(faces)
        probabilities = self.card.calibration.compute_probabilities(self.classifier.average(views).numpy())
        gallery, threshold = self.classifier.gallery, self.card.calibration.threshold
        if gallery is None or threshold is None:
            return [
                PredictedPerson(face.face, row, True, None, None)
                for face, row in zip(faces, probabilities, strict=True)
            ]
        coordinates = gallery.embed(views)
        scores = gallery.people.score(coordinates)
        matches = scores.max(axis=1)
        known, p_values = matches >= threshold, gallery.left_out.compute_p_values(matches)
        if self.enrolled is not None:
            enrolled = self.enrolled.match(coordinates, scores)
            p_values = enrolled.p_values
            probabilities, known = enrolled.join(probabilities)
        columns = known.tolist(), matches.tolist(), p_values.tolist()
        return [
            PredictedPerson(face.face, row, *match)
            for face, row, *match in zip(faces, probabilities, *columns, strict=True)
        ]
