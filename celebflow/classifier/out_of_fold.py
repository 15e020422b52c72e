"""The predictions of photographs by classifiers that were trained without them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from celebflow.classifier.calibration import FloatArray, fit_probabilities
from celebflow.data.photos import Photo


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The logits (N, people) of N photographs, each by a classifier that was trained on the other folds.

    `labels` (N,) are indices of `class_names`, and `folds` (N,) count from 0. `judged` (N,) tells whether the
    photograph's classifier had seen its person, and somebody else.
    """

    class_names: tuple[str, ...]
    photos: list[Photo]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    logits: NDArray[np.float32]
    judged: NDArray[np.bool_]

    @cached_property
    def probabilities(self) -> FloatArray:
        """Return the (N, people) probabilities, calibrated on all photographs that are judged."""
        calibration = fit_probabilities(self.logits[self.judged], self.labels[self.judged])
        return calibration.compute_probabilities(self.logits)

    @property
    def accuracy(self) -> float:
        """Return the fraction of judged photographs whose label is the most probable person."""
        return float((self.logits.argmax(axis=1) == self.labels)[self.judged].mean())
