"""Train on parts of the photographs, one after the other or on the nodes of a cluster, and keep what is predicted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits
from tqdm import tqdm

from celebflow import cluster
from celebflow.backbone.devices import select_device
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


class PartWorker:
    """What trains on a node, with so many threads of torch and of BLAS as this machine: their number changes bits."""

    threads = 1

    def __init__(self, predict: Predict, device: str, thread_counts: tuple[int, int]) -> None:
        select_device(device)  # a node without it is refused
        torch.set_num_threads(thread_counts[0])
        threadpool_limits(thread_counts[1], "blas")
        self._predict = predict

    def __call__(self, item: Part) -> NDArray[np.float32]:
        """Train on a part, and return the logits of what it predicts."""
        return self._predict(item)

    def probe(self) -> bytes:
        """Return what shows how this node rounds."""
        return _multiply_noise()


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
        run = _predict_here if compute.cluster is None else _predict_on_cluster
        for number, logits in run(predict, [parts[place] for place in missing], compute, prints_epochs):
            fits.keep(_WHAT, keys[missing[number]], {"logits": torch.tensor(logits)})
            found[missing[number]] = logits
    return [found[place] for place in range(len(parts))]


def send_features(everything: LabeledFeatures, compute: ComputeParams) -> LabeledFeatures:
    """Return the same photographs as what predicts takes them along to the nodes of a cluster, if there is one."""
    if compute.cluster is None:
        return everything
    return replace(everything, features=share_features(everything.features, shared_disk=compute.shared_disk))


def _predict_here(
    predict: Predict, parts: Sequence[Part], compute: ComputeParams, prints_epochs: bool
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    bar = tqdm(parts, "training on parts", unit="part", disable=prints_epochs or None)
    for number, part in enumerate(bar):
        if prints_epochs:
            print(f"Part {number + 1} of {len(parts)}, {part.taken.sum()} photographs:")
        yield number, predict(part)


def _predict_on_cluster(
    predict: Predict, parts: Sequence[Part], compute: ComputeParams, prints_epochs: bool
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    expected, rounding_otherwise = _multiply_noise(), set()

    def look(node: str, found: bytes) -> str:
        if found != expected:
            rounding_otherwise.add(node)
        return ""

    def note(node: str) -> str:
        return "; it rounds otherwise than this machine, as another kind of processor" * (node in rounding_otherwise)

    arguments = predict, compute.device, _count_threads()
    task = cluster.Task(PartWorker, arguments, look, one_by_one=True)
    with cluster.connect(compute.cluster or cluster.LOCAL, task) as nodes:
        yield from tqdm(nodes.map(parts), "training on parts", len(parts), unit="part", disable=None)
        for line in nodes.describe("parts", note):
            print(line)


def _count_threads() -> tuple[int, int]:
    """Return the number of threads of torch, and of the BLAS that NumPy and SciPy use."""
    of_torch = torch.get_num_threads()
    of_blas = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    return of_torch, max(of_blas, default=of_torch)


def _multiply_noise() -> bytes:
    noise = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    tensor = torch.from_numpy(noise)
    return (noise @ noise.T).tobytes() + (tensor @ tensor.T).numpy().tobytes()
