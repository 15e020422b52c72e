"""Photographs of people whom the classifier does not know: how many it takes for somebody it does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from celebflow.data import find_files
from celebflow.errors import CelebflowError
from celebflow.naming import decode_in_batches
from celebflow.prediction import Predictor
from celebflow.reports import Prediction


@dataclass(frozen=True)
class StrangerReport:
    """What the classifier makes of strangers at its threshold.

    `area` is that under the ROC curve of known people's photographs against strangers', by their greatest
    probability. `unreadable` are files that were left out, each with the reason.
    """

    count: int
    accepted: int
    known_accepted: float
    area: float
    mistaken_for: list[tuple[str, int]]
    unreadable: list[str]


def measure_strangers(folder: Path, predictor: Predictor, known: Sequence[Prediction]) -> StrangerReport:
    """Ask about every photograph in `folder`, at any depth, and compare with what was said of known people.

    Raises CelebflowError when there is no photograph.
    """
    from sklearn.metrics import roc_auc_score

    files, _ = find_files(folder)
    scores: list[float] = []
    names: list[str] = []
    unreadable: list[str] = []

    def refuse(file: str, reason: str) -> None:
        unreadable.append(f"{folder / file}: {reason}")

    asked = tqdm(files, "asking", unit="photograph", disable=None)
    for batch in decode_in_batches(asked, lambda file: (folder / file).read_bytes(), refuse):
        probabilities = predictor.predict([photograph for _, photograph in batch])
        scores += probabilities.max(axis=1).tolist()
        names += [predictor.card.class_names[named] for named in probabilities.argmax(axis=1)]
    if not scores:
        raise CelebflowError(
            f"{folder} holds no photograph. Put photographs of people there whom the classifier was not taught."
        )
    threshold = predictor.card.calibration.threshold
    known_scores = np.array([prediction.probability for prediction in known])
    accepted = [name for name, score in zip(names, scores, strict=True) if score >= threshold]
    return StrangerReport(
        count=len(scores),
        accepted=len(accepted),
        known_accepted=float((known_scores >= threshold).mean()),
        area=float(roc_auc_score([1] * len(known_scores) + [0] * len(scores), np.concatenate([known_scores, scores]))),
        mistaken_for=Counter(accepted).most_common(5),
        unreadable=unreadable,
    )
