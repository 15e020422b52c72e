"""Photographs of people whom the classifier does not know: how many it takes for somebody it does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from celebflow.data.files import find_files
from celebflow.errors import CelebflowError
from celebflow.evaluation.results import Prediction
from celebflow.inference.files import decode_in_batches
from celebflow.inference.predictor import Predictor


@dataclass(frozen=True)
class OpenSetReport:
    """What the classifier makes of photographs of unknown people at its threshold.

    Of `count`, `accepted` reach it, as does the fraction `known_coverage` of known people's. `auc` tells how well the
    confidence separates known from unknown people. `predicted` are the names that unknown people get most often, and
    how often. `unreadable` are files that were left out, each with the reason.
    """

    count: int
    accepted: int
    known_coverage: float
    auc: float
    predicted: list[tuple[str, int]]
    unreadable: list[str]


def measure_open_set(folder: Path, predictor: Predictor, known: Sequence[Prediction]) -> OpenSetReport:
    """Predict every photograph in `folder`, at any depth, and compare with the predictions of known people.

    Raises CelebflowError when there is no photograph.
    """
    from sklearn.metrics import roc_auc_score

    files, _ = find_files(folder)
    scores: list[float] = []
    names: list[str] = []
    unreadable: list[str] = []

    def refuse(file: str, reason: str) -> None:
        unreadable.append(f"{folder / file}: {reason}")

    progress = tqdm(files, "predicting", unit="photograph", disable=None)
    for batch in decode_in_batches(progress, lambda file: (folder / file).read_bytes(), refuse):
        probabilities = predictor.predict([photograph for _, photograph in batch])
        scores += probabilities.max(axis=1).tolist()
        names += [predictor.card.class_names[person] for person in probabilities.argmax(axis=1)]
    if not scores:
        raise CelebflowError(
            f"{folder} holds no photograph. Put photographs of people there whom the classifier was not trained on."
        )
    threshold = predictor.card.calibration.threshold
    known_scores = np.array([prediction.confidence for prediction in known])
    is_known = [1] * len(known_scores) + [0] * len(scores)
    accepted = [name for name, score in zip(names, scores, strict=True) if score >= threshold]
    return OpenSetReport(
        count=len(scores),
        accepted=len(accepted),
        known_coverage=float((known_scores >= threshold).mean()),
        auc=float(roc_auc_score(is_known, np.concatenate([known_scores, scores]))),
        predicted=Counter(accepted).most_common(5),
        unreadable=unreadable,
    )
