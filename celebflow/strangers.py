"""Photographs of people whom the classifier does not know: how many it takes for somebody it does."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from celebflow.data import find_files
from celebflow.errors import CelebflowError
from celebflow.images import PhotographError, decode_photograph
from celebflow.prediction import Predictor
from celebflow.reports import Prediction

_BATCH_SIZE = 16
_BATCH_PIXELS = 50_000_000  # 150 MB; when so many are decoded, the batch is full, too


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
    asked = tqdm([folder / file for file in files], "asking", unit="photograph", disable=None)
    for photographs in _decode_in_batches(asked, unreadable):
        probabilities = predictor.predict(photographs)
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


def _decode_in_batches(files: Iterable[Path], unreadable: list[str]) -> Iterator[list[Image.Image]]:
    """Yield photographs, so few at once that their memory is bounded; add what is none to `unreadable`."""
    batch: list[Image.Image] = []
    for file in files:
        try:
            batch.append(decode_photograph(file.read_bytes()))
        except (PhotographError, OSError) as error:
            unreadable.append(f"{file}: {error}")
            continue
        if len(batch) == _BATCH_SIZE or sum(image.width * image.height for image in batch) >= _BATCH_PIXELS:
            yield batch
            batch.clear()  # and not a new list: whoever asks still holds this one while the next is filled
    if batch:
        yield batch
