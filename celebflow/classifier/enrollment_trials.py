"""How well people match who are enrolled from few photographs, tried on people who were left out of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebflow.classifier.calibration import Calibration, FloatArray, fit_probabilities
from celebflow.classifier.plda import TwoCovariances

_PHOTOGRAPH_COUNTS = (1, 2, 3, 5, 10)  # from so many photographs, people of train are enrolled on trial
_DRAWS = 3  # of these photographs
_OTHERS = 5  # whom a photograph is compared with in each draw


@dataclass(frozen=True)
class LeftOutFold:
    """A model that was fitted without some people, and M photographs of them.

    `coordinates` (M, D) are theirs, `people` (M,) number who is in them, and `of_known` (M, people) are their scores
    with the people whom the model was fitted to.
    """

    model: TwoCovariances
    coordinates: FloatArray
    people: NDArray[np.int64]
    of_known: FloatArray


@dataclass(frozen=True, eq=False)
class EnrollmentTrial:
    """What people who were left out of the model showed once they were enrolled from `photograph_count` photographs.

    `calibration` turns the scores of a photograph with all people into probabilities. `others` (N,) are the scores of
    photographs with enrolled people who are not in them, ascending.
    """

    photograph_count: int
    calibration: Calibration
    others: FloatArray

    def state(self) -> dict[str, Tensor]:
        """Return all tensors, by name."""
        calibration = [self.calibration.temperature, self.calibration.max_confidence]
        return {
            f"{self.photograph_count}.others": torch.from_numpy(self.others),
            f"{self.photograph_count}.calibration": torch.tensor(calibration, dtype=torch.float64),
        }


def load_trials(state: Mapping[str, Tensor]) -> tuple[EnrollmentTrial, ...]:
    """Make the trials of what their `state` returned; raise KeyError or ValueError when tensors do not fit."""
    trials = []
    for count in sorted({int(name.split(".")[0]) for name in state}):
        temperature, max_confidence = state[f"{count}.calibration"].tolist()
        calibration = Calibration(temperature, max_confidence, None, 1.0)
        trials.append(EnrollmentTrial(count, calibration, state[f"{count}.others"].numpy()))
    return tuple(trials)


def try_enrollment(folds: Sequence[LeftOutFold], seed: int) -> tuple[EnrollmentTrial, ...]:
    """Enroll the people of each fold from one photograph each, and from more as far as they have them.

    There are no trials where hardly anybody has two photographs.
    """
    random = np.random.default_rng(seed)
    trials = []
    for count in _PHOTOGRAPH_COUNTS:
        drawn = [_draw_trial(fold, count, random) for fold in folds for _ in range(_DRAWS)]
        others = np.concatenate([each.others for each in drawn])
        own = [each for each in drawn if len(each.labels)]
        if not (own and len(others)):
            break
        labels = np.concatenate([each.labels for each in own])
        trials.append(
            EnrollmentTrial(count, fit_probabilities(_stack([e.scores for e in own]), labels), np.sort(others))
        )
    return tuple(trials)


@dataclass(frozen=True)
class _Draw:
    """The scores (N, people) of photographs with known and enrolled people, and who is in them, by column (N,).

    `others` (M,) are scores with enrolled people who are not in the photograph.
    """

    scores: FloatArray
    labels: NDArray[np.int64]
    others: FloatArray


def _draw_trial(fold: LeftOutFold, count: int, random: np.random.Generator) -> _Draw:
    """Enroll everybody in a fold who has more than `count` photographs, and score the photographs that are left."""
    means: list[FloatArray] = []
    enrolled = np.zeros(len(fold.people), bool)
    column_of = np.full(fold.people.max() + 1, -1)
    for person in np.unique(fold.people):
        own = np.flatnonzero(fold.people == person)
        if len(own) <= count:
            continue
        chosen = random.permutation(own)[:count]
        column_of[person] = len(means)
        means.append(fold.coordinates[chosen].mean(axis=0))
        enrolled[chosen] = True
    if not means:
        return _Draw(np.empty((0, 0)), np.empty(0, np.int64), np.empty(0))
    described = fold.model.describe_people(np.array(means), np.full(len(means), count))
    scores = described.score(fold.coordinates[~enrolled])
    columns = column_of[fold.people[~enrolled]]
    shifts = 1 + random.permutation(len(means) - 1)[:_OTHERS]  # never 0, which would be the person's own column
    others = np.take_along_axis(scores, (columns[:, None] + shifts) % len(means), axis=1)
    shown = columns >= 0  # the photographs of those who were enrolled
    of_known = fold.of_known[~enrolled][shown]
    return _Draw(np.hstack([scores[shown], of_known]), columns[shown], others.ravel())


def _stack(blocks: Sequence[FloatArray]) -> FloatArray:
    """Stack scores with different numbers of people; those whom a block lacks get a score that nobody has."""
    width = max(block.shape[1] for block in blocks)
    return np.vstack([np.pad(block, ((0, 0), (0, width - block.shape[1])), constant_values=-1e12) for block in blocks])
