"""Two results, photograph by photograph: whether one is better, and for which people; pure functions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from celebflow.errors import CelebflowError
from celebflow.evaluation.cross_validation import FoldComparison
from celebflow.evaluation.results import Prediction
from celebflow.evaluation.significance import BOOTSTRAP_SEED, PairedTest, compare_hits
from celebflow.params import TaskName
from celebflow.tasks import TASKS

_SHA256 = re.compile("[0-9a-f]{64}")
_VERDICTS = {
    "better": "B is better than A.",
    "worse": "B is worse than A.",
    "chance": "The difference may be chance.",
}


@dataclass(frozen=True)
class Change:
    """The predictions of A and B for a photograph that only one of them predicts correctly."""

    a: Prediction
    b: Prediction


@dataclass(frozen=True)
class PersonHits:
    """How many of a person's photographs, or of an attribute's answers, A and B predict correctly."""

    person: str
    support: int
    hits_a: int
    hits_b: int


@dataclass(frozen=True)
class ResultComparison:
    """The predictions of A and B for the photographs of a split that both results have.

    `fixed` are the photographs that only B predicts correctly, `broken` those that only A does. For the task
    verification, all of these are pairs of photographs, for attributes they are answers about one attribute each.
    `changed_count` is the number of those that both have by their paths, and that are not the same: they are left out.
    """

    task: TaskName
    count: int
    missing_from_a: int
    missing_from_b: int
    accuracy_a: float
    accuracy_b: float
    overall: PairedTest
    people: list[PersonHits]
    fixed: list[Change]
    broken: list[Change]
    changed_count: int = 0

    @property
    def unit(self) -> str:
        """Return what is counted: photographs or pairs."""
        return TASKS[self.task].unit

    def verdict(self, of_folds: FoldComparison | None = None) -> str:
        """Say in words whether B is better, by McNemar's test, the paired interval, and the folds where there are some.

        All must agree.
        """
        verdicts = {self.overall.verdict, *([] if of_folds is None else [of_folds.verdict])}
        return _VERDICTS[verdicts.pop() if len(verdicts) == 1 else "chance"]


def compare_predictions(a: Sequence[Prediction], b: Sequence[Prediction]) -> ResultComparison:
    """Compare the predictions for the photographs that both A and B have, matched by path; groups are those of B.

    Where the label, the photograph or its group of near-duplicates has changed, predictions are not compared.

    Raises CelebflowError when they are of different tasks, or have no photograph in common.
    """
    tasks = [predictions[0].task for predictions in (a, b)]
    if tasks[0] != tasks[1]:
        raise CelebflowError(
            f"The first result is of the task {tasks[0]}, the second of the task {tasks[1]}. Only results of one task "
            "can be compared: `celebflow runs` lists them, and the params that differ."
        )
    a_by_path = {prediction.path: prediction for prediction in a}
    shared = [prediction for prediction in b if prediction.path in a_by_path]
    common_b = [prediction for prediction in shared if _is_of_the_same(prediction, a_by_path[prediction.path])]
    common_a = [a_by_path[prediction.path] for prediction in common_b]
    if not common_b:
        raise CelebflowError(
            "The two results have no photograph of this split in common. Compare results of the same photographs and "
            "the same params.prepare."
            + (f" {len(shared)} have the same paths, but their labels or photographs changed." if shared else "")
        )
    hits_a = np.array([prediction.is_hit for prediction in common_a])
    hits_b = np.array([prediction.is_hit for prediction in common_b])
    actual = np.array([prediction.attribute or prediction.actual for prediction in common_b])
    listed = np.array([prediction.groups for prediction in common_b])
    numbered = np.unique(listed, return_inverse=True)[1].reshape(listed.shape)
    groups = numbered if listed.shape[1] > 1 else numbered[:, 0]
    people = []
    for person in np.unique(actual).tolist():
        own = actual == person
        people.append(PersonHits(person, int(own.sum()), int(hits_a[own].sum()), int(hits_b[own].sum())))
    changes = [Change(one, other) for one, other in zip(common_a, common_b, strict=True) if one.is_hit != other.is_hit]
    return ResultComparison(
        task=tasks[0],
        count=len(common_b),
        missing_from_a=len(b) - len(shared),
        missing_from_b=len(a) - len(shared),
        accuracy_a=float(hits_a.mean()),
        accuracy_b=float(hits_b.mean()),
        overall=compare_hits(hits_a, hits_b, groups, BOOTSTRAP_SEED),
        people=people,
        fixed=[change for change in changes if change.b.is_hit],
        broken=[change for change in changes if change.a.is_hit],
        changed_count=len(shared) - len(common_b),
    )


def _is_of_the_same(one: Prediction, other: Prediction) -> bool:
    """Tell whether two predictions at one path have one label, and are of one photograph as far as groups show it.

    A group of near-duplicates is named by the SHA-256 of a photograph in it, mostly of the only one.
    """
    are_photographs = _SHA256.fullmatch(one.group) and _SHA256.fullmatch(other.group)
    return one.actual == other.actual and (one.group == other.group or not are_photographs)
