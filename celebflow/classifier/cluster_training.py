"""Train on the nodes of a Ray cluster, with the bits of this machine."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from tqdm import tqdm

from celebflow import cluster
from celebflow.backbone.devices import select_device
from celebflow.params import ComputeParams

Item = TypeVar("Item")
Result = TypeVar("Result")


class TrainingWorker(Generic[Item, Result]):
    """What trains on a node, with so many threads of torch and of BLAS as the driver: their number changes bits."""

    threads = 1

    def __init__(self, train: Callable[[Item], Result], device: str, thread_counts: tuple[int, int]) -> None:
        select_device(device)  # a node without it is refused
        torch.set_num_threads(thread_counts[0])
        threadpool_limits(thread_counts[1], "blas")
        self._train = train

    def __call__(self, item: Item) -> Result:
        """Train."""
        return self._train(item)

    def probe(self) -> bytes:
        """Return what shows how this node rounds."""
        return multiply_noise()


def train_on_cluster(
    train: Callable[[Item], Result], items: Sequence[Item], compute: ComputeParams, unit: str
) -> Iterator[tuple[int, Result]]:
    """Yield the place of each item with what `train` returns for it, in the order in which the nodes are done.

    Each node trains on one item at a time. Shows progress, and prints how many of `unit` each node did, and whether it
    rounds otherwise than this machine.

    Raises CelebflowError when there is no cluster or no node that can be used.
    """
    expected, rounding_otherwise = multiply_noise(), set()

    def look(node: str, found: bytes) -> str:
        if found != expected:
            rounding_otherwise.add(node)
        return ""

    def note(node: str) -> str:
        return "; it rounds otherwise than this machine, as another kind of processor" * (node in rounding_otherwise)

    arguments = train, compute.device, _count_threads()
    task = cluster.Task(TrainingWorker, arguments, look, one_by_one=True)
    with cluster.connect(compute.cluster or cluster.LOCAL, task) as nodes:
        yield from tqdm(nodes.map(items), "training on the cluster", len(items), unit=unit, disable=None)
        for line in nodes.describe(f"{unit}s", note):
            print(line)


def _count_threads() -> tuple[int, int]:
    """Return the number of threads of torch, and of the BLAS that NumPy and SciPy use."""
    of_torch = torch.get_num_threads()
    of_blas = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    return of_torch, max(of_blas, default=of_torch)


def multiply_noise() -> bytes:
    """Return products of matrices by NumPy and by torch, which processors of different kinds round differently."""
    noise = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    tensor = torch.from_numpy(noise)
    return (noise @ noise.T).tobytes() + (tensor @ tensor.T).numpy().tobytes()
