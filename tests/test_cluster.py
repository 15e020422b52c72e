"""A real Ray cluster on loopback: every item is done once, whatever becomes of its nodes."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

from benchmarks.cluster import kill_last_node, start_cluster
from celebflow import cluster
from celebflow.cluster import Environment, Task, connect
from celebflow.errors import CelebflowError
from tests import REPOSITORY

pytestmark = pytest.mark.slow


class Waiting:
    """A worker that waits; `-1` is refused, and `-2` ends its process."""

    threads = 1

    def __init__(self, seconds: float, probe: int = 0) -> None:
        self._seconds = seconds
        self._probe = probe

    def __call__(self, item: int) -> tuple[int, str]:
        """Return the item, and the job that it belongs to."""
        time.sleep(self._seconds)
        if item == -1:
            raise CelebflowError("data/Ann/1.jpg is missing.")
        if item == -2:
            os._exit(1)
        return item, os.environ["RAY_JOB_ID"]

    def probe(self) -> int:
        """Return what was given."""
        return self._probe


class Unusual(Waiting):
    """A worker whose probe is that of its process."""

    def probe(self) -> int:
        """Return the process."""
        return os.getpid()


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """Return a cluster of two nodes with a processor each; a test that ends one starts another."""
    with start_cluster(2, processors=1) as nodes:
        yield nodes


def test_nodes_may_die_and_join(ray_cluster: RayCluster, tmp_path: Path) -> None:
    gates = {120: tmp_path / "two have joined", 300: tmp_path / "three have joined"}

    class Held(Waiting):
        def __call__(self, item: int) -> tuple[int, str]:
            while not all(gate.exists() for first, gate in gates.items() if item >= first):
                time.sleep(0.05)
            return super().__call__(item)

    with connect(ray_cluster.address, Task(Held, (0.01,))) as nodes:

        def open_gates() -> None:
            for count, gate in zip((2, 3), gates.values(), strict=True):
                while len(nodes.joined_at) < count:
                    time.sleep(0.05)
                gate.touch()

        Thread(target=open_gates, daemon=True).start()
        done: Counter[int] = Counter()
        is_disturbed = False
        for place, (item, _) in nodes.map(range(100, 500)):
            assert item == place + 100
            done[place] += 1
            if len(nodes.joined_at) == 2 and not is_disturbed:
                kill_last_node(ray_cluster)
                ray_cluster.add_node(num_cpus=1)
                is_disturbed = True
    assert done == Counter(range(400))
    assert len(nodes.joined_at) == 3 and sum(nodes.done.values()) == 400
    assert nodes.refused == {}


def test_many_items_go_in_batches_and_each_is_done_once(ray_cluster: RayCluster) -> None:
    with connect(ray_cluster.address, Task(Waiting, (0.0,))) as nodes:
        results = list(nodes.map(range(3000)))
    assert sorted(place for place, _ in results) == list(range(3000))
    assert all(item == place for place, (item, _) in results)
    assert sum(nodes.done.values()) == 3000
    batches = sum(first + 1 != second for (first, _), (second, _) in pairwise(results))
    assert batches < 1500, "as many as 16 items go in one call"


def test_no_long_item_waits_for_another(ray_cluster: RayCluster, tmp_path: Path) -> None:
    class Holding(Waiting):
        def __call__(self, item: int) -> tuple[int, str]:
            deadline = time.monotonic() + 30
            while item == 0 and len([*tmp_path.iterdir()]) < 9:
                assert time.monotonic() < deadline, "another item waits for this one"
                time.sleep(0.05)
            (tmp_path / str(item)).touch()
            return super().__call__(item)

    with connect(ray_cluster.address, Task(Holding, (0.01,), one_by_one=True)) as nodes:
        assert sorted(place for place, _ in nodes.map(range(10))) == [*range(10)]


def test_what_a_worker_refuses_is_raised_as_it_is_here(ray_cluster: RayCluster) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(CelebflowError, match=r"^data/Ann/1\.jpg is missing\.$"),
        connect(ray_cluster.address, Task(Waiting, (0.0,))) as nodes,
    ):
        assert signal.getsignal(signal.SIGTERM) == handler
        list(nodes.map([1, 2, -1, 3]))


def test_a_worker_that_dies_is_replaced(ray_cluster: RayCluster, tmp_path: Path) -> None:
    class Dying(Waiting):
        def __call__(self, item: int) -> tuple[int, str]:
            marker = tmp_path / str(item)
            if item % 5 == 0 and not marker.exists():
                marker.touch()
                os._exit(1)
            return super().__call__(item)

    with connect(ray_cluster.address, Task(Dying, (0.01,))) as nodes:
        assert sorted(place for place, _ in nodes.map(range(12))) == list(range(12))
        assert nodes.refused == {}


def test_an_item_that_ends_its_worker_is_named_and_not_those_beside_it(ray_cluster: RayCluster) -> None:
    with (
        pytest.raises(CelebflowError, match=r"^-2 ends each worker"),
        connect(ray_cluster.address, Task(Waiting, (0.0,))) as nodes,
    ):
        list(nodes.map([1, -2, *range(50)]))


def test_nodes_with_another_probe_are_refused_by_name(ray_cluster: RayCluster) -> None:
    pids: dict[str, int] = {}

    def explain(name: str, pid: int) -> str:
        pids[name] = pid
        return "its features differ" if pid == max(pids.values()) and len(pids) > 1 else ""

    with connect(ray_cluster.address, Task(Unusual, (0.1,), explain)) as nodes:
        list(nodes.map(range(60)))
        assert len(nodes.refused) <= 1 and len(pids) == 2
    with (
        pytest.raises(CelebflowError, match=r"can work:\n(  .*: too old\n){2}Install the same celebflow"),
        connect(ray_cluster.address, Task(Waiting, (0.0,), lambda name, probe: "too old")) as nodes,
    ):
        list(nodes.map([1]))


def test_a_node_that_cannot_make_the_worker_is_refused_with_the_reason(ray_cluster: RayCluster) -> None:
    with (
        pytest.raises(CelebflowError, match=r"can work:\n(  .*takes from 2 to 3 positional arguments.*\n){2}Install"),
        connect(ray_cluster.address, Task(Waiting, (0.0, 0, 1))) as nodes,
    ):
        list(nodes.map([1]))


def test_a_cluster_without_a_free_processor_is_given_up(
    ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE_SECONDS", 1.0)
    with (
        pytest.raises(CelebflowError, match="none with a free processor"),
        connect(ray_cluster.address, Task(Waiting, (0.0,))) as nodes,
    ):
        monkeypatch.setattr("ray.nodes", lambda: [])
        list(nodes.map([1]))


def test_local_is_a_cluster_of_its_own(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)  # Ray itself also joins what `ray start` left on record
    with connect("local", Task(Waiting, (0.0,))) as nodes:
        assert ray.get_runtime_context().gcs_address != ray_cluster.address
        assert dict(nodes.map([1, 2])).keys() == {0, 1}
    assert len(nodes.done) == 1


def test_no_cluster_is_a_clear_error_soon() -> None:
    with pytest.raises(
        CelebflowError, match=r"There is no Ray cluster at compute\.cluster, 127\.0\.0\.1:1 .*ray start"
    ):
        connect("127.0.0.1:1", Task(Waiting)).__enter__()


@pytest.mark.services
def test_the_documented_commands_make_a_cluster_that_a_token_keeps_others_out_of(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as home:  # whose path is short enough for Ray's sockets
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment = kept | {"HOME": home, "PYTHONPATH": str(REPOSITORY)}

        def run(*command: str, **variables: str) -> str:
            process = subprocess.run(
                command, env=environment | variables, capture_output=True, text=True, timeout=120, check=False
            )
            return process.stdout + process.stderr

        use = (sys.executable, "-m", "tests.cluster_client", address)
        options = ("--num-cpus", "1")
        run("ray", "get-auth-token", "--generate")
        try:
            for place in (
                (
                    "--head",
                    "--port",
                    address.partition(":")[2],
                    "--include-dashboard",
                    "false",
                    "--temp-dir",
                    f"{home}/ray",
                ),
                ("--address", address),
            ):
                assert "Ray runtime started" in run("ray", "start", *place, *options, RAY_AUTH_MODE="token")
            assert "[1, 2, 3]" in run(*use), "it finds the token itself"
            assert "this machine has the token" in run(*use, HOME=str(tmp_path))
        finally:
            run("ray", "stop", "--force")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CelebflowError, match=r"pip install 'celebflow\[ray\]'"):
        connect("local", Task(Waiting)).__enter__()


def test_other_versions_and_other_code_are_differences() -> None:
    own = Environment.find()
    assert own.explain_difference(Environment.find()) == ""
    assert own.explain_difference(Environment(own.versions | {"ncnn": "0.1"}, own.code)) == (
        f"ncnn 0.1 instead of {own.versions['ncnn']}"
    )
    assert own.explain_difference(Environment(own.versions, "0")) == "other code of celebflow"
