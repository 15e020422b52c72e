"""Predict photographs of unknown people, and measure how well the threshold separates them from known people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from celebflow.data.files import find_files, read_file
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import Prediction
from celebflow.inference.files import decode_in_batches
from celebflow.inference.predictor import Predictor


@dataclass(frozen=True)
class OpenSetReport:
    """The predictions for `count` photographs of unknown people at the classifier's threshold.

    `accepted` of them reach it, and the fraction `known_coverage` of known people's photographs does. `auc` is the
    area under the ROC curve of confidence as a score for known against unknown people. `predicted` lists the names
    most often predicted for unknown people, with counts. `unreadable` lists the files left out, with reasons.
    """

    count: int
    accepted: int
    known_coverage: float
    auc: float
    predicted: list[tuple[str, int]]
    unreadable: list[str]


def measure_open_set(folder: Path, predictor: Predictor, known: Sequence[Prediction]) -> OpenSetReport:
    """Predict every photograph in `folder`, at any depth, and compare with the predictions for known people.

    Raises CelebflowError when there is no photograph.
    """
    from sklearn.metrics import roc_auc_score

    files, _ = find_files(folder)
    confidences: list[float] = []
    names: list[str] = []
    unreadable: list[str] = []

    def refuse(file: str, reason: str) -> None:
        unreadable.append(f"{folder / file}: {reason}")

    progress = tqdm(files, "predicting", unit="photograph", disable=None)
    for batch in decode_in_batches(progress, lambda file: read_file(folder / file), refuse):
        probabilities = predictor.predict([photograph for _, photograph in batch])
        confidences += probabilities.max(axis=1).tolist()
        names += [predictor.card.class_names[person] for person in probabilities.argmax(axis=1)]
    if not confidences:
        raise CelebflowError(
            f"{folder} holds no photograph. Put photographs of people there whom the classifier was not trained on."
        )
    threshold = predictor.card.calibration.threshold
    known_confidences = np.array([prediction.confidence for prediction in known])
    is_known = [1] * len(known_confidences) + [0] * len(confidences)
    accepted = [name for name, confidence in zip(names, confidences, strict=True) if confidence >= threshold]
    return OpenSetReport(
        count=len(confidences),
        accepted=len(accepted),
        known_coverage=float((known_confidences >= threshold).mean()),
        auc=float(roc_auc_score(is_known, np.concatenate([known_confidences, confidences]))),
        predicted=Counter(accepted).most_common(5),
        unreadable=unreadable,
    )
