"""Photographs → the attributes of the faces in them, with a trained model and the backbone that it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.attribute_model import AttributeModel, load_attribute_model
from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.cards import AttributeCard
from celebflow.inference.extractor import ExtractedFace, find_model_files, make_box
from celebflow.inference.face_predictor import DescribedFace, FacePredictor, PredictedFace
from celebflow.params import TaskName


@dataclass(frozen=True, eq=False)
class PredictedAttributes(PredictedFace):
    """A face, and for each of A attributes the probability of yes, the answer, and whether that is uncertain."""

    probabilities: FloatArray
    answers: NDArray[np.bool_]
    uncertain: NDArray[np.bool_]


@dataclass(frozen=True)
class AttributeAnswer:
    """The answer for an attribute: yes from a `threshold` of the `probability` of yes on, and uncertain near it."""

    name: str
    probability: float
    threshold: float
    answer: Literal["yes", "no"]
    uncertain: bool


@dataclass(frozen=True)
class AnsweredFace(DescribedFace):
    """A face's attributes, the most probable first."""

    attributes: list[AttributeAnswer]


class AttributePredictor(FacePredictor[PredictedAttributes, AnsweredFace]):
    """A model of attributes with its backbone on the CPU, ready for photographs; its card holds all that it needs."""

    task: ClassVar[TaskName] = "attributes"

    def __init__(self, model: AttributeModel, backbone_file: Path) -> None:
        self.card: AttributeCard = model.card
        super().__init__(self.card, backbone_file)
        self.model = model.eval()

    @classmethod
    def load(cls, folder: Path) -> "AttributePredictor":
        """Load the model in a folder, as find_model_files finds it.

        Raises CelebflowError when the folder holds no model of attributes.
        """
        file, backbone = find_model_files(folder)
        return cls(load_attribute_model(file), backbone)

    def describe(self, predicted: PredictedAttributes, max_answers: int | None = None) -> AnsweredFace:
        """Write down the attributes of a face."""
        thresholds = self.card.calibration.thresholds
        answers = []
        for column in np.argsort(-predicted.probabilities, kind="stable")[:max_answers]:
            answers.append(
                AttributeAnswer(
                    name=self.card.class_names[column],
                    probability=float(predicted.probabilities[column]),
                    threshold=float(thresholds[column]),
                    answer="yes" if predicted.answers[column] else "no",
                    uncertain=bool(predicted.uncertain[column]),
                )
            )
        return AnsweredFace(make_box(predicted.face), answers)

    def _predict(self, faces: Sequence[ExtractedFace]) -> list[PredictedAttributes]:
        calibration = self.card.calibration
        probabilities = calibration.compute_probabilities(self.model.average(self.stack_views(faces)).numpy())
        rows = probabilities, probabilities >= calibration.thresholds, calibration.find_uncertain(probabilities)
        return [PredictedAttributes(face.face, *columns) for face, *columns in zip(faces, *rows, strict=True)]
