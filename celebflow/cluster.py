"""Hand items to the nodes of a Ray cluster, and take back what they make of them.

Ray sends pickles between its processes, which execute what they are sent: a cluster is as safe as its network and its
token.
"""

import hashlib
import logging
import os
import platform
import queue
import re
import signal
import socket
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import celebflow
from celebflow.errors import CelebflowError
from celebflow.versions import find_version

LOCAL = "local"
_TOKEN_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
_TOKEN_FILE = Path("~/.ray/auth_token")
_HOST_AND_PORT = re.compile(r"(ray://)?\[?(?P<host>[^/]+?)\]?:(?P<port>\d+)")
_CONNECT_SECONDS = 10.0
_LIBRARIES = ("celebflow", "ncnn", "numpy", "onnxruntime", "pillow", "scikit-learn", "scipy", "torch")
_POLL_SECONDS = 1.0  # between two looks at which nodes there are
_PATIENCE_SECONDS = 180.0  # until a cluster without a node that can work is given up
_MAX_DEATHS = 3  # of a node's workers, or of workers that had the same item
_CALLS_PER_THREAD = 2  # one in progress and one that waits, so that no thread waits for the network
_MAX_BATCH = 16  # items of a call, because each call takes time, too
_BATCHES_LEFT = 4  # for each call that a cluster takes at once, so that no node waits for another at the end


class Worker(Protocol):
    """What works on a node; made once on each."""

    threads: int
    """how many threads call it at once"""

    def __call__(self, item: Any) -> Any:
        """Turn an item into its result."""
        ...

    def probe(self) -> Any:
        """Return what shows whether this node makes the same of items as others do."""
        ...


@dataclass(frozen=True)
class Task:
    """What a cluster is to do: each node makes a worker by `make(*arguments)`.

    `explain_difference` takes a node's name and probe, and returns why that node cannot be used, or an empty text. With
    `one_by_one`, a thread gets an item when it has done the last: where items take long, none is to wait for it.
    """

    make: Callable[..., Worker]
    arguments: tuple[Any, ...] = ()
    explain_difference: Callable[[str, Any], str] = lambda name, probe: ""
    one_by_one: bool = False


@dataclass(frozen=True)
class Environment:
    """The versions of what must be the same on all nodes, and the code of celebflow as a hash."""

    versions: dict[str, str]
    code: str

    @classmethod
    def find(cls) -> "Environment":
        """Return those of this process."""
        return cls({"python": platform.python_version()} | {name: find_version(name) for name in _LIBRARIES}, _hash())

    def explain_difference(self, other: "Environment") -> str:
        """Return what `other` has instead; an empty text when it is the same."""
        different = [
            f"{name} {other.versions.get(name)} instead of {own}"
            for name, own in self.versions.items()
            if other.versions.get(name) != own
        ]
        return ", ".join(different) or ("other code of celebflow" if self.code != other.code else "")


def _hash() -> str:
    digest, folder = hashlib.sha256(), Path(celebflow.__path__[0])
    for module in sorted(folder.rglob("*.py")):
        digest.update(f"{module.relative_to(folder).as_posix()}\0".encode() + module.read_bytes())
    return digest.hexdigest()


class _Node:
    """What runs on a node."""

    def __init__(self, make: Callable[..., Worker], arguments: Sequence[Any]) -> None:
        self._make = make
        self._arguments = arguments

    def greet(self) -> None:
        """Return as soon as the node's process has started; making its worker may take long."""

    def describe(self) -> tuple[Environment, int, Any]:
        """Make the worker; return the node's environment, the number of the worker's threads, and its probe."""
        import ray

        self._worker = self._make(*(ray.get(each) for each in self._arguments))
        return Environment.find(), self._worker.threads, self._worker.probe()

    def work(self, items: Sequence[Any]) -> list[Any]:
        """Turn items into their results, one after the other."""
        return [self._worker(item) for item in items]


@dataclass
class _Member:
    """A node that works, or is about to."""

    key: str
    name: str
    actor: Any
    max_calls: int = 0  # that it takes at once
    is_preparing: bool = False  # its process has started, and makes its worker
    calls: int = 0
    is_alone: bool = False  # the item that it has is to be alone

    def has_room(self, *, alone: bool) -> bool:
        """Tell whether it can take one more call, whose item is to be alone or not."""
        if alone:
            return self.max_calls > 0 and not self.calls
        return not self.is_alone and self.calls < self.max_calls


