"""Random answers to yes-or-no questions."""

import numpy as np

from celebflow.data.attributes import BLANK, NO, YES
from celebflow.evaluation.attribute_answers import AttributeAnswers


def draw_answers(
    seed: int, count: int, *, blanks: float = 0.2, group_count: int = 8, decimals: int = 1
) -> AttributeAnswers:
    """Draw answers to five questions, of which the fourth is never and the fifth always yes, with equal probabilities.

    Every group has a photograph where there are enough.
    """
    random = np.random.default_rng(seed)
    labels = np.where(random.random((count, 5)) < [0.5, 0.3, 0.1, 0, 1], YES, NO).astype(np.int8)
    scores = random.normal(size=labels.shape) + np.where(labels == YES, 1, -1)
    labels[random.random(labels.shape) < blanks] = BLANK
    probabilities = (1 / (1 + np.exp(-scores))).round(decimals).clip(0.01, 0.99)
    groups = random.permutation(np.arange(count) % min(count, group_count))
    return AttributeAnswers(tuple("abcde"), probabilities, labels, np.array([0.5, 0.4, 0.3, 0.6, 0.5]), groups)
