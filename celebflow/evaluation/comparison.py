"""Two results, photograph by photograph: whether one is better than the other, for whom, and where; pure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from celebflow.errors import CelebflowError
from celebflow.evaluation.results import Prediction
from celebflow.evaluation.significance import BOOTSTRAP_SEED, PairedTest, compare_hits

_VERDICTS = {
    "better": "B is better than A.",
    "worse": "B is worse than A.",
    "chance": "The difference may be chance.",
}


@dataclass(frozen=True)
class Change:
    """What A and B say of a photograph that only one of them names rightly."""

    a: Prediction
    b: Prediction


@dataclass(frozen=True)
class PersonHits:
    """How many of a person's photographs A and B name rightly."""

    person: str
    support: int
    hits_a: int
    hits_b: int


@dataclass(frozen=True)
class ResultComparison:
    """What the predictions of A and B on the photographs that both have in a split say.

    `fixed` are those that B alone names rightly, `broken` those that A alone does, by their paths.
    """

    count: int
    missing_from_a: int
    missing_from_b: int
    accuracy_a: float
    accuracy_b: float
    overall: PairedTest
    people: list[PersonHits]
    fixed: list[Change]
    broken: list[Change]

    def verdict(self) -> str:
        """Say in words whether B is better, by McNemar's test and the paired interval together."""
        return _VERDICTS[self.overall.verdict]


def compare_predictions(a: Sequence[Prediction], b: Sequence[Prediction]) -> ResultComparison:
    """Compare what A and B say of the photographs that both have, matched by their paths; groups are those of B.

    Raises CelebflowError when they have none in common.
    """
    of_a = {prediction.path: prediction for prediction in a}
    pairs = [(of_a[prediction.path], prediction) for prediction in b if prediction.path in of_a]
    if not pairs:
        raise CelebflowError("The two results have no photograph of this split in common.")
    hits_a, hits_b = (np.array([pair[side].is_hit for pair in pairs]) for side in (0, 1))
    _, groups = np.unique([pair[1].group for pair in pairs], return_inverse=True)
    hits_of: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for one, other in pairs:
        hits_of[other.actual].append((one.is_hit, other.is_hit))
    changes = [Change(one, other) for one, other in pairs if one.is_hit != other.is_hit]
    return ResultComparison(
        count=len(pairs),
        missing_from_a=len(b) - len(pairs),
        missing_from_b=len(a) - len(pairs),
        accuracy_a=float(hits_a.mean()),
        accuracy_b=float(hits_b.mean()),
        overall=compare_hits(hits_a, hits_b, groups, BOOTSTRAP_SEED),
        people=[
            PersonHits(person, len(hits), sum(hit for hit, _ in hits), sum(hit for _, hit in hits))
            for person, hits in sorted(hits_of.items())
        ],
        fixed=[change for change in changes if change.b.is_hit],
        broken=[change for change in changes if change.a.is_hit],
    )