@dataclass
class _Work:
    """The items that are to be done, by their places."""

    items: Sequence[Any]
    max_batch: int
    done_count: int = 0
    waiting: deque[int] = field(init=False)
    lost: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.items)))

    @property
    def is_next_alone(self) -> bool:
        """Tell whether the next item was lost: it may be why its worker died, and nothing else is to be beside it."""
        return self.lost[self.waiting[0]] > 0

    def take(self, max_calls: int) -> list[int]:
        """Return the places of the next items for one call, of a cluster that takes so many at once."""
        count = max(1, min(self.max_batch, len(self.waiting) // (_BATCHES_LEFT * max_calls)))
        places = [self.waiting.popleft()]
        while len(places) < count and not self.lost[places[0]] and not self.is_next_alone:
            places.append(self.waiting.popleft())
        return places

    def put_back(self, places: Sequence[int], *, were_alone: bool) -> None:
        """Let items wait again whose worker died; raise CelebflowError when one is to blame."""
        for place in reversed(places):
            self.lost[place] += 1
            if were_alone and self.lost[place] >= _MAX_DEATHS:
                raise CelebflowError(f"{self.items[place]} ends each worker of the cluster that takes it.")
            self.waiting.appendleft(place)


class Cluster:
    """The nodes of a Ray cluster, which may join and leave meanwhile.

    `done` counts the items of each node by its name, `joined_at` is when it began to take them (time.monotonic), and
    `refused` says of nodes that cannot be used why.
    """

    def __init__(self, address: str, task: Task) -> None:
        self.done: Counter[str] = Counter()
        self.joined_at: dict[str, float] = {}
        self.refused: dict[str, str] = {}
        self._address = address
        self._task = task
        self._own = Environment.find()
        self._members: dict[str, _Member] = {}
        self._deaths: Counter[str] = Counter()
        self._last_sign = time.monotonic()
        self._events: queue.SimpleQueue[tuple[_Member, list[int] | None, Future[Any]]] = queue.SimpleQueue()

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the place of each item with its result, in the order in which they are done.

        An item whose node dies goes to another. What a worker raises is raised here.

        Raises CelebflowError when no node can work, or when an item ends several workers.
        """
        import ray

        arguments = [ray.put(each) for each in self._task.arguments]
        work, last_look = _Work(items, 1 if self._task.one_by_one else _MAX_BATCH), 0.0
        self._last_sign = time.monotonic()
        while work.done_count < len(items):
            if time.monotonic() - last_look >= _POLL_SECONDS:
                self._welcome(arguments)
                last_look = time.monotonic()
            self._hand_out(work)
            if (event := self._wait()) is None:
                continue
            member, places, future = event
            if places is None:
                self._admit(member, future)
                continue
            if not places:  # it greets
                member.is_preparing = True
                continue
            member.calls -= 1
            error = future.exception()
            if isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError):
                work.put_back(places, were_alone=member.is_alone)
                self._dismiss(member)
                continue
            member.is_alone = False
            self._deaths[member.key] = 0
            self.done[member.name] += len(places)
            work.done_count += len(places)
            if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, CelebflowError):
                raise error.cause from None
            yield from zip(places, future.result(), strict=True)

    def describe(self, unit: str, note: Callable[[str], str] = lambda name: "") -> Iterator[str]:
        """Yield a line for each node: how many of `unit` it did, with a note by its name, or why it was not used."""
        now = time.monotonic()
        for name, count in sorted(self.done.items()):
            yield f"{name}: {count} {unit}, {count / (now - self.joined_at[name]):.1f}/s{note(name)}."
        for name, reason in sorted(self.refused.items()):
            yield f"{name} was not used: {reason}."

    def _hand_out(self, work: _Work) -> None:
        max_calls = sum(member.max_calls for member in self._members.values())
        for member in self._members.values():
            while work.waiting and member.has_room(alone=work.is_next_alone):
                member.is_alone = work.is_next_alone
                places = work.take(max_calls)
                member.calls += 1
                self._watch(member, places, member.actor.work.remote([work.items[place] for place in places]))

    def _wait(self) -> tuple[_Member, list[int] | None, Future[Any]] | None:
        """Return the next answer of a node, with the places of its items; None after a moment without one.

        Raises CelebflowError when no node can work, or none has done anything for long.
        """
        with suppress(queue.Empty):
            event = self._events.get(timeout=_POLL_SECONDS)
            self._last_sign = time.monotonic()
            return event
        if any(member.calls or member.is_preparing for member in self._members.values()):
            self._last_sign = time.monotonic()  # it computes, or is about to
        are_refused = self.refused and not self._members
        if are_refused or time.monotonic() - self._last_sign > _PATIENCE_SECONDS:
            raise CelebflowError(self._explain_standstill())
        return None

    def _welcome(self, arguments: Sequence[Any]) -> None:
        """Start a worker on each node that has joined."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for node in ray.nodes():  # type: ignore[no-untyped-call]
            key, processors = node["NodeID"], int(node["Resources"].get("CPU", 0))
            name = f"{node['NodeManagerAddress']} ({key[:8]})"
            if not node["Alive"] or not processors or key in self._members or name in self.refused:
                continue
            strategy = NodeAffinitySchedulingStrategy(key, soft=False)
            node_class: Any = ray.remote(_Node).options(
                num_cpus=processors, max_concurrency=processors, scheduling_strategy=strategy
            )
            self._members[key] = _Member(key, name, node_class.remote(self._task.make, arguments))
            self._watch(self._members[key], [], self._members[key].actor.greet.remote())
            self._watch(self._members[key], None, self._members[key].actor.describe.remote())

    def _watch(self, member: _Member, places: list[int] | None, reference: Any) -> None:
        reference.future().add_done_callback(lambda future: self._events.put((member, places, future)))

    def _admit(self, member: _Member, future: Future[Any]) -> None:
        """Let a node take items when it is as it must be; refuse it otherwise."""
        member.is_preparing = False
        error = future.exception()
        if error is not None:
            self._dismiss(member, " ".join(str(error).split())[-500:])
            return
        environment, threads, probe = future.result()
        difference = self._own.explain_difference(environment) or self._task.explain_difference(member.name, probe)
        if difference:
            self._refuse(member, difference)
        else:
            member.max_calls = threads * (1 if self._task.one_by_one else _CALLS_PER_THREAD)
            self.joined_at.setdefault(member.name, time.monotonic())

    def _dismiss(self, member: _Member, reason: str = "its workers die") -> None:
        """Do without a worker that died; another is started while its node lives, but not again and again."""
        if self._members.get(member.key) is member:
            del self._members[member.key]
            self._deaths[member.key] += not member.is_alone
            if self._deaths[member.key] >= _MAX_DEATHS:
                self.refused[member.name] = reason

    def _refuse(self, member: _Member, reason: str) -> None:
        import ray

        self.refused[member.name] = reason
        del self._members[member.key]
        ray.kill(member.actor)

    def _explain_standstill(self) -> str:
        reasons = [f"{name}: {reason}" for name, reason in self.refused.items()] or [
            "it has none with a free processor"
        ]
        return (
            f"No node of the cluster {self._address} can work:\n" + "\n".join(f"  {each}" for each in reasons) + "\n"
            "Install the same celebflow and libraries on each node, or set compute.cluster to null to use this machine "
            f"alone.{' If the cluster has no token, set RAY_AUTH_MODE=disabled.' if _TOKEN_MODE in os.environ else ''}"
        )


def _choose_token(address: str) -> dict[str, str]:
    """Return the variables by which Ray's processes know each other, unless the user has set them.

    Ray uses a token where there is one when it starts a cluster, but not when it connects to an address; and it would
    leave the token of a cluster on this machine alone in the user's home, where later clusters find it.
    """
    if _TOKEN_MODE in os.environ:
        return {}
    if address == LOCAL:
        return {_TOKEN: os.environ.get(_TOKEN, uuid4().hex)}  # Ray itself then sets the mode
    has_token = any(name in os.environ for name in (_TOKEN, f"{_TOKEN}_PATH")) or _TOKEN_FILE.expanduser().exists()
    return {_TOKEN_MODE: "token"} if has_token else {}


@contextmanager
def connect(address: str, task: Task) -> Iterator[Cluster]:
    """Connect to the Ray cluster at `address`, or start one on this machine for LOCAL.

    Raises CelebflowError when Ray is not installed, or there is no cluster.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns
    os.environ.update(_choose_token(address))
    try:
        import ray
    except ImportError:
        raise CelebflowError(
            f"compute.cluster is {address}, and Ray is not installed: pip install 'celebflow[ray]', or set it to null."
        ) from None
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    handler = signal.getsignal(signal.SIGTERM)  # Ray puts its own in the place
    try:
        if match := _HOST_AND_PORT.fullmatch(address):  # Ray itself tries for many minutes
            socket.create_connection((match["host"], int(match["port"])), _CONNECT_SECONDS).close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError) as error:
        raise CelebflowError(
            f"There is no Ray cluster at compute.cluster, {address} ({' '.join(str(error).split())[:300]}). Start one "
            "with `ray start --head`, see that this machine has the token of its machines (~/.ray/auth_token), or set "
            "compute.cluster to null to use this machine alone."
        ) from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    try:
        yield Cluster(address, task)
    finally:
        with suppress(Exception):  # what is asked for at the end has its result
            ray.shutdown()
