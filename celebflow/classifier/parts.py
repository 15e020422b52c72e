"""Train on parts of the photographs, one after the other or on the nodes of a cluster, and keep what is predicted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from celebflow.classifier.cluster_training import train_on_cluster
from celebflow.classifier.fits import Fits
from celebflow.features.store import LabeledFeatures, share_features
from celebflow.params import ComputeParams

_WHAT = "The predictions of a part"


@dataclass(frozen=True, eq=False)
class Part:
    """Which of N photographs a model is trained on, (N,), which it predicts, (N,), and the training's seed."""

    taken: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    seed: int

    def __str__(self) -> str:
        return f"A training on {self.taken.sum()} photographs"

    def select_views(self, view_count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return both for the (N · V) views of all photographs, one view after the other."""
        return np.tile(self.taken, view_count), np.tile(self.asked, view_count)

    @property
    def determinants(self) -> tuple[object, ...]:
        """Return what tells this part from others."""
        return self.taken.tobytes(), self.asked.tobytes(), self.seed


Predict = Callable[[Part], NDArray[np.float32]]


def predict_each(
    predict: Predict,
    parts: Sequence[Part],
    compute: ComputeParams,
    fits: Fits,
    determinants: object,
    *,
    prints_epochs: bool = False,
) -> list[NDArray[np.float32]]:
    """Return what `predict` does for each part, from `fits` where it is kept there, otherwise here or on a cluster.

    `determinants` are what determines it beside the part, as for Fits.recall. What is predicted is kept at once, so
    that what was interrupted goes on.

    Raises CelebflowError when there is no cluster or no node that can be used.
    """
    keys = [(determinants, compute.device, part.determinants) for part in parts]
    kept = [fits.find(_WHAT, key) for key in keys]
    found = {place: tensors["logits"].numpy() for place, tensors in enumerate(kept) if tensors is not None}
    missing = [place for place in range(len(parts)) if place not in found]
    if missing:
        still = [parts[place] for place in missing]
        if compute.cluster is None:
            predicted = _predict_here(predict, still, prints_epochs)
        else:
            predicted = train_on_cluster(predict, still, compute, "part")
        for number, logits in predicted:
            fits.keep(_WHAT, keys[missing[number]], {"logits": torch.tensor(logits)})
            found[missing[number]] = logits
    return [found[place] for place in range(len(parts))]


def send_features(everything: LabeledFeatures, compute: ComputeParams) -> LabeledFeatures:
    """Return the same photographs as what predicts takes them along to the nodes of a cluster, if there is one."""
    if compute.cluster is None:
        return everything
    return replace(everything, features=share_features(everything.features, shared_disk=compute.shared_disk))


def _predict_here(
    predict: Predict, parts: Sequence[Part], prints_epochs: bool
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    bar = tqdm(parts, "training on parts", unit="part", disable=prints_epochs or None)
    for number, part in enumerate(bar):
        if prints_epochs:
            print(f"Part {number + 1} of {len(parts)}, {part.taken.sum()} photographs:")
        yield number, predict(part)
