"""Extract on a Ray cluster of four nodes on this machine, whose nodes die and join, and measure what the driver can do.

python -m benchmarks.cluster: one node is killed in the middle, one joins, and the driver is killed and started again;
the features must have the same bytes as without a cluster. Then workers that only wait, and return as much as VGG19's
features take, tell how many photographs a second the driver hands out, takes back and stores: it writes docs/scale.md.

With photographs of real people:
  python -m benchmarks.cluster --data faces --weights vgg19.pth
"""

import argparse
import hashlib
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from ray.cluster_utils import Cluster as RayCluster
from ruamel.yaml import YAML

from benchmarks.compare import REPOSITORY, add_arguments, describe_machine, enter_repository, replace_between_marks, run
from benchmarks.kills import kill_tree
from celebflow import cluster, paths
from celebflow.backbone.source import BackboneSource
from celebflow.data.photos import Photo, load_photos
from celebflow.features.cache import measure_cache, open_cache
from celebflow.features.extracted import Extracted
from celebflow.features.extraction import store_extracted
from celebflow.features.origin import FeatureOrigin
from celebflow.features.sparse import SparseRow
from celebflow.features.transform import Transform
from celebflow.tracking.provenance import read_locked_md5s

MARKS = "<!-- cluster -->", "<!-- end of cluster -->"
_NODES = 4
_THREADS = 64  # of a node whose threads wait
_WAIT_SECONDS = 0.05
_PHOTOGRAPHS = 10_000
_PHOTOGRAPH_BYTES = 10_000
_FEATURES = 8_000  # that are not zero, of a photograph of 224 × 224 pixels
_ROUNDS = 3
_TRANSFORM = Transform(224)


class Waiting:
    """A worker whose threads wait instead of computing."""

    threads = _THREADS

    def __init__(self) -> None:
        row = SparseRow(np.arange(_FEATURES, dtype=np.uint16), np.ones(_FEATURES, np.float32))
        self._extracted = Extracted({_TRANSFORM: row}, [])

    def __call__(self, item: bytes) -> Extracted:
        """Wait; return features."""
        time.sleep(_WAIT_SECONDS)
        return self._extracted

    def probe(self) -> None:
        """Return nothing: nodes are alike."""


def main() -> None:
    """Check the bytes, measure the driver, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    with enter_repository(arguments.data, arguments.weights):
        check_bytes()
    rates = [measure_driver() for _ in range(_ROUNDS)]
    rate = statistics.median(rates)
    machine = describe_machine()
    lines = [
        "| processor | photographs/s that the driver hands out, takes back and stores |",
        "|---|---|",
        f"| {machine['processor']} | {rate:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) |",
    ]
    table = "\n".join(lines)
    print(table)
    replace_between_marks(REPOSITORY / "docs" / "scale.md", MARKS, table)


def check_bytes() -> None:
    """Extract here and on a cluster that is disturbed; end with an error unless the features are the same bytes."""
    run("dvc", "repro", "extract")
    expected = read_locked_md5s()["features"]
    count = len(load_photos(paths.PHOTOS))
    shutil.rmtree(paths.feature_cache())
    with start_cluster(_NODES, processors=1) as nodes:
        set_cluster(nodes.address)
        disturb(nodes)
        run("dvc", "repro", "--force", "--single-item", "extract")
    found = read_locked_md5s()["features"]
    if found != expected:
        raise SystemExit(f"The features differ: {found} instead of {expected}.")
    print(
        f"{count} photographs on {_NODES} nodes, with a node and a driver killed and a node added: {found}", flush=True
    )


def disturb(nodes: RayCluster) -> None:
    """Start to extract; kill a node, add one, and kill the driver when a third is done."""
    started = time.monotonic()
    process = psutil.Popen(["dvc", "repro", "--force", "--single-item", "extract"], stdout=subprocess.DEVNULL)
    count, is_disturbed = len(load_photos(paths.PHOTOS)), False
    while process.poll() is None:
        done = measure_cache(paths.feature_cache()).entries
        if done >= count // 10 and not is_disturbed:
            kill_last_node(nodes)
            nodes.add_node(num_cpus=1)
            is_disturbed = True
        if done >= count // 3:
            kill_tree(process)
            print(f"driver killed after {time.monotonic() - started:.1f} s, with {done} of {count} photographs done")
            return
        time.sleep(0.1)
    raise SystemExit("The driver ended before it could be killed.")


def set_cluster(address: str) -> None:
    """Name the cluster in params.yaml."""
    yaml = YAML()
    params = yaml.load(paths.PARAMS)
    params["compute"]["cluster"] = address
    yaml.dump(params, paths.PARAMS)


@contextmanager
def start_cluster(node_count: int, processors: int) -> Iterator[RayCluster]:
    """Start nodes on this machine, with so many processors each."""
    nodes = RayCluster()
    for _ in range(node_count):
        nodes.add_node(num_cpus=processors, include_dashboard=False)
    try:
        yield nodes
    finally:
        nodes.shutdown()  # type: ignore[no-untyped-call] # Ray has no types there


def kill_last_node(nodes: RayCluster) -> None:
    """End the node that joined last, without a word to the others."""
    last = nodes.list_all_nodes()[-1]  # type: ignore[no-untyped-call] # Ray has no types there
    nodes.remove_node(last, allow_graceful=False)


def measure_driver() -> float:
    """Return how many photographs a second are handed out, taken back and stored, of nodes that only wait."""
    photos = [Photo(f"a/{number}.jpg", "a", "train", hash_number(number), "") for number in range(_PHOTOGRAPHS)]
    content = bytes(_PHOTOGRAPH_BYTES)
    origin = FeatureOrigin(BackboneSource("untrained", False, "0" * 64), _TRANSFORM, "ncnn")
    with (
        start_cluster(_NODES, processors=_THREADS) as nodes,
        tempfile.TemporaryDirectory() as folder,
        open_cache(Path(folder) / "cache", origin) as cache,
        cluster.connect(nodes.address, cluster.Task(Waiting)) as connected,
    ):
        list(connected.map([content] * 1000))  # until all nodes work
        started = time.perf_counter()
        done = connected.map([content] * _PHOTOGRAPHS)
        store_extracted(((photos[place], extracted) for place, extracted in done), cache)
        return _PHOTOGRAPHS / (time.perf_counter() - started)


def hash_number(number: int) -> str:
    """Return a text that is as long as a SHA-256."""
    return hashlib.sha256(str(number).encode()).hexdigest()


if __name__ == "__main__":
    main()
