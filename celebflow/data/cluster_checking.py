"""Decode and hash photographs on the nodes of a Ray cluster."""

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from celebflow import cluster
from celebflow.data.cluster_files import FileItem, FileItems
from celebflow.data.decoding import decode_photograph
from celebflow.data.duplicates import HashArray, hash_photograph
from celebflow.data.formats import PhotographError


class HashingWorker:
    """What decodes and hashes photographs on a node; its probe are the hashes of an example."""

    def __init__(self, example: bytes) -> None:
        self._example = example
        self.threads = os.cpu_count() or 1

    def __call__(self, item: FileItem[None]) -> HashArray | str:
        """Return a photograph's (2, 4) hashes, or why it is none; raise CelebflowError when it cannot be read now."""
        try:
            return hash_photograph(decode_photograph(item.read()))
        except PhotographError as error:
            return str(error)

    def probe(self) -> HashArray:
        """Return the hashes of the example."""
        return hash_photograph(decode_photograph(self._example))


def hash_on_cluster(
    address: str, files: Sequence[tuple[str, str]], folder: Path, shared_disk: bool
) -> Iterator[tuple[int, HashArray | str]]:
    """Yield the place of each file with its hashes, or why it is no photograph, in the order in which they are done.

    `files` are paths in `folder`, each with the SHA-256 of its content. A node is refused when its code or libraries
    are not those here, or when it hashes an example otherwise.

    Raises CelebflowError when there is no cluster or no node that can be used, or a file cannot be read.
    """
    example = _draw_example()
    expected = HashingWorker(example).probe()

    def explain_difference(node: str, found: HashArray) -> str:
        return "" if np.array_equal(found, expected) else "it decodes photographs otherwise than this machine"

    items = FileItems([(path, sha256, None) for path, sha256 in files], folder, shared_disk=shared_disk)
    with cluster.connect(address, cluster.Task(HashingWorker, (example,), explain_difference)) as nodes:
        yield from nodes.map(items)
        for line in nodes.describe("photographs"):
            print(line)


def _draw_example() -> bytes:
    """Return a JPEG of noise, whose hashes are as those of no flat image."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
